// Package storagetest holds the promises of package storage as tests, to be run
// against every way of keeping a store.
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast"
	"holdfast/storage"
)

// Open opens the store under test with o; when it is called again in the same
// test it must open the same store.
type Open func(t testing.TB, o storage.Options) *storage.Store

// Run runs every behaviour; fresh is called once for each.
func Run(t *testing.T, fresh func(t testing.TB) Open) {
	for _, b := range append(behaviours, spillBehaviours...) {
		t.Run(b.name, func(t *testing.T) { b.test(&bench{T: t, open: fresh(t)}) })
	}
}

type behaviour struct {
	name string
	test func(b *bench)
}

var behaviours = []behaviour{
	{"hands out in the order of the calls", order},
	{"serves the more urgent lane first", lanes},
	{"gives released items first and in their old order", releaseOrder},
	{"hands out what is fresh beside the backlog", freshBeside},
	{"drops the backlog before what was ahead of it", freshFull},
	{"takes acknowledgements in any order", ackAnyOrder},
	{"ignores an acknowledgement of what was not handed out", ackUnknown},
	{"keeps everything over a reopening", reopen},
	{"keeps acknowledgements over a close", acksSurviveClose},
	{"hands out again what was acknowledged but not written", acksLostInCrash},
	{"hands out early only QoS 0 and 1", early},
	{"hands out nothing before it is committed", notEarly},
	{"admits for all destinations or for none", allOrNone},
	{"refuses what is too large or after close", tooLarge},
	{"refuses beyond the pending bytes", pendingBound},
	{"drops the oldest when full", dropOldest},
	{"drops the oldest when that is on disk", dropOldestOnDisk},
	{"drops nothing more urgent", dropUrgent},
	{"bounds all queues together", boundOverAll},
	{"refuses beyond the bound over all queues", refuseOverAll},
	{"moves a message into a session or refuses it", movesOrRefuses},
	{"drops from the queue on disk for the bound over all", boundOverAllOnDisk},
	{"drops QoS 0 before anything else", qos0First},
	{"drops what is too old", expires},
	{"drops by the age of the route", expiresByRoute},
	{"hands out nothing too old before the backlog", expiresAhead},
	{"counts the age over restarts and boots", ageOverBoots},
	{"drops the newest when told", dropNewest},
	{"keeps quarantine aside", quarantine},
	{"keeps sessions", sessions},
	{"forgets a session that is reset", sessionReset},
	{"forgets a released position with its acknowledgement", released},
	{"keeps the packet identifiers of a session at a far broker", farSession},
	{"frees a packet identifier with its acknowledgement or not at all", farSessionCrash},
	{"stores what comes from a far broker with its packet identifier", farInbound},
	{"hands out the one item that is asked for", takeOne},
	{"keeps retained messages", retained},
	{"keeps wills until they are published", wills},
	{"keeps every field of a message", fields},
	{"counts down how long a message lives", messageExpiry},
	{"keeps an expired message that was begun", expiredRelease},
	{"counts down how long a retained message lives", retainedExpiry},
	{"knows how long a session has been away", detached},
	{"removes a queue whose session has ended", orphans},
	{"keeps the subscription identifiers of a delivery", subscriptionIDs},
	{"gives free places only to copies of retained messages", copiesTakeFreePlaces},
	{"reads a large backlog from far behind", backlog},
	{"pauses when too many ranges are acknowledged", rangeBound},
	{"splits what is larger than a transaction", wideFanOut},
	{"removes a queue for good", removeQueue},
	{"wakes a waiting reader", wakes},
	{"shows what is queued and takes nothing", peekTakesNothing},
	{"exports all or nothing", exportAllOrNone},
	{"takes in what is imported", importBringsBack},
	{"purges what is old", purgeOld},
	{"brings back what was in quarantine", quarantineBack},
	{"balances its books whatever happens", balance},
}

// bench is one store under test.
type bench struct {
	*testing.T
	open Open
	s    *storage.Store
}

func (b *bench) start(o storage.Options) *storage.Store {
	b.Helper()
	if o.AckDelay == 0 {
		o.AckDelay = time.Millisecond
	}
	b.s = b.open(b.T, o)
	s := b.s
	b.Cleanup(func() { _ = s.Close() })
	return b.s
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) queue(name string, o storage.QueueOptions) *storage.Queue {
	b.Helper()
	q, err := b.s.Queue(name, o)
	b.must(err)
	return q
}

