package storagetest

import (
	"reflect"
	"time"

	"holdfast"
	"holdfast/storage"
)

// messageExpiry: what has expired is not handed out, what has not says how long
// it has left, and what was begun goes on [MQTT-3.3.2-5] [MQTT-3.3.2-6].
func messageExpiry(b *bench) {
	clock := newBoard()
	b.start(storage.Options{Clock: clock})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	clock.pass(time.Second) // the age of the store is never 0
	put := func(payload string, seconds uint32) {
		m := msg("t", 1, payload)
		m.Properties = &holdfast.Properties{HasExpiry: true, Expiry: seconds, ContentType: "c"}
		b.put(q, holdfast.Normal, m)
	}
	left := func(want string, seconds uint32) holdfast.Item {
		b.Helper()
		it := b.next(q, want)
		if p := it.Msg.Properties; !p.HasExpiry || p.Expiry != seconds || p.ContentType != "c" {
			b.Fatalf("%s has %+v, want %d s", want, p, seconds)
		}
		return it
	}
	put("begun", 5)
	put("short", 5)
	put("long", 100)
	begun := left("begun", 5)
	clock.pass(10 * time.Second)
	q.Release(begun.ID)
	left("begun", 0)
	q.Release(left("long", 90).ID)
	b.none(b.queue("bridge/other", storage.QueueOptions{}))
	if c := q.Ledger()["r"]; c.Dropped["expired"] != 1 || !c.Balanced() {
		b.Fatalf("%+v", c)
	}
	left("long", 90)

	put("powered off", 100)
	put("powered off too long", 10)
	b.must(b.s.Close())
	clock.reboot(20*time.Second, true) // and 10 s of starting
	b.start(storage.Options{Clock: clock})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	left("long", 60)
	left("powered off", 70)
	b.none(q)
}

// expiredRelease: PUBREC has come, so that PUBREL is owed however late it is.
func expiredRelease(b *bench) {
	clock := newBoard()
	b.start(storage.Options{Clock: clock})
	m := msg("t", 2, "x")
	m.Properties = &holdfast.Properties{HasExpiry: true, Expiry: 1}
	b.change(&holdfast.SessionChange{ClientID: "c", Save: &holdfast.SessionState{}, Append: []*holdfast.Message{m, m}})
	q, err := b.s.SessionQueue("c")
	b.must(err)
	b.next(q, "x")
	b.change(&holdfast.SessionChange{ClientID: "c", Released: []uint64{1}})
	clock.pass(time.Minute)
	b.s.Crash()
	b.start(storage.Options{Clock: clock})
	q, err = b.s.SessionQueue("c")
	b.must(err)
	if it := b.next(q, "x"); it.ID.Position() != 1 {
		b.Fatalf("position %d", it.ID.Position())
	}
	b.none(q)
}

// retainedExpiry: a retained message says from when it counts, by the clock of
// the process, wherever the wall clock has jumped.
func retainedExpiry(b *bench) {
	clock := newBoard()
	b.start(storage.Options{Clock: clock})
	publish := func(topic string, expires bool) {
		m := msg(topic, 1, "x")
		m.Retain = true
		if expires {
			m.Properties = &holdfast.Properties{HasExpiry: true, Expiry: 100}
		}
		done := make(chan error, 1)
		b.must(b.s.Publish(&holdfast.Publication{Msg: m}, nil, func(err error) { done <- err }))
		b.must(<-done)
	}
	publish("expires", true)
	publish("stays", false)
	publish("forgotten", true)
	b.s.ForgetRetained("forgotten")
	clock.pass(30 * time.Second)
	clock.set(time.Unix(0, 0), true)
	b.must(b.s.Close())
	b.start(storage.Options{Clock: clock})
	list, err := b.s.Retained()
	b.must(err)
	if len(list) != 2 {
		b.Fatalf("%d retained", len(list))
	}
	for _, m := range list {
		switch m.Topic {
		case "expires":
			if waited := time.Since(m.Received).Round(10 * time.Second); waited != 30*time.Second {
				b.Fatalf("it has waited for %v", waited)
			}
		case "stays":
			if !m.Received.Equal(time.Unix(1700000000, 0)) {
				b.Fatalf("received %v", m.Received)
			}
		}
	}
}

