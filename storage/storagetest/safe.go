package storagetest

import (
	"errors"

	"holdfast"
	"holdfast/storage"
)

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