func msg(topic string, qos byte, payload string) *holdfast.Message {
	return &holdfast.Message{Topic: topic, QoS: qos, Payload: []byte(payload), Received: time.Unix(1700000000, 0)}
}

// put publishes one message into one lane and waits for its done.
func (b *bench) put(q *storage.Queue, lane holdfast.Lane, m *holdfast.Message) {
	b.Helper()
	b.must(<-b.putLater(q, lane, m))
}

func (b *bench) putLater(q *storage.Queue, lane holdfast.Lane, m *holdfast.Message) chan error {
	b.Helper()
	done := make(chan error, 1)
	err := b.s.Publish(&holdfast.Publication{Msg: m}, []storage.Append{{Queue: q, Lane: lane, Route: "r", Msg: m}}, func(err error) { done <- err })
	b.must(err)
	return done
}

func (b *bench) fill(q *storage.Queue, from, to int) {
	b.Helper()
	var last chan error
	for i := from; i < to; i++ {
		last = b.putLater(q, holdfast.Normal, msg("t", 1, fmt.Sprint(i)))
	}
	if last != nil {
		b.must(<-last)
	}
}

func (b *bench) next(q *storage.Queue, want string) holdfast.Item {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	it, err := q.Next(ctx, holdfast.AllLanes)
	b.must(err)
	if want != "" && string(it.Msg.Payload) != want {
		b.Fatalf("got %q, want %q", it.Msg.Payload, want)
	}
	return it
}

func (b *bench) none(q *storage.Queue) {
	b.Helper()
	if it, ok, err := q.TryNext(); ok || err != nil {
		b.Fatalf("got %v %v, want nothing", it, err)
	}
}

func (b *bench) change(c *holdfast.SessionChange) {
	b.Helper()
	done := make(chan error, 1)
	b.s.Change(c, func(err error) { done <- err })
	b.must(<-done)
}

func order(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{})
	b.fill(q, 0, 500)
	for i := range 500 {
		it := b.next(q, fmt.Sprint(i))
		if it.ID != holdfast.NewItemID(holdfast.Normal, uint64(i+1)) || it.Again || it.Route != "r" {
			b.Fatalf("item %+v", it)
		}
	}
	b.none(q)
	if q.Len() != 500 {
		b.Fatalf("length %d", q.Len())
	}
}

func lanes(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{})
	b.put(q, holdfast.Low, msg("t", 1, "low"))
	b.put(q, holdfast.Normal, msg("t", 1, "normal"))
	b.put(q, holdfast.High, msg("t", 1, "high"))
	it, err := q.Next(b.Context(), 1<<holdfast.Low)
	b.must(err)
	if string(it.Msg.Payload) != "low" {
		b.Fatal("a lane that was not asked for")
	}
	if _, ok, err := q.Poll(1 << holdfast.Low); ok || err != nil {
		b.Fatalf("the lane is empty, but a poll gave %v, %v", ok, err)
	}
	q.Release(it.ID)
	if it, ok, err := q.Poll(1 << holdfast.Low); !ok || err != nil || string(it.Msg.Payload) != "low" {
		b.Fatalf("a poll of the lane gave %v, %v", ok, err)
	}
	q.Release(it.ID)
	for _, want := range []string{"high", "normal", "low"} {
		b.next(q, want)
	}
	if q.Depth(holdfast.High) != 1 {
		b.Fatal("depth of the lane")
	}
}

func releaseOrder(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{})
	b.fill(q, 0, 5)
	var ids []holdfast.ItemID
	for i := range 4 {
		ids = append(ids, b.next(q, fmt.Sprint(i)).ID)
	}
	q.Ack(ids[1])
	q.Release(ids[3], ids[0], ids[2], ids[1])
	for _, want := range []string{"0", "2", "3", "4"} {
		if it := b.next(q, want); it.Again != (want != "4") {
			b.Fatalf("%s again %v", want, it.Again)
		}
	}
}

