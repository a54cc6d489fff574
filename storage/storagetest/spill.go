package storagetest

import (
	"context"
	"fmt"
	"time"

	"holdfast"
	"holdfast/storage"
)

var spillBehaviours = []behaviour{
	{"spill: writes nothing while all is acknowledged in time", spillHealthy},
	{"spill: writes what is not acknowledged in time", spillSlow},
	{"spill: writes at once when the reader has gone", spillReaderGone},
	{"spill: waits for the last of several destinations", spillSeveral},
	{"spill: keeps one position order with what is written", spillInOrder},
	{"spill: commits of others take nothing that waits", spillBesideOthers},
	{"spill: forgets in a crash only what nobody was promised", spillCrash},
	{"spill: never gives a position twice", spillPositions},
	{"spill: bounds what waits", spillBound},
	{"spill: does not wait with QoS 2, retained QoS 1 and wills", spillUrgent},
	{"spill: keeps retained messages of QoS 0", spillRetained},
	{"spill: keeps quarantine and drops apart", spillQuarantine},
	{"spill: ends with the session", spillRemoved},
	{"spill: balances its books whatever happens", spillBalance},
}

const never = time.Hour

// spill opens the store in spill mode with a queue that somebody reads.
func (b *bench) spill(after time.Duration) *storage.Queue {
	b.Helper()
	b.start(storage.Options{Sync: storage.Spill, SpillAfter: after})
	return b.reader("bridge/a")
}

func (b *bench) reader(name string) *storage.Queue {
	b.Helper()
	q := b.queue(name, storage.QueueOptions{Ledger: true})
	q.Notify(func() {})
	return q
}

func (b *bench) take(q *storage.Queue, want string) holdfast.Item {
	b.Helper()
	it, ok, err := q.TryNext()
	b.must(err)
	if !ok || string(it.Msg.Payload) != want {
		b.Fatalf("got %v %+v, want %q", ok, it, want)
	}
	return it
}

// barrier waits for a commit of something else, behind whatever was to come
// before it.
func (b *bench) barrier() {
	b.Helper()
	done := make(chan error, 1)
	b.s.SetWill("barrier", &holdfast.Will{Msg: msg("w", 0, "w")}, func(err error) { done <- err })
	b.must(<-done)
}

func (b *bench) pending(done chan error) {
	b.Helper()
	select {
	case err := <-done:
		b.Fatalf("done(%v) came although nobody has it", err)
	default:
	}
}

// reopen ends the store as kill -9 would and opens it again.
func (b *bench) reopen(o storage.Options) *storage.Queue {
	b.Helper()
	b.s.Crash()
	b.start(o)
	return b.queue("bridge/a", storage.QueueOptions{Ledger: true})
}

func (b *bench) books(q *storage.Queue) (sum holdfast.Counts) {
	b.Helper()
	for route, c := range q.Ledger() {
		if !c.Balanced() || c.Lost > 0 {
			b.Fatalf("route %s: %+v", route, c)
		}
		sum.Add(c)
	}
	if int(sum.Queued) != q.Len() {
		b.Fatalf("%+v, length %d", sum, q.Len())
	}
	return sum
}

func spillHealthy(b *bench) {
	q := b.spill(never)
	before := b.s.Stats().Commits
	for i := range 300 {
		done := b.putLater(q, holdfast.Normal, msg("t", 1, fmt.Sprint(i)))
		it := b.take(q, fmt.Sprint(i))
		b.pending(done)
		q.Ack(it.ID)
		b.must(<-done)
	}
	st := b.s.Stats()
	if st.Commits != before || st.Direct != 300 || st.Pending != 0 || q.Bytes() != 0 {
		b.Fatalf("%d commits before, %+v", before, st)
	}
	if c := b.books(q); c.Accepted != 300 || c.Delivered != 300 {
		b.Fatalf("%+v", c)
	}
	b.must(b.s.Close())
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	if c := b.books(q); c.Accepted != 300 || c.Delivered != 300 {
		b.Fatalf("after the close: %+v", c)
	}
}

