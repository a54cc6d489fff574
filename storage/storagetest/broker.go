package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/storage"
)

func sessions(b *bench) {
	long := strings.Repeat("x", 65535)
	want := map[string]holdfast.SessionState{}
	b.start(storage.Options{})
	for i, id := range []string{"a", "b", long} {
		st := holdfast.SessionState{Expiry: uint32(i * 100), Subscriptions: []holdfast.Subscription{
			{Filter: "a/#", QoS: 2, NoLocal: true, RetainHandling: 2, Identifier: 70000},
			{Filter: long[:1000], QoS: 1, RetainAsPublished: true},
		}}
		if i > 0 {
			st.Username = "user " + id
		}
		b.change(&holdfast.SessionChange{ClientID: id, Save: &st})
		st.ClientID = id
		want[id] = st
	}
	publish := func(id string, packet uint16, qos byte) {
		done := make(chan error, 1)
		b.must(b.s.Publish(&holdfast.Publication{Msg: msg("t", qos, "x"), Sessions: []holdfast.Delivery{{ClientID: id, QoS: qos}},
			Inbound: &holdfast.Inbound{ClientID: id, PacketID: packet}}, nil, func(err error) { done <- err }))
		b.must(<-done)
	}
	publish("a", 7, 2)
	publish("a", 65535, 2)
	publish("b", 9, 1)
	b.change(&holdfast.SessionChange{ClientID: "a", ForgetInbound: []uint16{7}, Released: []uint64{2}})
	a := want["a"]
	a.Inbound, a.Released = []uint16{65535}, []uint64{2}
	want["a"] = a
	bb := want["b"]
	bb.Inbound = []uint16{9}
	want["b"] = bb
	for range 2 {
		b.s.Crash()
		b.start(storage.Options{})
		list, err := b.s.Sessions()
		b.must(err)
		if len(list) != len(want) {
			b.Fatalf("%d sessions", len(list))
		}
		for _, st := range list {
			if !reflect.DeepEqual(st, want[st.ClientID]) {
				b.Fatalf("got %+v\nwant %+v", st, want[st.ClientID])
			}
		}
		q, err := b.s.SessionQueue("a")
		b.must(err)
		if q.Len() != 2 {
			b.Fatalf("length %d", q.Len())
		}
	}
}

func sessionReset(b *bench) {
	b.start(storage.Options{})
	st := &holdfast.SessionState{Expiry: 5}
	b.change(&holdfast.SessionChange{ClientID: "c", Save: st, Append: []*holdfast.Message{msg("t", 1, "old")}})
	old, err := b.s.SessionQueue("c")
	b.must(err)
	b.change(&holdfast.SessionChange{ClientID: "c", Reset: true, Save: st, Append: []*holdfast.Message{msg("t", 1, "new")}})
	if _, _, err := old.TryNext(); !errors.Is(err, holdfast.ErrClosed) {
		b.Fatal(err)
	}
	b.s.Crash()
	b.start(storage.Options{})
	q, err := b.s.SessionQueue("c")
	b.must(err)
	b.next(q, "new")
	b.none(q)
	b.change(&holdfast.SessionChange{ClientID: "c", Reset: true})
	b.must(b.s.Close())
	b.start(storage.Options{})
	list, err := b.s.Sessions()
	b.must(err)
	if len(list) != 0 {
		b.Fatalf("%+v", list)
	}
	b.change(&holdfast.SessionChange{ClientID: "never", Reset: true, ForgetInbound: []uint16{1}})
}

// copiesTakeFreePlaces: the copies of retained messages that a new subscription
// brings push nothing out of a full session.
func copiesTakeFreePlaces(b *bench) {
	b.start(storage.Options{Session: storage.QueueOptions{MaxMessages: 3}})
	var list []*holdfast.Message
	for _, payload := range []string{"a", "b", "c"} {
		list = append(list, msg("t", 1, payload))
	}
	st := &holdfast.SessionState{}
	b.change(&holdfast.SessionChange{ClientID: "c", Save: st, Append: list[:2]})
	b.change(&holdfast.SessionChange{ClientID: "c", Save: st, Append: []*holdfast.Message{list[2], msg("t", 1, "too many")}})
	q, err := b.s.SessionQueue("c")
	b.must(err)
	for _, want := range []string{"a", "b", "c"} {
		b.next(q, want)
	}
	b.none(q)
}

