package bridge

import "time"

// How much is on its way at once.
//
// A window in messages is right for a fast link and a flood for a slow one: what
// is sent sooner than the link can carry waits in the buffers of the board, the
// module and the network, and an alarm waits behind it. So the bytes in flight
// are held to what the link delivers in about queueTarget on top of its round
// trip, whatever the link is: they grow while acknowledgements come about as
// fast as ever and shrink when they come later than that. Options.Window and
// WindowBytes are the bounds.
const (
	queueTarget = 450 * time.Millisecond
	paceStart   = 8 << 10
	paceFloor   = 2 << 10
	// rttMemory is how long a shortest round trip counts, since links change. The
	// limit is halved then, so that the next one is not that of a standing queue.
	rttMemory = time.Minute
)

// pace belongs to one connection; it is guarded by connection.mu.
type pace struct {
	limit, most int // bytes
	cut         bool
	cutAt       time.Time

	smooth      time.Duration // round trip, over about the last eight
	base, older time.Duration // the shortest round trip of this rttMemory and of the last
	baseSince   time.Time
}

func newPace(most int) pace { return pace{limit: min(paceStart, most), most: most} }

// answered takes an acknowledgement of a message of size bytes that was sent rtt
// ago. full says that the limit is what holds further ones back.
func (p *pace) answered(now time.Time, size int, rtt time.Duration, full bool) {
	if now.Sub(p.baseSince) > rttMemory {
		p.older, p.base = p.base, rtt
		if !p.baseSince.IsZero() {
			p.limit = max(p.limit/2, min(paceFloor, p.most))
		}
		p.baseSince = now
	}
	p.base = min(p.base, rtt)
	shortest := p.base
	if p.older > 0 {
		shortest = min(shortest, p.older)
	}
	// Smoothed: one lost segment delays a dozen messages, and is no queue.
	p.smooth += (rtt - p.smooth) / 8
	switch waited := p.smooth - shortest; {
	case waited > queueTarget:
		// Once a round trip: what is on its way now was sent under the old limit.
		if now.Sub(p.cutAt) > rtt {
			share := max(0.7, float64(queueTarget)/float64(waited))
			p.limit = max(int(float64(p.limit)*share), min(paceFloor, p.most))
			p.cut, p.cutAt = true, now
		}
	case waited < queueTarget*3/4 && full:
		more := size // twice as much each round trip
		if p.cut {
			more = max(size/8, 1)
		}
		p.limit = min(p.limit+more, p.most)
	}
}

// rate bounds the messages in a second, over connections. Only Run uses it.
type rate struct {
	every time.Duration // 0: no bound
	next  time.Time
}

// rateBurst is how much of what was not used is made up for.
const rateBurst = time.Second

// wait returns how long until a message may be sent.
func (r *rate) wait(now time.Time) time.Duration {
	if r.every == 0 {
		return 0
	}
	return r.next.Sub(now)
}

func (r *rate) sent(now time.Time) {
	if r.every == 0 {
		return
	}
	if earliest := now.Add(-rateBurst); r.next.Before(earliest) {
		r.next = earliest
	}
	r.next = r.next.Add(r.every)
}