func spillSlow(b *bench) {
	q := b.spill(20 * time.Millisecond)
	b.put(q, holdfast.Normal, msg("t", 1, "slow")) // nobody acknowledges it
	slow := b.take(q, "slow")
	if st := b.s.Stats(); st.Spilled != 1 || st.Direct != 0 {
		b.Fatalf("%+v", st)
	}
	// From here on its reader is not waited for, until it is in time again.
	b.put(q, holdfast.Normal, msg("t", 1, "at once"))
	if st := b.s.Stats(); st.Spilled != 1 {
		b.Fatalf("%+v", st)
	}
	q.Ack(b.take(q, "at once").ID)
	done := b.putLater(q, holdfast.Normal, msg("t", 1, "quick"))
	q.Ack(b.take(q, "quick").ID)
	b.must(<-done)
	q = b.reopen(storage.Options{})
	b.books(q)
	if it := b.take(q, "slow"); it.ID != slow.ID || !it.Again {
		b.Fatalf("%+v", it)
	}
}

func spillReaderGone(b *bench) {
	gone := map[string]func(q *storage.Queue, it holdfast.Item){
		"no function to notify": func(q *storage.Queue, _ holdfast.Item) { q.Notify(nil) },
		"released":              func(q *storage.Queue, it holdfast.Item) { q.Release(it.ID) },
		"Next has ended": func(q *storage.Queue, _ holdfast.Item) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_, _ = q.Next(ctx, holdfast.AllLanes)
		},
		"an export has begun": func(q *storage.Queue, _ holdfast.Item) {
			x, err := q.Export()
			b.must(err)
			x.End()
		},
	}
	for how, leave := range gone {
		q := b.spill(never)
		done := b.putLater(q, holdfast.Normal, msg("t", 1, how))
		it := b.take(q, how)
		b.barrier()
		b.pending(done)
		leave(q, it)
		b.must(<-done)
		q = b.reopen(storage.Options{})
		b.books(q)
		q.Ack(b.take(q, how).ID)
		b.must(b.s.Close())
	}
	// And then nobody is waited for.
	b.start(storage.Options{Sync: storage.Spill, SpillAfter: never})
	q := b.queue("bridge/a", storage.QueueOptions{})
	b.put(q, holdfast.Normal, msg("t", 1, "nobody reads"))
}

func spillSeveral(b *bench) {
	q := b.spill(never)
	other := b.reader("bridge/b")
	b.change(&holdfast.SessionChange{ClientID: "c", Save: &holdfast.SessionState{}})
	box, err := b.s.SessionQueue("c")
	b.must(err)
	box.Notify(func() {})
	publish := func(payload string) chan error {
		done := make(chan error, 1)
		m := msg("t", 1, payload)
		b.must(b.s.Publish(&holdfast.Publication{Msg: m, Sessions: []holdfast.Delivery{{ClientID: "c", QoS: 1}}},
			[]storage.Append{{Queue: q, Route: "r", Msg: m}, {Queue: other, Lane: holdfast.High, Route: "o", Msg: m}}, func(err error) { done <- err }))
		return done
	}
	done := publish("1")
	for _, q := range []*storage.Queue{q, box, other} {
		b.barrier()
		b.pending(done)
		q.Ack(b.take(q, "1").ID)
	}
	b.must(<-done)
	if st := b.s.Stats(); st.Direct != 1 || st.Spilled != 0 {
		b.Fatalf("%+v", st)
	}
	// One of three has it: the other two get it after a crash.
	done = publish("2")
	q.Ack(b.take(q, "2").ID)
	b.take(other, "2")
	b.take(box, "2")
	box.Notify(nil)
	b.must(<-done)
	q = b.reopen(storage.Options{})
	b.none(q)
	b.books(q)
	other = b.queue("bridge/b", storage.QueueOptions{Ledger: true})
	b.take(other, "2")
	b.books(other)
	box, err = b.s.SessionQueue("c")
	b.must(err)
	b.take(box, "2")
}

func spillInOrder(b *bench) {
	q := b.spill(never)
	var done []chan error
	for i := range 7 {
		done = append(done, b.putLater(q, holdfast.Normal, msg("t", 1, fmt.Sprint(i))))
	}
	var items []holdfast.Item
	for i := range 5 {
		items = append(items, b.take(q, fmt.Sprint(i)))
	}
	for _, i := range []int{1, 3, 4} {
		q.Ack(items[i].ID)
		b.must(<-done[i])
	}
	b.put(q, holdfast.Normal, msg("t", 2, "qos 2"))
	for _, i := range []int{0, 2, 5, 6} {
		b.must(<-done[i])
	}
	q = b.reopen(storage.Options{})
	if c := b.books(q); c.Queued != 5 || c.Delivered != 3 {
		b.Fatalf("%+v", c)
	}
	for _, want := range []string{"0", "2", "5", "6", "qos 2"} {
		q.Ack(b.take(q, want).ID)
	}
	b.none(q)
	b.books(q)
}

