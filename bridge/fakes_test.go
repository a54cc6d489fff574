package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"holdfast"
)

// story is what happened, in order.
type story struct {
	mu    sync.Mutex
	lines []string
}

func (s *story) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *story) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lines
	s.lines = nil
	return l
}

func (s *story) want(t *testing.T, want ...string) {
	t.Helper()
	if got := s.take(); !slices.Equal(got, want) {
		t.Fatalf("happened:\n %q\nwanted:\n %q", got, want)
	}
}

// fakeQueue is a Queue in memory that tells what is done with it.
type fakeQueue struct {
	*story
	mu      sync.Mutex
	waiting []holdfast.Item
	out     map[holdfast.ItemID]holdfast.Item
	last    uint64
	ready   chan struct{}
	fail    error // of Next, once
	gone    map[holdfast.ItemID]string
	mark    uint64
	settled [holdfast.LaneCount]uint64 // before this process
}

func newFakeQueue(s *story) *fakeQueue {
	return &fakeQueue{story: s, out: map[holdfast.ItemID]holdfast.Item{}, ready: make(chan struct{}, 1), gone: map[holdfast.ItemID]string{}}
}

func (q *fakeQueue) add(n int, qos byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for range n {
		q.last++
		q.waiting = append(q.waiting, holdfast.Item{
			ID: holdfast.NewItemID(holdfast.Normal, q.last), Route: "r",
			Msg: &holdfast.Message{Topic: fmt.Sprintf("t/%d", q.last), Payload: fmt.Appendf(nil, "%d", q.last), QoS: qos},
		})
	}
	signal(q.ready)
}

func (q *fakeQueue) Next(ctx context.Context, lanes holdfast.Lanes) (holdfast.Item, error) {
	for {
		q.mu.Lock()
		if err := q.fail; err != nil {
			q.fail = nil
			q.mu.Unlock()
			return holdfast.Item{}, err
		}
		q.mu.Unlock()
		if it, ok, _ := q.Poll(lanes); ok {
			return it, nil
		}
		select {
		case <-q.ready:
		case <-ctx.Done():
			return holdfast.Item{}, ctx.Err()
		}
	}
}

func (q *fakeQueue) Poll(lanes holdfast.Lanes) (holdfast.Item, bool, error) { return q.poll(lanes, 0) }

func (q *fakeQueue) poll(lanes holdfast.Lanes, behind uint64) (holdfast.Item, bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, it := range q.waiting {
		if lanes.Has(it.ID.Lane()) && it.ID.Position() > behind {
			if i == 0 { // at the head of a long queue nothing is moved
				q.waiting = q.waiting[1:]
			} else {
				q.waiting = slices.Delete(q.waiting, i, i+1)
			}
			q.out[it.ID] = it
			return it, true, nil
		}
	}
	return holdfast.Item{}, false, nil
}

// Mark and PollFresh make it a FreshQueue.
func (q *fakeQueue) Mark() (end, settled [holdfast.LaneCount]uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mark = q.last
	return [holdfast.LaneCount]uint64{q.mark + 1, q.mark + 1, q.mark + 1}, q.settled
}

func (q *fakeQueue) PollFresh(lanes holdfast.Lanes) (holdfast.Item, bool, error) {
	return q.poll(lanes, q.mark)
}

func (q *fakeQueue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting) + len(q.out)
}

// insert puts one message of a lane in its place.
func (q *fakeQueue) insert(lane holdfast.Lane, payload string) {
	q.mu.Lock()
	q.last++
	it := holdfast.Item{ID: holdfast.NewItemID(lane, q.last), Route: "r",
		Msg: &holdfast.Message{Topic: "t/x", Payload: []byte(payload), QoS: 1}}
	rank := func(it holdfast.Item) int {
		return map[holdfast.Lane]int{holdfast.High: 0, holdfast.Normal: 1, holdfast.Low: 2}[it.ID.Lane()]
	}
	at := slices.IndexFunc(q.waiting, func(o holdfast.Item) bool { return rank(o) > rank(it) })
	if at < 0 {
		at = len(q.waiting)
	}
	q.waiting = slices.Insert(q.waiting, at, it)
	q.mu.Unlock()
	signal(q.ready)
}

func (q *fakeQueue) end(id holdfast.ItemID, how string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.out[id]; !ok {
		how = "WRONG " + how // not handed out
	}
	delete(q.out, id)
	q.gone[id] = how
}

func (q *fakeQueue) Ack(id holdfast.ItemID) {
	q.end(id, "acked")
	q.story.add("ack %d", id.Position())
}

func (q *fakeQueue) Quarantine(id holdfast.ItemID, reason string) {
	q.end(id, reason)
	q.story.add("quarantine %d: %s", id.Position(), reason)
}

func (q *fakeQueue) Drop(id holdfast.ItemID, reason string) {
	q.end(id, reason)
	q.story.add("%s %d", reason, id.Position())
}

// put puts one message at the end of the queue.
func (q *fakeQueue) put(lane holdfast.Lane, name, payload string, received time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last++
	q.waiting = append(q.waiting, holdfast.Item{ID: holdfast.NewItemID(lane, q.last), Route: "r",
		Msg: &holdfast.Message{Topic: name, Payload: []byte(payload), QoS: 1, Received: received}})
	signal(q.ready)
}