func ackAnyOrder(b *bench) {
	s := b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	b.fill(q, 0, 200)
	var ids []holdfast.ItemID
	for range 200 {
		ids = append(ids, b.next(q, "").ID)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	left := map[holdfast.ItemID]bool{}
	for _, id := range ids[150:] {
		left[id] = true
	}
	for _, id := range ids[:150] {
		q.Ack(id)
	}
	b.must(s.Close())
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	if q.Len() != 50 {
		b.Fatalf("%d left, want 50", q.Len())
	}
	last := uint64(0)
	for range 50 {
		it := b.next(q, "")
		if !left[it.ID] || it.ID.Position() <= last || !it.Again {
			b.Fatalf("item %v again %v after %d", it.ID, it.Again, last)
		}
		last = it.ID.Position()
	}
	b.none(q)
}

func ackUnknown(b *bench) {
	s := b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{})
	b.fill(q, 0, 2)
	q.Ack(holdfast.NewItemID(holdfast.Normal, 1))
	q.Ack(holdfast.NewItemID(7, 1))
	q.Ack(1 << 59)
	it := b.next(q, "0")
	q.Ack(it.ID)
	q.Ack(it.ID)
	if n := s.Stats().Unknown; n != 4 || q.Len() != 1 {
		b.Fatalf("unknown %d, length %d", n, q.Len())
	}
}

func reopen(b *bench) {
	for round := range 5 {
		b.start(storage.Options{})
		q := b.queue("bridge/a", storage.QueueOptions{})
		b.fill(q, round*50, round*50+50)
		if round%2 == 0 {
			b.s.Crash()
		} else {
			b.must(b.s.Close())
		}
	}
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{})
	b.fill(q, 250, 260)
	for i := range 260 {
		if it := b.next(q, fmt.Sprint(i)); it.Again != (i < 250) {
			b.Fatalf("%d: again %v", i, it.Again)
		}
	}
}

func acksSurviveClose(b *bench) {
	b.start(storage.Options{AckDelay: time.Hour})
	q := b.queue("bridge/a", storage.QueueOptions{})
	b.fill(q, 0, 10)
	for i := range 10 {
		q.Ack(b.next(q, fmt.Sprint(i)).ID)
	}
	b.must(b.s.Close())
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{})
	b.none(q)
	b.fill(q, 10, 11)
	if it := b.next(q, "10"); it.ID.Position() != 11 {
		b.Fatalf("position %d was used again", it.ID.Position())
	}
}

func acksLostInCrash(b *bench) {
	b.start(storage.Options{AckDelay: time.Hour})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	b.fill(q, 0, 3)
	q.Ack(b.next(q, "0").ID)
	b.fill(q, 3, 4) // the acknowledgement rides on this commit
	q.Ack(b.next(q, "1").ID)
	b.s.Crash()
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	for _, want := range []string{"1", "2", "3"} {
		it := b.next(q, want)
		if !it.Again {
			b.Fatal("again is not set")
		}
		q.Ack(it.ID)
	}
	if c := q.Ledger()["r"]; c.Accepted != 4 || c.Delivered != 4 || c.Queued != 0 {
		b.Fatalf("%+v", c)
	}
}

// gate holds the committer before each sync until it is told to go on.
type gate struct{ arrive, pass chan struct{} }

func newGate(b *bench) *gate {
	g := &gate{make(chan struct{}, 1000), make(chan struct{}, 1000)}
	b.Cleanup(func() { close(g.pass) })
	return g
}

func (g *gate) beforeSync() error {
	g.arrive <- struct{}{}
	<-g.pass
	return nil
}

func early(b *bench) {
	g := newGate(b)
	b.start(storage.Options{BeforeSync: g.beforeSync})
	q, err := b.s.SessionQueue("c")
	b.must(err)
	notified := make(chan struct{}, 100)
	q.Notify(func() { notified <- struct{}{} })
	publish := func(qos byte, payload string) chan error {
		done := make(chan error, 1)
		b.must(b.s.Publish(&holdfast.Publication{Msg: msg("t", qos, payload), Sessions: []holdfast.Delivery{{ClientID: "c", QoS: qos, Retain: true}}},
			nil, func(err error) { done <- err }))
		return done
	}
	publish(0, "a")
	<-notified
	<-g.arrive
	publish(1, "b")
	third := publish(2, "c")
	publish(1, "d")
	if it := b.next(q, "a"); !it.Msg.Retain || it.Msg.QoS != 0 {
		b.Fatalf("%+v", it.Msg)
	}
	q.Ack(b.next(q, "b").ID)
	b.none(q) // c is not on disk, and d is behind it
	g.pass <- struct{}{}
	<-g.arrive
	b.none(q)
	g.pass <- struct{}{}
	b.must(<-third)
	b.next(q, "c")
	b.next(q, "d")
}

func notEarly(b *bench) {
	g := newGate(b)
	b.start(storage.Options{BeforeSync: g.beforeSync})
	q := b.queue("bridge/a", storage.QueueOptions{})
	done := b.putLater(q, holdfast.Normal, msg("t", 1, "a"))
	<-g.arrive
	b.none(q)
	g.pass <- struct{}{}
	b.must(<-done)
	b.next(q, "a")
}