// movesOrRefuses: what comes out of another queue is not dropped as a copy of a
// retained message is. It needs room in the session only.
func movesOrRefuses(b *bench) {
	b.start(storage.Options{MaxBytes: 2 * one, Session: storage.QueueOptions{MaxMessages: 2}})
	move := func(client, payload string) error {
		done := make(chan error, 1)
		b.s.Change(&holdfast.SessionChange{ClientID: client, Append: []*holdfast.Message{msg("t", 1, payload)}, Moved: true},
			func(err error) { done <- err })
		return <-done
	}
	if err := move("c", "nobody's"); !errors.Is(err, holdfast.ErrClosed) {
		b.Fatalf("moved to a session that is not there: %v", err)
	}
	b.change(&holdfast.SessionChange{ClientID: "c", Save: &holdfast.SessionState{}})
	b.fill(b.queue("bridge/a", storage.QueueOptions{Ledger: true}), 0, 2) // the bound over all is met
	b.must(move("c", "a"))
	b.must(move("c", "b"))
	if err := move("c", "too many"); !errors.Is(err, holdfast.ErrFull) {
		b.Fatalf("moved to a session that is full: %v", err)
	}
	q, err := b.s.SessionQueue("c")
	b.must(err)
	b.next(q, "a")
	b.next(q, "b")
	b.none(q)
}

func released(b *bench) {
	b.start(storage.Options{})
	b.change(&holdfast.SessionChange{ClientID: "c", Save: &holdfast.SessionState{}, Append: []*holdfast.Message{msg("t", 2, "a"), msg("t", 2, "b")}})
	q, err := b.s.SessionQueue("c")
	b.must(err)
	first := b.next(q, "a")
	b.next(q, "b")
	b.change(&holdfast.SessionChange{ClientID: "c", Released: []uint64{1, 2, 99}})
	q.Ack(first.ID)
	b.must(b.s.Close())
	b.start(storage.Options{})
	list, err := b.s.Sessions()
	b.must(err)
	if len(list) != 1 || !slices.Equal(list[0].Released, []uint64{2}) {
		b.Fatalf("%+v", list)
	}
}

func retained(b *bench) {
	b.start(storage.Options{})
	publish := func(topic, payload string) {
		m := msg(topic, 1, payload)
		m.Retain = true
		done := make(chan error, 1)
		b.must(b.s.Publish(&holdfast.Publication{Msg: m}, nil, func(err error) { done <- err }))
		b.must(<-done)
	}
	long := strings.Repeat("y", 65535)
	publish("a", "1")
	publish("b", "2")
	publish("a", "3")
	publish("b", "")
	publish(long, "4")
	b.s.Crash()
	b.start(storage.Options{})
	list, err := b.s.Retained()
	b.must(err)
	got := map[string]string{}
	for _, m := range list {
		if !m.Retain {
			b.Fatal("flag lost")
		}
		got[m.Topic] = string(m.Payload)
	}
	if !reflect.DeepEqual(got, map[string]string{"a": "3", long: "4"}) {
		b.Fatalf("%d retained", len(got))
	}
}

func wills(b *bench) {
	b.start(storage.Options{})
	set := func(id string, m *holdfast.Message) {
		done := make(chan error, 1)
		var will *holdfast.Will
		if m != nil {
			will = &holdfast.Will{Msg: m, Delay: 4_000_000_000}
		}
		b.s.SetWill(id, will, func(err error) { done <- err })
		b.must(<-done)
	}
	set("a", msg("w/a", 1, "gone"))
	set("b", msg("w/b", 1, "gone"))
	set("c", msg("w/c", 1, "gone"))
	set("b", nil)
	done := make(chan error, 1)
	b.must(b.s.Publish(&holdfast.Publication{Msg: msg("w/a", 1, "gone"), WillOf: "a"}, nil, func(err error) { done <- err }))
	b.must(<-done)
	b.s.Crash()
	b.start(storage.Options{})
	w, err := b.s.Wills()
	b.must(err)
	if len(w) != 1 || w["c"] == nil || w["c"].Msg.Topic != "w/c" || w["c"].Delay != 4_000_000_000 {
		b.Fatalf("%v", w)
	}
}

func fields(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{})
	list := []*holdfast.Message{
		{Topic: "a", Payload: []byte{}, QoS: 1},
		{Topic: "a", Payload: []byte("p"), QoS: 2, Retain: true, Origin: "bridge:x", Received: time.Unix(1, 5)},
		{Topic: "b", Payload: []byte("q"), QoS: 0, Properties: &holdfast.Properties{}},
		{Topic: "b", Payload: []byte("q"), QoS: 1, Properties: &holdfast.Properties{PayloadBytes: true, ContentType: "c"}},
		{Topic: "b", Payload: bytes.Repeat([]byte("z"), 300<<10), QoS: 1, Properties: &holdfast.Properties{
			PayloadUTF8: true, HasExpiry: true, Expiry: 1<<32 - 1, ContentType: "c", ResponseTopic: "r", CorrelationData: []byte{1, 0},
			User: []holdfast.UserProperty{{Name: "n", Value: "v"}, {Name: "n", Value: ""}}}},
	}
	begun := time.Now()
	for _, m := range list {
		b.put(q, holdfast.Normal, m)
	}
	b.s.Crash()
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{})
	for i, want := range list {
		it := b.next(q, "")
		if !it.Msg.Received.Equal(want.Received) {
			b.Fatal("time")
		}
		it.Msg.Received = want.Received
		if p := it.Msg.Properties; p != nil && p.HasExpiry {
			// The time in the queue counts.
			if w := want.Properties.Expiry; p.Expiry > w || p.Expiry < w-uint32(time.Since(begun)/time.Second)-1 {
				b.Fatalf("expiry %d, was %d", p.Expiry, w)
			}
			p.Expiry = want.Properties.Expiry
		}
		if !reflect.DeepEqual(it.Msg, want) {
			b.Fatalf("message %d: got %.500s\nwant %.500s", i, fmt.Sprintf("%+v", it.Msg), fmt.Sprintf("%+v", want))
		}
	}
}

