package bridge

import (
	"cmp"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"

	"holdfast"
)

// What a route leaves out, for links that cannot carry everything.
//
// Route.Sample: of a topic at most one message goes in each interval. The first
// goes at once and opens the interval; of those that come within it the newest is
// held until it is over, and the others are dropped(sampled). Time is that of
// receipt, so a backlog is thinned out like what is fresh.
//
// Route.OnChange: see unchanged.go.
//
// What was let through and comes back from the queue, because it went beside the
// upstream in use and could not go there, goes again whatever was sent since.
//
// What is held stays in the queue, on disk, until it is acknowledged or dropped;
// when the connection ends it is given back. Bounds: the intervals of maxThin
// topics are known, the messages of further topics all go; maxHeld messages and
// maxHeldBytes are held, and for one more the one that has been held longest goes
// early. Both are counted in Status.Unthinned and logged.
const (
	maxThin      = 10_000
	maxHeld      = 1000 // well below the gaps that a queue remembers
	maxHeldBytes = 4 << 20
	maxReturning = 1000      // that come back, far more than ever wait beside
	unthinnedLog = time.Hour // between two warnings

	reasonSampled   = "sampled"
	reasonUnchanged = "unchanged"
)

type thinRule struct {
	sample   time.Duration // 0: every message
	onChange bool
}

type thinKey struct {
	route, topic string
	late         bool // a backlog is thinned out for itself
}

// thinned is what is known of one topic of one route.
type thinned struct {
	start time.Time // of the interval; zero: the next message goes
	held  *holdfast.Item
	due   time.Time // of held, by a clock that nobody sets
}

// thinner is between the queue and the connection. It is used by Run, and by
// what ends a publish: arrived, forget and comeBack.
type thinner struct {
	rules   map[string]thinRule // by route; empty: nothing is left out
	late    func(id holdfast.ItemID) bool
	drop    func(id holdfast.ItemID, reason string)
	release func(ids ...holdfast.ItemID)
	full    func() // a bound is met

	mu        sync.Mutex
	changes   changes
	topics    map[thinKey]*thinned
	held      map[thinKey]*thinned              // those of topics that hold something
	bytes     int                               // of them
	holds     [2 * holdfast.LaneCount]int       // how many they are, by stream
	first     time.Time                         // nothing held is due before, if there is any
	ends      [2 * holdfast.LaneCount]time.Time // no interval of what is held ends before, by stream
	ready     []holdfast.Item                   // to be sent, in this order
	returning map[holdfast.ItemID]struct{}      // let through, and in the queue again
	swept     time.Time                         // when topics was last looked through
}

// newThinner makes one that tells the queue with drop and release what becomes
// of its items.
func newThinner(rules map[string]thinRule, late func(holdfast.ItemID) bool, drop func(holdfast.ItemID, string), release func(...holdfast.ItemID), full func()) *thinner {
	return &thinner{
		rules: rules, late: late, drop: drop, release: release, full: full,
		changes: changes{seed: maphash.MakeSeed(), topics: map[topicOfRoute]*change{}},
		topics:  map[thinKey]*thinned{}, held: map[thinKey]*thinned{},
		returning: map[holdfast.ItemID]struct{}{},
	}
}

// take takes what the queue has handed out, and returns its stream. What is to be
// sent of it, and of what was held, comes out of next.
func (t *thinner) take(it holdfast.Item) (stream int) {
	rule := t.rules[it.Route]
	at := it.Msg.Received
	late := t.late(it.ID)
	stream = streamOf(it.ID, late)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.passedLocked(stream, at)
	if _, back := t.returning[it.ID]; back || rule.sample == 0 {
		t.ready = append(t.ready, it)
		return stream
	}
	key := thinKey{it.Route, it.Msg.Topic, late}
	e := t.topicLocked(key, rule, at)
	if e == nil {
		t.full()
		t.ready = append(t.ready, it)
		return stream
	}
	switch into := at.Sub(e.start); {
	case e.held != nil && it.ID.Lane() == e.held.ID.Lane() && it.ID < e.held.ID:
		// It is not known why it is late: it must not cost the newer one.
	case e.start.IsZero() || into < 0 || into >= rule.sample:
		// passedLocked has let go of what was held, unless the clock was set back.
		t.replaceLocked(key, e)
		e.start = at
	default:
		t.replaceLocked(key, e)
		t.holdLocked(key, e, it, rule.sample-into)
		return stream
	}
	t.ready = append(t.ready, it)
	return stream
}

// topicLocked is the topic's entry; nil if there is no room for one.
func (t *thinner) topicLocked(key thinKey, rule thinRule, at time.Time) *thinned {
	e := t.topics[key]
	if e != nil {
		return e
	}
	if now := time.Now(); len(t.topics) >= maxThin && now.Sub(t.swept) > time.Second {
		t.swept = now
		for k, e := range t.topics {
			if e.held == nil && at.Sub(e.start) >= t.rules[k.route].sample {
				delete(t.topics, k)
			}
		}
	}
	if len(t.topics) >= maxThin {
		return nil
	}
	e = &thinned{}
	t.topics[key] = e
	return e
}

// replaceLocked drops what is held for a newer message of its topic.
func (t *thinner) replaceLocked(key thinKey, e *thinned) {
	if e.held != nil {
		t.drop(t.letGoLocked(key, e).ID, reasonSampled)
	}
}

func (t *thinner) letGoLocked(key thinKey, e *thinned) holdfast.Item {
	it := *e.held
	e.held = nil
	delete(t.held, key)
	t.holds[streamOf(it.ID, key.late)]--
	t.bytes -= it.Msg.Size()
	return it
}