func allOrNone(b *bench) {
	b.start(storage.Options{})
	roomy := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	tight := b.queue("bridge/b", storage.QueueOptions{MaxMessages: 3, WhenFull: storage.Refuse, Ledger: true})
	m := msg("t", 1, "x")
	m.Retain = true
	publish := func(n int) error {
		appends := []storage.Append{{Queue: roomy, Route: "r", Msg: m}}
		for range n {
			appends = append(appends, storage.Append{Queue: tight, Route: "r", Msg: m})
		}
		done := make(chan error, 1)
		err := b.s.Publish(&holdfast.Publication{Msg: m, Sessions: []holdfast.Delivery{{ClientID: "c", QoS: 1}}}, appends, func(err error) { done <- err })
		if err == nil {
			err = <-done
		}
		return err
	}
	b.must(publish(2))
	if err := publish(2); !errors.Is(err, holdfast.ErrFull) {
		b.Fatal(err)
	}
	b.must(publish(1))
	if err := publish(1); !errors.Is(err, holdfast.ErrFull) {
		b.Fatal(err)
	}
	c, err := b.s.SessionQueue("c")
	b.must(err)
	if roomy.Len() != 2 || tight.Len() != 3 || c.Len() != 2 || tight.Ledger()["r"].Accepted != 3 {
		b.Fatalf("%d %d %d", roomy.Len(), tight.Len(), c.Len())
	}
	tight.Ack(b.next(tight, "").ID)
	b.must(publish(1))
}

func tooLarge(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{})
	publish := func(n int) error {
		m := &holdfast.Message{Topic: "t", QoS: 1, Retain: true, Payload: make([]byte, n)}
		done := make(chan error, 1)
		err := b.s.Publish(&holdfast.Publication{Msg: m}, []storage.Append{{Queue: q, Msg: m}}, func(err error) { done <- err })
		if err == nil {
			err = <-done
		}
		return err
	}
	b.must(publish(storage.MaxMessage - 200))
	if err := publish(storage.MaxMessage); !errors.Is(err, holdfast.ErrTooLarge) {
		b.Fatal(err)
	}
	if it := b.next(q, ""); len(it.Msg.Payload) != storage.MaxMessage-200 {
		b.Fatal("the largest message is not whole")
	}
	b.must(b.s.Close())
	if err := publish(1); !errors.Is(err, holdfast.ErrClosed) {
		b.Fatal(err)
	}
	if _, _, err := q.TryNext(); !errors.Is(err, holdfast.ErrClosed) {
		b.Fatal(err)
	}
	if _, err := q.Next(b.Context(), holdfast.AllLanes); !errors.Is(err, holdfast.ErrClosed) {
		b.Fatal(err)
	}
}

func pendingBound(b *bench) {
	g := newGate(b)
	b.start(storage.Options{BeforeSync: g.beforeSync, MaxPending: 10000})
	q := b.queue("bridge/a", storage.QueueOptions{})
	m := &holdfast.Message{Topic: "t", QoS: 1, Payload: make([]byte, 1000)}
	taken, results := 0, make(chan error, 100)
	for {
		err := b.s.Publish(&holdfast.Publication{Msg: m}, []storage.Append{{Queue: q, Msg: m}}, func(err error) { results <- err })
		if errors.Is(err, holdfast.ErrFull) {
			break
		}
		b.must(err)
		if taken++; taken > 50 {
			b.Fatal("no bound")
		}
	}
	if taken < 5 {
		b.Fatalf("%d taken", taken)
	}
	for range 10 {
		g.pass <- struct{}{}
	}
	for range taken {
		b.must(<-results)
	}
	b.put(q, holdfast.Normal, m)
}