func spillBesideOthers(b *bench) {
	q := b.spill(never)
	b.put(q, holdfast.Normal, msg("t", 2, "written"))
	written := b.take(q, "written")
	var done []chan error
	for i := range 5 {
		done = append(done, b.putLater(q, holdfast.Normal, msg("t", 1, fmt.Sprint(i))))
	}
	b.take(q, "0")
	q.Ack(b.take(q, "1").ID)
	b.must(<-done[1])
	q.Ack(written.ID) // its end is written with the next commit, the others are not
	b.barrier()
	b.barrier()
	for _, i := range []int{0, 2, 3, 4} {
		b.pending(done[i])
	}
	q = b.reopen(storage.Options{})
	b.none(q)
	if c := b.books(q); c.Queued != 0 {
		b.Fatalf("%+v", c)
	}
}

func spillCrash(b *bench) {
	q := b.spill(never)
	var done []chan error
	for i := range 20 {
		done = append(done, b.putLater(q, holdfast.Normal, msg("t", 1, fmt.Sprint(i))))
	}
	for i := range 10 {
		q.Ack(b.take(q, fmt.Sprint(i)).ID)
		b.must(<-done[i])
	}
	q = b.reopen(storage.Options{Sync: storage.Spill, SpillAfter: never})
	for _, done := range done[10:] {
		b.pending(done)
	}
	b.none(q)
	if c := b.books(q); c.Queued != 0 {
		b.Fatalf("%+v", c)
	}
	b.put(q, holdfast.Normal, msg("t", 1, "next"))
	b.take(q, "next")
}

// A subscriber may have seen a position that was never written: another message
// under the same one would have the same packet identifier.
func spillPositions(b *bench) {
	b.start(storage.Options{Sync: storage.Spill, SpillAfter: never})
	last := uint64(0)
	for life := range 4 {
		b.change(&holdfast.SessionChange{ClientID: "c", Save: &holdfast.SessionState{}})
		box, err := b.s.SessionQueue("c")
		b.must(err)
		box.Notify(func() {})
		for i := range 3 {
			done := make(chan error, 1)
			m := msg("t", 1, fmt.Sprint(life, i))
			b.must(b.s.Publish(&holdfast.Publication{Msg: m, Sessions: []holdfast.Delivery{{ClientID: "c", QoS: 1}}}, nil, func(err error) { done <- err }))
			it := b.take(box, fmt.Sprint(life, i))
			if it.ID.Position() <= last || it.Again {
				b.Fatalf("life %d: %+v, after position %d", life, it, last)
			}
			last = it.ID.Position()
			if i < 2 {
				box.Ack(it.ID)
				b.must(<-done)
			}
		}
		if box.Len() != 1 {
			b.Fatalf("length %d", box.Len())
		}
		if life == 2 { // closed well, and then always
			b.must(b.s.Close())
			b.start(storage.Options{})
			box, err := b.s.SessionQueue("c")
			b.must(err)
			it := b.take(box, "2 2")
			if it.ID.Position() != last || !it.Again {
				b.Fatalf("%+v", it)
			}
			box.Ack(it.ID)
			b.must(b.s.Close())
		} else {
			b.s.Crash()
		}
		b.start(storage.Options{Sync: storage.Spill, SpillAfter: never})
	}
}

func spillBound(b *bench) {
	b.start(storage.Options{Sync: storage.Spill, SpillAfter: never, MaxPending: 20000})
	q := b.reader("bridge/a")
	first := b.putLater(q, holdfast.Normal, msg("t", 1, string(make([]byte, 3000))))
	for range 2 {
		b.putLater(q, holdfast.Normal, msg("t", 1, string(make([]byte, 3000))))
	}
	b.barrier()
	b.pending(first)
	b.putLater(q, holdfast.Normal, msg("t", 1, string(make([]byte, 3000))))
	b.must(<-first)
	if st := b.s.Stats(); st.Spilled != 1 {
		b.Fatalf("%+v", st)
	}
}