func (q *fakeQueue) Release(ids ...holdfast.ItemID) {
	q.mu.Lock()
	var pos []uint64
	for _, id := range ids {
		it := q.out[id]
		it.Again = true
		delete(q.out, id)
		q.waiting = append(q.waiting, it)
		pos = append(pos, id.Position())
	}
	slices.SortFunc(q.waiting, func(a, b holdfast.Item) int { return int(a.ID) - int(b.ID) })
	q.mu.Unlock()
	signal(q.ready)
	q.story.add("release %v", pos)
}

// fakeUpstream is one connection of a fakeBroker.
type fakeUpstream struct {
	broker  *fakeBroker
	receive Receive
	done    chan struct{}
	once    sync.Once
	err     error

	mu      sync.Mutex
	waiting []fakePublish
}

type fakePublish struct {
	pos  string
	done func(error)
}

func (u *fakeUpstream) Publish(msg *holdfast.Message, again bool, done func(error)) {
	pos := string(msg.Payload)
	if again {
		pos += " again"
	}
	u.broker.story.add("publish %s", pos)
	if f := u.broker.onPublish; f != nil {
		f(u, msg, done)
		return
	}
	u.mu.Lock()
	u.waiting = append(u.waiting, fakePublish{pos, done})
	u.mu.Unlock()
}

// answer calls the first n dones that wait.
func (u *fakeUpstream) answer(n int, err error) {
	u.mu.Lock()
	now := u.waiting[:n]
	u.waiting = u.waiting[n:]
	u.mu.Unlock()
	for _, p := range now {
		p.done(err)
	}
}

func (u *fakeUpstream) lose(err error) {
	u.once.Do(func() { u.err = err; close(u.done) })
}

func (u *fakeUpstream) Subscribe(_ context.Context, filter string, _ byte) error {
	u.broker.story.add("subscribe %s", filter)
	return u.broker.subscribe
}
func (u *fakeUpstream) HasWill() bool         { return u.broker.will }
func (u *fakeUpstream) Window() int           { return u.broker.window }
func (u *fakeUpstream) Done() <-chan struct{} { return u.done }
func (u *fakeUpstream) Err() error            { return u.err }
func (u *fakeUpstream) Close() error {
	u.lose(errors.New("closed"))
	u.broker.story.add("%sclose", u.broker.name)
	return nil
}

// fakeBroker makes connections.
type fakeBroker struct {
	*story
	name      string // before what it tells, where there are several
	window    int
	will      bool  // its connections have one
	refuse    error // of the next connects
	subscribe error // of each subscription
	onPublish func(*fakeUpstream, *holdfast.Message, func(error))
	onConnect func(*fakeUpstream)

	mu  sync.Mutex
	ups []*fakeUpstream
}

func (b *fakeBroker) Connect(ctx context.Context, receive Receive) (Upstream, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		b.story.add("%srefuse", b.name)
		return nil, b.refuse
	}
	u := &fakeUpstream{broker: b, receive: receive, done: make(chan struct{})}
	b.ups = append(b.ups, u)
	b.story.add("%sconnect", b.name)
	if b.onConnect != nil {
		b.onConnect(u)
	}
	return u, nil
}

func (b *fakeBroker) last() *fakeUpstream {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ups[len(b.ups)-1]
}

func (b *fakeBroker) setRefuse(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = err
}

// fakeLocal is the local broker.
type fakeLocal struct {
	*story
	mu      sync.Mutex
	waiting []fakePublish
	answer  func(msg *holdfast.Message, done func(error)) // nil: kept in waiting
}

func (l *fakeLocal) Publish(msg *holdfast.Message, done func(error)) {
	l.story.add("local %s %s", msg.Topic, msg.Payload)
	l.mu.Lock()
	f := l.answer
	if f == nil {
		l.waiting = append(l.waiting, fakePublish{msg.Topic, done})
	}
	l.mu.Unlock()
	if f != nil {
		f(msg, done)
	}
}

func (l *fakeLocal) take() []fakePublish {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.waiting
	l.waiting = nil
	return w
}

// world is a bridge between fakes.
type world struct {
	*story
	q      *fakeQueue
	broker *fakeBroker
	local  *fakeLocal
	b      *Bridge
	cancel context.CancelFunc
	ended  chan struct{}
}

// start runs a bridge with the options that change has made of the usual ones.
func start(t *testing.T, broker *fakeBroker, change func(*Options)) *world {
	t.Helper()
	s := &story{}
	broker.story = s
	w := &world{story: s, q: newFakeQueue(s), broker: broker, local: &fakeLocal{story: s}, ended: make(chan struct{})}
	o := Options{
		Name: "b", Queue: w.q, Local: w.local,
		Routes:    []Route{{Name: "r", Filter: "t/#", QoS: 1}},
		Upstreams: []UpstreamOption{{Name: "u", Connect: broker.Connect}},
	}
	if change != nil {
		change(&o)
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.b = b
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	go func() {
		defer close(w.ended)
		if err := b.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	return w
}

// stop ends the bridge and waits for it.
func (w *world) stop() {
	w.cancel()
	<-w.ended
}