func dropOldest(b *bench) {
	b.start(storage.Options{})
	o := storage.QueueOptions{MaxMessages: 5, Ledger: true}
	q := b.queue("bridge/a", o)
	b.fill(q, 0, 3)
	first := b.next(q, "0") // handed out: it is not dropped
	b.fill(q, 3, 9)
	if q.Len() != 5 {
		b.Fatalf("length %d", q.Len())
	}
	for _, want := range []string{"5", "6", "7", "8"} {
		b.next(q, want)
	}
	b.none(q)
	q.Ack(first.ID)
	c := q.Ledger()["r"]
	if c.Accepted != 9 || c.Dropped["full"] != 4 || c.Delivered != 1 || c.Queued != 4 {
		b.Fatalf("%+v", c)
	}
	// Everything is handed out now: the newest is the oldest that is not.
	b.fill(q, 9, 10)
	b.fill(q, 10, 11)
	b.must(b.s.Close())
	b.start(storage.Options{})
	q = b.queue("bridge/a", o)
	for _, want := range []string{"5", "6", "7", "8"} {
		b.next(q, want)
	}
	if c := q.Ledger()["r"]; c.Accepted != 11 || !c.Balanced() || int(c.Queued) != q.Len() {
		b.Fatalf("%+v", c)
	}
}

func dropOldestOnDisk(b *bench) {
	o := storage.QueueOptions{Ledger: true}
	b.start(storage.Options{})
	b.fill(b.queue("bridge/a", o), 0, 2000)
	b.must(b.s.Close())
	b.start(storage.Options{TailBytes: 1000})
	o.MaxMessages = 100
	q := b.queue("bridge/a", o)
	b.fill(q, 2000, 2001)
	b.fill(q, 2001, 2002) // the drop was before this commit at the latest
	if n := q.Len(); n > 101 {
		b.Fatalf("length %d", n)
	}
	it := b.next(q, "")
	for i := 2002 - q.Len(); i < 2001; i++ {
		if string(it.Msg.Payload) != fmt.Sprint(i) {
			b.Fatalf("got %q, want %d", it.Msg.Payload, i)
		}
		it = b.next(q, "")
	}
	if c := q.Ledger()["r"]; c.Accepted != 2002 || !c.Balanced() || int(c.Queued) != q.Len() {
		b.Fatalf("%+v, length %d", c, q.Len())
	}
}

func dropUrgent(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{MaxMessages: 3})
	b.put(q, holdfast.High, msg("t", 1, "h1"))
	b.put(q, holdfast.High, msg("t", 1, "h2"))
	b.put(q, holdfast.Low, msg("t", 1, "l1"))
	b.put(q, holdfast.Normal, msg("t", 1, "n1")) // l1 goes
	b.put(q, holdfast.Low, msg("t", 1, "l2"))    // itself
	b.put(q, holdfast.High, msg("t", 1, "h3"))   // n1 goes
	b.put(q, holdfast.High, msg("t", 1, "h4"))   // h1 goes
	for _, want := range []string{"h2", "h3", "h4"} {
		b.next(q, want)
	}
	b.none(q)
}

func dropNewest(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{MaxMessages: 2, WhenFull: storage.DropNewest, Ledger: true})
	b.fill(q, 0, 5)
	b.next(q, "0")
	b.next(q, "1")
	b.none(q)
	if c := q.Ledger()["r"]; c.Accepted != 5 || c.Dropped["full"] != 3 || c.Queued != 2 {
		b.Fatalf("%+v", c)
	}
}

func quarantine(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	b.fill(q, 0, 3)
	q.Quarantine(b.next(q, "0").ID, "refused")
	q.Drop(b.next(q, "1").ID, "expired")
	q.CountDropped("r", "sampled")
	b.must(b.s.Close())
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	aside := b.aside(q)
	if len(aside) != 1 || aside[0].Reason != "refused" || aside[0].Route != "r" || string(aside[0].Msg.Payload) != "0" || aside[0].ID.Position() != 1 {
		b.Fatalf("%+v", aside)
	}
	b.next(q, "2")
	c := q.Ledger()["r"]
	if c.Quarantined["refused"] != 1 || c.Dropped["expired"] != 1 || c.Dropped["sampled"] != 1 || !c.Balanced() || c.Queued != 1 {
		b.Fatalf("%+v", c)
	}
}

// wakes: a Next that waits is woken by a commit, by a release, and by Close.
func wakes(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{})
	got := make(chan holdfast.Item)
	end := make(chan error)
	go func() {
		for {
			it, err := q.Next(context.Background(), holdfast.AllLanes)
			if err != nil {
				end <- err
				return
			}
			got <- it
		}
	}()
	b.fill(q, 0, 1)
	it := <-got
	q.Release(it.ID)
	if again := <-got; !again.Again || again.ID != it.ID {
		b.Fatalf("%+v", again)
	}
	b.must(b.s.Close())
	if err := <-end; !errors.Is(err, holdfast.ErrClosed) {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := q.Next(ctx, holdfast.AllLanes); !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
}