func spillUrgent(b *bench) {
	q := b.spill(never)
	b.put(q, holdfast.Normal, msg("t", 2, "qos 2"))
	retained := msg("r", 1, "retained")
	retained.Retain = true
	b.put(q, holdfast.Normal, retained)
	for i, p := range []holdfast.Publication{
		{Msg: msg("w", 1, "will"), WillOf: "c"},
		{Msg: msg("t", 2, "inbound"), Inbound: &holdfast.Inbound{ClientID: "c", PacketID: 7}},
	} {
		done := make(chan error, 1)
		b.must(b.s.Publish(&p, []storage.Append{{Queue: q, Route: "r", Msg: msg("t", 1, "1")}}, func(err error) { done <- err }))
		if err := <-done; err != nil {
			b.Fatal(i, err)
		}
	}
	if st := b.s.Stats(); st.Direct+st.Spilled != 0 {
		b.Fatalf("%+v", st)
	}
}

func spillRetained(b *bench) {
	b.spill(never)
	retain := func(topic string, qos byte, payload string) {
		m := msg(topic, qos, payload)
		m.Retain = true
		done := make(chan error, 1)
		b.must(b.s.Publish(&holdfast.Publication{Msg: m}, nil, func(err error) { done <- err }))
		b.must(<-done)
	}
	before := b.s.Stats().Commits
	for i := range 20 {
		retain("a", 0, fmt.Sprint(i))
		retain("gone", 0, "x")
		retain("gone", 0, "")
	}
	if n := b.s.Stats().Commits; n != before {
		b.Fatalf("%d commits, before %d", n, before)
	}
	retain("b", 0, "older")
	retain("b", 1, "newer")
	check := func(want map[string]string) {
		b.Helper()
		list, err := b.s.Retained()
		b.must(err)
		got := map[string]string{}
		for _, m := range list {
			got[m.Topic] = string(m.Payload)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			b.Fatalf("%v, want %v", got, want)
		}
	}
	b.must(b.s.Close())
	b.start(storage.Options{Sync: storage.Spill})
	check(map[string]string{"a": "19", "b": "newer"})
	retain("c", 0, string(make([]byte, 300<<10))) // more than may wait
	b.barrier()
	b.barrier()
	b.reopen(storage.Options{})
	check(map[string]string{"a": "19", "b": "newer", "c": string(make([]byte, 300<<10))})
}

func spillQuarantine(b *bench) {
	q := b.spill(never)
	var done []chan error
	for i := range 4 {
		done = append(done, b.putLater(q, holdfast.Normal, msg("t", 1, fmt.Sprint(i))))
	}
	b.take(q, "0")
	q.Drop(b.take(q, "1").ID, "expired")
	b.must(<-done[1])
	b.barrier()
	b.pending(done[2])
	q.Quarantine(b.take(q, "2").ID, "refused")
	for _, i := range []int{0, 2, 3} {
		b.must(<-done[i])
	}
	b.barrier()
	q = b.reopen(storage.Options{})
	if c := b.books(q); c.Queued != 2 || c.Dropped["expired"] != 1 || c.Quarantined["refused"] != 1 {
		b.Fatalf("%+v", c)
	}
	seen := 0
	b.must(q.Quarantined(func(a storage.Quarantined) bool { seen++; return string(a.Msg.Payload) == "2" }))
	if seen != 1 {
		b.Fatalf("%d in quarantine", seen)
	}
}

func spillRemoved(b *bench) {
	b.spill(never)
	b.change(&holdfast.SessionChange{ClientID: "c", Save: &holdfast.SessionState{}})
	box, err := b.s.SessionQueue("c")
	b.must(err)
	box.Notify(func() {})
	m := msg("t", 1, "x")
	done := make(chan error, 1)
	b.must(b.s.Publish(&holdfast.Publication{Msg: m, Sessions: []holdfast.Delivery{{ClientID: "c", QoS: 1}}}, nil, func(err error) { done <- err }))
	b.take(box, "x")
	b.change(&holdfast.SessionChange{ClientID: "c", Reset: true})
	b.must(<-done)
	if st := b.s.Stats(); st.Pending != 0 || st.Bytes != 0 {
		b.Fatalf("%+v", st)
	}
}