func backlog(b *bench) {
	n := 100_000
	if testing.Short() {
		n = 10_000
	}
	b.start(storage.Options{TailBytes: 64 << 10, ChunkBytes: 1 << 20})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	var last chan error
	payload := strings.Repeat("p", 60)
	for i := 0; i < n; {
		done := make(chan error, 1)
		m := msg("t", 1, fmt.Sprintf("%07d%s", i, payload))
		switch err := b.s.Publish(&holdfast.Publication{Msg: m}, []storage.Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err }); {
		case err == nil:
			last = done
			i++
		case errors.Is(err, holdfast.ErrFull):
			// All that waits is on disk when the last of it is.
			b.must(<-last)
			last <- nil
		default:
			b.Fatal(err)
		}
	}
	b.must(<-last)
	b.must(b.s.Close())
	start := time.Now()
	b.start(storage.Options{TailBytes: 64 << 10, ChunkBytes: 1 << 20, DropEvery: time.Millisecond})
	b.Logf("opened with %d messages in %v", n, time.Since(start))
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	for i := range n {
		it := b.next(q, "")
		if string(it.Msg.Payload[:7]) != fmt.Sprintf("%07d", i) {
			b.Fatalf("got %q, want %d", it.Msg.Payload[:7], i)
		}
		q.Ack(it.ID)
	}
	b.none(q)
	if q.Len() != 0 || q.Bytes() != 0 {
		b.Fatalf("length %d, bytes %d", q.Len(), q.Bytes())
	}
	b.must(b.s.Close())
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	b.none(q)
	b.fill(q, 0, 1)
	b.next(q, "0")
}

func rangeBound(b *bench) {
	b.start(storage.Options{MaxRanges: 4})
	q := b.queue("bridge/a", storage.QueueOptions{})
	b.fill(q, 0, 20)
	first := b.next(q, "0")
	notified := make(chan struct{}, 10)
	q.Notify(func() { notified <- struct{}{} })
	var kept []holdfast.Item
	for i := 1; i < 9; i++ {
		it := b.next(q, fmt.Sprint(i))
		if i%2 == 0 {
			q.Ack(it.ID)
		} else {
			kept = append(kept, it)
		}
	}
	b.none(q)
	q.Release(kept[1].ID)
	q.Ack(b.next(q, "3").ID) // joins two ranges
	<-notified
	b.next(q, "9")
	q.Ack(first.ID)
	b.next(q, "10")
}

func wideFanOut(b *bench) {
	b.start(storage.Options{MaxPending: 64 << 20})
	p := &holdfast.Publication{Msg: &holdfast.Message{Topic: "t", QoS: 1, Retain: true, Payload: make([]byte, 200<<10)}}
	for i := range 20 {
		p.Sessions = append(p.Sessions, holdfast.Delivery{ClientID: fmt.Sprint(i), QoS: 1})
	}
	done := make(chan error, 1)
	b.must(b.s.Publish(p, nil, func(err error) { done <- err }))
	b.must(<-done)
	b.s.Crash()
	b.start(storage.Options{})
	for i := range 20 {
		q, err := b.s.SessionQueue(fmt.Sprint(i))
		b.must(err)
		if it := b.next(q, ""); len(it.Msg.Payload) != 200<<10 {
			b.Fatal("payload")
		}
	}
	list, err := b.s.Retained()
	b.must(err)
	if len(list) != 1 {
		b.Fatal("retained")
	}
}

func removeQueue(b *bench) {
	b.start(storage.Options{DropEvery: time.Millisecond})
	q := b.queue("bridge/a", storage.QueueOptions{})
	b.fill(q, 0, 1000)
	b.must(b.s.RemoveQueue("bridge/a"))
	if _, _, err := q.TryNext(); !errors.Is(err, holdfast.ErrClosed) {
		b.Fatal(err)
	}
	b.must(b.s.Close())
	for range 2 {
		b.start(storage.Options{DropEvery: time.Millisecond})
		if list := b.s.Queues(); len(list) != 0 {
			b.Fatalf("%+v", list)
		}
		b.must(b.s.Close())
	}
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{})
	b.fill(q, 0, 1)
	b.next(q, "0")
	b.none(q)
	if list := b.s.Queues(); len(list) != 1 || list[0].Name != "bridge/a" || list[0].Depth != 1 || list[0].OldestReceived.IsZero() {
		b.Fatalf("%+v", list)
	}
}