// holdLocked keeps it for as long as its interval goes on.
func (t *thinner) holdLocked(key thinKey, e *thinned, it holdfast.Item, rest time.Duration) {
	now := time.Now()
	// Of a backlog the interval is over; it is known only behind it whether
	// there is a newer one.
	e.held, e.due = &it, now.Add(min(rest, max(rest-now.Sub(it.Msg.Received), 0)))
	if len(t.held) == 0 || e.due.Before(t.first) {
		t.first = e.due
	}
	stream, end := streamOf(it.ID, key.late), e.start.Add(t.rules[key.route].sample)
	if t.ends[stream].IsZero() || end.Before(t.ends[stream]) {
		t.ends[stream] = end
	}
	t.held[key] = e
	t.holds[stream]++
	t.bytes += it.Msg.Size()
	for len(t.held) > maxHeld || t.bytes > maxHeldBytes && len(t.held) > 1 {
		t.full()
		var oldest thinKey
		for k, h := range t.held {
			if o := t.held[oldest]; o == nil || h.held.Msg.Received.Before(o.held.Msg.Received) {
				oldest = k
			}
		}
		t.releaseLocked(oldest)
	}
}

// releaseLocked sends what a topic holds. The next interval begins where this one
// ends.
func (t *thinner) releaseLocked(key thinKey) {
	e := t.held[key]
	e.start = e.start.Add(t.rules[key.route].sample)
	t.ready = append(t.ready, t.letGoLocked(key, e))
}

// streamOf numbers what comes in the order of time: each lane, and its backlog.
func streamOf(id holdfast.ItemID, late bool) int {
	n := int(id.Lane())
	if late {
		n += holdfast.LaneCount
	}
	return n
}

// passedLocked sends what is held of a stream whose interval was over at the
// receipt of the stream's next message.
func (t *thinner) passedLocked(stream int, at time.Time) {
	if t.ends[stream].IsZero() || at.Before(t.ends[stream]) {
		return
	}
	var next time.Time
	t.releaseIfLocked(func(key thinKey, e *thinned) bool {
		if streamOf(e.held.ID, key.late) != stream {
			return false
		}
		end := e.start.Add(t.rules[key.route].sample)
		if over := !at.Before(end); over {
			return true
		}
		if next.IsZero() || end.Before(next) {
			next = end
		}
		return false
	})
	t.ends[stream] = next
}

func (t *thinner) releaseIfLocked(over func(thinKey, *thinned) bool) {
	if len(t.held) == 0 {
		return
	}
	var keys []thinKey
	for key, e := range t.held {
		if over(key, e) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b thinKey) int { return cmp.Compare(t.held[a].held.ID, t.held[b].held.ID) })
	for _, key := range keys {
		t.releaseLocked(key)
	}
}

// due sends what is held and due now, but not of the stream in which the queue
// has more, which may be newer: passedLocked does that. -1 is none.
func (t *thinner) due(now time.Time, but int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if but >= 0 && t.holds[but] == len(t.held) {
		return
	}
	t.releaseIfLocked(func(key thinKey, e *thinned) bool {
		return !e.due.After(now) && streamOf(e.held.ID, key.late) != but
	})
	t.first = time.Time{}
	for _, e := range t.held {
		if t.first.IsZero() || e.due.Before(t.first) {
			t.first = e.due
		}
	}
}

// wake is when due must be called at the latest; ok is false if nothing is held.
func (t *thinner) wake() (at time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.first, len(t.held) > 0
}

// next is the next message to send.
func (t *thinner) next() (it holdfast.Item, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.ready) > 0 {
		it, t.ready[0] = t.ready[0], holdfast.Item{}
		if t.ready = t.ready[1:]; len(t.ready) == 0 {
			t.ready = nil
		}
		_, back := t.returning[it.ID]
		delete(t.returning, it.ID)
		if t.rules[it.Route].onChange && t.unchangedLocked(it, back) {
			continue
		}
		return it, true
	}
	return it, false
}

// arrived is for a message that the far broker has acknowledged.
func (t *thinner) arrived(it *holdfast.Item) {
	if !t.rules[it.Route].onChange {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flownLocked(*it, true)
}

// forget is for a message that was sent and is not known to have arrived: the
// next of its topic goes whatever it is.
func (t *thinner) forget(it holdfast.Item) {
	if _, ok := t.rules[it.Route]; !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetLocked(it)
}

func (t *thinner) forgetLocked(it holdfast.Item) {
	t.flownLocked(it, false)
	for _, late := range []bool{false, true} {
		if e := t.topics[thinKey{it.Route, it.Msg.Topic, late}]; e != nil {
			e.start = time.Time{}
		}
	}
}

// comeBack is for a message that next has given and that is released, to be sent
// in another way.
func (t *thinner) comeBack(it holdfast.Item) {
	if _, ok := t.rules[it.Route]; !ok {
		t.release(it.ID)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flownLocked(it, false)
	t.returnLocked(it.ID)
}

// returnLocked releases what goes whatever was sent since. What the queue drops
// meanwhile does not come, so the oldest make room.
func (t *thinner) returnLocked(id holdfast.ItemID) {
	if len(t.returning) >= maxReturning {
		delete(t.returning, slices.Min(slices.Collect(maps.Keys(t.returning))))
	}
	t.returning[id] = struct{}{}
	t.release(id)
}

// giveBack returns what has to go back to the queue.
func (t *thinner) giveBack() (ids []holdfast.ItemID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, it := range t.ready {
		ids = append(ids, it.ID)
		t.forgetLocked(it)
	}
	t.ready = nil
	for key, e := range t.held {
		ids = append(ids, t.letGoLocked(key, e).ID)
	}
	clear(t.returning)
	return append(ids, t.changes.groundLocked()...)
}

// holding is how many messages are held.
func (t *thinner) holding() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.held)
}