// detached: how long a session has been away survives restarts.
func detached(b *bench) {
	clock := newBoard()
	b.start(storage.Options{Clock: clock})
	b.change(&holdfast.SessionChange{ClientID: "away", Save: &holdfast.SessionState{Expiry: 100, Detached: true}})
	b.change(&holdfast.SessionChange{ClientID: "back", Save: &holdfast.SessionState{Expiry: 100, Detached: true}})
	b.change(&holdfast.SessionChange{ClientID: "back", Save: &holdfast.SessionState{Expiry: 100}})
	clock.pass(30 * time.Second)
	b.must(b.s.Close())
	clock.reboot(50*time.Second, true)
	b.start(storage.Options{Clock: clock})
	list, err := b.s.Sessions()
	b.must(err)
	got := map[string]holdfast.SessionState{}
	for _, st := range list {
		got[st.ClientID] = st
	}
	want := map[string]holdfast.SessionState{
		"away": {ClientID: "away", Expiry: 100, Detached: true, Away: 90 * time.Second},
		"back": {ClientID: "back", Expiry: 100},
	}
	if !reflect.DeepEqual(got, want) {
		b.Fatalf("got %+v", got)
	}
}

// subscriptionIDs are those of each subscriber by itself.
func subscriptionIDs(b *bench) {
	b.start(storage.Options{})
	m := msg("t", 1, "x")
	m.Properties = &holdfast.Properties{ContentType: "c"}
	done := make(chan error, 1)
	b.must(b.s.Publish(&holdfast.Publication{Msg: m, Sessions: []holdfast.Delivery{
		{ClientID: "a", QoS: 1, SubscriptionIDs: []uint32{1, 268_435_455}}, {ClientID: "b", QoS: 1},
	}}, nil, func(err error) { done <- err }))
	b.must(<-done)
	look := func() {
		for id, want := range map[string][]uint32{"a": {1, 268_435_455}, "b": nil} {
			q, err := b.s.SessionQueue(id)
			b.must(err)
			it := b.next(q, "x")
			if p := it.Msg.Properties; p.ContentType != "c" || !reflect.DeepEqual(p.SubscriptionIDs, want) {
				b.Fatalf("%s: %+v", id, p)
			}
		}
	}
	look()
	b.s.Crash()
	b.start(storage.Options{})
	look()
}

// orphans: a publication that met the end of its session leaves a queue, which
// the next start removes.
func orphans(b *bench) {
	b.start(storage.Options{})
	b.change(&holdfast.SessionChange{ClientID: "kept", Save: &holdfast.SessionState{Expiry: 1}})
	done := make(chan error, 1)
	b.must(b.s.Publish(&holdfast.Publication{Msg: msg("t", 1, "x"), Sessions: []holdfast.Delivery{
		{ClientID: "kept", QoS: 1}, {ClientID: "ended", QoS: 1},
	}}, nil, func(err error) { done <- err }))
	b.must(<-done)
	for range 2 {
		b.s.Crash()
		b.start(storage.Options{})
		if _, err := b.s.Sessions(); err != nil {
			b.Fatal(err)
		}
		// What the start has removed is on disk with the next change.
		b.change(&holdfast.SessionChange{ClientID: "kept", Save: &holdfast.SessionState{Expiry: 1}})
	}
	for id, want := range map[string]int{"kept": 1, "ended": 0} {
		q, err := b.s.SessionQueue(id)
		b.must(err)
		if q.Len() != want {
			b.Fatalf("%d messages for %q", q.Len(), id)
		}
	}
}
