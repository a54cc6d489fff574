package bridge

import (
	"cmp"
	"hash/maphash"
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
// Route.OnChange: a message whose payload and RETAIN flag are those of the last
// one sent on its topic is dropped(unchanged). What was sent is not remembered
// over a restart, nor when it is not known to have arrived.
//
// What is held stays in the queue, on disk, until it is acknowledged or dropped;
// when the connection ends it is given back. Bounds: the last message of maxThin
// topics is known, those of further topics all go; maxHeld messages and
// maxHeldBytes are held, and for one more the one that has been held longest goes
// early. Both are counted in Status.Unthinned and logged.
const (
	maxThin      = 10_000
	maxHeld      = 1000 // well below the gaps that a queue remembers
	maxHeldBytes = 4 << 20
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
	start  time.Time // of the interval; zero: the next message goes
	held   *holdfast.Item
	due    time.Time // of held, by a clock that nobody sets
	sum    uint64    // of what was sent last
	hasSum bool
}

// thinner is between the queue and the connection. It is used by Run, and by
// finish, which only forgets.
type thinner struct {
	rules map[string]thinRule // by route; empty: nothing is left out
	late  func(id holdfast.ItemID) bool
	drop  func(id holdfast.ItemID, reason string)
	full  func() // a bound is met
	seed  maphash.Seed

	mu     sync.Mutex
	topics map[thinKey]*thinned
	held   map[thinKey]*thinned              // those of topics that hold something
	bytes  int                               // of them
	first  time.Time                         // nothing held is due before, if there is any
	ends   [2 * holdfast.LaneCount]time.Time // no interval of what is held ends before, by stream
	ready  []holdfast.Item                   // to be sent, in this order
	swept  time.Time                         // when topics was last looked through
}

func newThinner(rules map[string]thinRule, late func(holdfast.ItemID) bool, drop func(holdfast.ItemID, string), full func()) *thinner {
	return &thinner{
		rules: rules, late: late, drop: drop, full: full, seed: maphash.MakeSeed(),
		topics: map[thinKey]*thinned{}, held: map[thinKey]*thinned{},
	}
}

// take takes what the queue has handed out. What is to be sent of it, and of what
// was held, comes out of next.
func (t *thinner) take(it holdfast.Item) {
	rule, ok := t.rules[it.Route]
	at := it.Msg.Received
	t.mu.Lock()
	defer t.mu.Unlock()
	t.passedLocked(t.stream(it.ID), at)
	if !ok {
		t.ready = append(t.ready, it)
		return
	}
	key := t.key(it)
	e := t.topicLocked(key, rule, at)
	if e == nil {
		t.full()
		t.ready = append(t.ready, it)
		return
	}
	switch into := at.Sub(e.start); {
	case rule.sample == 0:
	case e.start.IsZero() || into < 0 || into >= rule.sample:
		// passedLocked has let go of what was held, unless the clock was set back.
		t.replaceLocked(key, e)
		e.start = at
	default:
		t.replaceLocked(key, e)
		t.holdLocked(key, e, it, rule.sample-into)
		return
	}
	t.ready = append(t.ready, it)
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
			if r := t.rules[k.route]; !r.onChange && e.held == nil && at.Sub(e.start) >= r.sample {
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
	stream, end := t.stream(it.ID), e.start.Add(t.rules[key.route].sample)
	if t.ends[stream].IsZero() || end.Before(t.ends[stream]) {
		t.ends[stream] = end
	}
	t.held[key] = e
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

// stream numbers what comes in the order of time: each lane, and its backlog.
func (t *thinner) stream(id holdfast.ItemID) int {
	n := int(id.Lane())
	if t.late(id) {
		n += holdfast.LaneCount
	}
	return n
}

func (t *thinner) key(it holdfast.Item) thinKey {
	return thinKey{it.Route, it.Msg.Topic, t.late(it.ID)}
}

// passedLocked sends what is held of a stream whose interval was over at the
// receipt of the stream's next message.
func (t *thinner) passedLocked(stream int, at time.Time) {
	if t.ends[stream].IsZero() || at.Before(t.ends[stream]) {
		return
	}
	var next time.Time
	t.releaseIfLocked(func(key thinKey, e *thinned) bool {
		if t.stream(e.held.ID) != stream {
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

// due sends what is held and due now. It is called when the queue has nothing
// more.
func (t *thinner) due(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.releaseIfLocked(func(_ thinKey, e *thinned) bool { return !e.due.After(now) })
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
		if t.rules[it.Route].onChange && !t.changedLocked(it) {
			t.drop(it.ID, reasonUnchanged)
			continue
		}
		return it, true
	}
	return it, false
}

func (t *thinner) changedLocked(it holdfast.Item) bool {
	e := t.topics[t.key(it)]
	if e == nil {
		return true
	}
	var h maphash.Hash
	h.SetSeed(t.seed)
	h.Write(it.Msg.Payload)
	if it.Msg.Retain {
		h.WriteByte(1)
	}
	sum := h.Sum64()
	if e.hasSum && e.sum == sum {
		return false
	}
	e.sum, e.hasSum = sum, true
	return true
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
	if e := t.topics[t.key(it)]; e != nil {
		e.start, e.hasSum = time.Time{}, false
	}
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
	return ids
}

// holding is how many messages are held.
func (t *thinner) holding() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.held)
}
