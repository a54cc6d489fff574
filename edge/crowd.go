package edge

import (
	"sync/atomic"
	"time"
)

// Publishers that send for a long time what a subscriber takes a little less
// quickly would fill max_outbound_bytes, and QoS 0 would be dropped, or a clean
// session disconnected, in the middle of a flood that the subscriber keeps up with.
// So the reader of a publisher gives way to a subscriber that has half of it
// waiting. Its publishers are as slow as that subscriber then, for as long as they
// send more than it takes, and so is what they send to others and to bridges. But
// each wait is crowdMost at most and ends with room for an eighth of the bound at
// least (256 KiB/s with the default), or nobody waits for that subscriber any more
// before it has caught up, nor for anyone for ten times as long.
//
// It does not help clients that flood each other with QoS 1 or 2 from clean
// sessions: a reader that waits does not read the acknowledgements of its own
// client either, so one of them goes on, and the other may be disconnected as slow.
const (
	// crowdWait is how long a subscriber may take nothing while others give way to
	// it, and crowdMost how long they do at most, until less waits for it.
	crowdWait = 100 * time.Millisecond
	crowdMost = 500 * time.Millisecond
	// crowdRest is how many times as long nobody gives way to anyone after that was
	// in vain.
	crowdRest = 10
)

// crowd is what is known of one connection that has much waiting.
type crowd struct {
	awaited atomic.Bool // changed with conn.mu: relief may be set
	// hopeless: it was waited for in vain, until there is nothing for it any more.
	hopeless atomic.Bool
	taken    atomic.Uint64 // how often it has taken something meanwhile
	relief   chan struct{} // closed when there is room; guarded by conn.mu
	since    time.Time     // guarded by conn.mu
	waiting  int           // how many wait for relief; guarded by conn.mu

	// giveWayTo is a subscriber that what was handled last has found crowded.
	giveWayTo atomic.Pointer[conn]
	// waitsFor is the one that its reader gives way to now; nil for none.
	waitsFor atomic.Pointer[conn]
}

// noteCrowded has the reader of by give way to c, if it may and c has too much
// waiting.
func (c *conn) noteCrowded(by *conn, waiting int) {
	if waiting > c.srv.limits.MaxOutboundBytes/2 && by != nil && by != c && !c.crowd.hopeless.Load() {
		by.crowd.giveWayTo.Store(c)
	}
}

// waitingLocked is how much waits for the client in memory, in bytes, the larger
// one of what is to be written and what is to be acknowledged.
func (c *conn) waitingLocked() int {
	n := len(c.out)
	if c.sess != nil {
		if box, ok := c.sess.outbox.(*memoryOutbox); ok {
			n = max(n, box.size())
		}
	}
	return n
}

// giveWay waits until a crowded subscriber has room, at most crowdMost from when
// the first has begun to wait for it. The reader calls it after each packet.
func (c *conn) giveWay() {
	to := c.crowd.giveWayTo.Load()
	if to == nil {
		return
	}
	c.crowd.giveWayTo.Store(nil)
	c.endBatch()
	if time.Since(c.srv.started) < time.Duration(c.srv.noGivingWay.Load()) {
		return
	}
	c.crowd.waitsFor.Store(to)
	defer c.crowd.waitsFor.Store(nil)
	if to.waitsInTurnFor(c) {
		return
	}
	to.mu.Lock()
	to.crowd.awaited.Store(true) // before the look, so that relieve is not missed
	if to.closing || to.waitingLocked() <= c.srv.limits.MaxOutboundBytes/2 {
		to.crowd.awaited.Store(to.crowd.relief != nil)
		to.mu.Unlock()
		return
	}
	if to.crowd.relief == nil {
		to.crowd.relief, to.crowd.since, to.crowd.waiting = make(chan struct{}), time.Now(), 0
	}
	to.crowd.waiting++
	relief, since := to.crowd.relief, to.crowd.since
	to.mu.Unlock()
	defer to.waitIsOver(relief)
	timer := time.NewTimer(crowdWait)
	defer timer.Stop()
	for {
		before := to.crowd.taken.Load()
		select {
		case <-relief:
			return
		case <-to.closed:
			return
		case <-c.closed:
			return
		case <-timer.C:
		}
		if waited := time.Since(since); to.crowd.taken.Load() == before || waited >= crowdMost {
			to.crowd.hopeless.Store(true)
			c.srv.noGivingWay.Store(int64(time.Since(c.srv.started) + crowdRest*min(waited, crowdMost)))
			return
		}
		timer.Reset(crowdWait)
	}
}

// waitIsOver is called by each that has waited for relief. If they have all gone
// without it, the next begins anew.
func (c *conn) waitIsOver(relief chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crowd.relief != relief {
		return
	}
	if c.crowd.waiting--; c.crowd.waiting == 0 {
		c.crowd.relief = nil
		c.crowd.awaited.Store(false)
	}
}

// crowdRound is how many clients that send to each other in a round are seen.
const crowdRound = 8

// waitsInTurnFor reports whether the reader of c waits for other already, or for
// one that does.
func (c *conn) waitsInTurnFor(other *conn) bool {
	for range crowdRound {
		if c = c.crowd.waitsFor.Load(); c == nil || c == other {
			break
		}
	}
	return c == other
}

// relieve lets those go on who wait for the client, if there is room. It is called
// whenever less waits than before.
func (c *conn) relieve() {
	if !c.crowd.awaited.Load() {
		return
	}
	c.crowd.taken.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waitingLocked() > c.srv.limits.MaxOutboundBytes/8*3 {
		return
	}
	if c.crowd.relief != nil {
		close(c.crowd.relief)
	}
	c.crowd.relief = nil
	c.crowd.awaited.Store(false)
}

// caughtUp is called when everything is written.
func (c *conn) caughtUp() {
	if !c.crowd.hopeless.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waitingLocked() == 0 {
		c.crowd.hopeless.Store(false)
	}
}
