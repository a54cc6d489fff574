package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"holdfast"
	"holdfast/storage"
)

func (b *bench) aside(q *storage.Queue) (list []storage.Quarantined) {
	b.Helper()
	b.must(q.Quarantined(func(a storage.Quarantined) bool {
		m := *a.Msg
		m.Payload = slices.Clone(m.Payload)
		a.Msg = &m
		list = append(list, a)
		return true
	}))
	return list
}

// peek lists the payloads of what is queued.
func (b *bench) peek(q *storage.Queue, lanes holdfast.Lanes) (list []string) {
	b.Helper()
	unreadable, err := q.Peek(context.Background(), lanes, func(s storage.Seen) bool {
		list = append(list, string(s.Msg.Payload))
		return true
	})
	b.must(err)
	if unreadable != 0 {
		b.Fatalf("%d cannot be read", unreadable)
	}
	return list
}

// copyOut runs an export up to its Commit.
func (b *bench) copyOut(x *storage.Export) (list []storage.Seen) {
	b.Helper()
	unreadable, err := x.Each(context.Background(), func(s storage.Seen) error {
		list = append(list, s)
		return nil
	})
	b.must(err)
	if unreadable != 0 {
		b.Fatalf("%d cannot be read", unreadable)
	}
	return list
}

func (b *bench) counts(q *storage.Queue, want holdfast.Counts) {
	b.Helper()
	var c holdfast.Counts
	for route, r := range q.Ledger() {
		if !r.Balanced() {
			b.Fatalf("route %s: %+v", route, r)
		}
		c.Add(r)
	}
	if fmt.Sprint(c) != fmt.Sprint(want) {
		b.Fatalf("books %+v\nwant  %+v", c, want)
	}
}

func peekTakesNothing(b *bench) {
	b.start(storage.Options{TailBytes: 1000})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	b.fill(q, 0, 300)
	b.put(q, holdfast.High, msg("t", 1, "high"))
	b.put(q, holdfast.Low, msg("t", 1, "low"))
	b.next(q, "high")
	for i := range 10 {
		it := b.next(q, fmt.Sprint(i))
		if i%2 == 0 {
			q.Ack(it.ID)
		}
	}
	got := b.peek(q, holdfast.AllLanes)
	if len(got) != 297 || got[0] != "high" || got[1] != "1" || got[2] != "3" || got[6] != "10" || got[296] != "low" {
		b.Fatalf("%d: %q", len(got), got)
	}
	if got := b.peek(q, 1<<holdfast.Low); !slices.Equal(got, []string{"low"}) {
		b.Fatalf("%q", got)
	}
	n := 0
	if _, err := q.Peek(context.Background(), 1<<holdfast.Normal, func(storage.Seen) bool { n++; return n < 3 }); err != nil || n != 3 {
		b.Fatal(n, err)
	}
	b.next(q, "10")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := q.Peek(ctx, holdfast.AllLanes, func(storage.Seen) bool { return true }); !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
}

func exportAllOrNone(b *bench) {
	o := storage.QueueOptions{Ledger: true, MaxMessages: 200}
	b.start(storage.Options{TailBytes: 1000})
	q := b.queue("bridge/a", o)
	b.fill(q, 0, 100)
	acked, released, out := b.next(q, "0"), b.next(q, "1"), b.next(q, "2")
	q.Ack(acked.ID)
	q.Release(released.ID)

	x, err := q.Export()
	b.must(err)
	if x.Messages != 98 || x.Skipped() != 1 {
		b.Fatalf("%+v", x)
	}
	for range 2 { // again, as if the first file could not be written
		if got := b.copyOut(x); len(got) != 98 || string(got[0].Msg.Payload) != "1" || string(got[1].Msg.Payload) != "3" || got[97].ID.Position() != 100 || got[5].Route != "r" {
			b.Fatalf("%d", len(got))
		}
	}
	b.none(q)
	if _, err := q.Export(); !errors.Is(err, storage.ErrBusy) {
		b.Fatal(err)
	}
	if _, err := q.Purge(b.Context(), time.Time{}); !errors.Is(err, storage.ErrBusy) {
		b.Fatal(err)
	}
	// Nothing of the copy is dropped for new messages: these are.
	b.fill(q, 100, 202)
	if n := q.Len(); n != 200 {
		b.Fatalf("length %d", n)
	}
	q.Release(out.ID)
	notified := make(chan struct{}, 100)
	q.Notify(func() { notified <- struct{}{} })
	b.s.Crash() // before Commit: nothing has left

	b.start(storage.Options{TailBytes: 1000})
	q = b.queue("bridge/a", o)
	if n := q.Len(); n < 200 || n > 201 { // the acknowledgement may be lost
		b.Fatalf("length %d", n)
	}
	x, err = q.Export()
	b.must(err)
	n := len(b.copyOut(x))
	waiting := make(chan holdfast.Item)
	go func() {
		it, _ := q.Next(context.Background(), holdfast.AllLanes)
		waiting <- it
	}()
	took, err := x.Commit()
	b.must(err)
	if int(took) != n || q.Len() != 0 {
		b.Fatalf("%d of %d, length %d", took, n, q.Len())
	}
	b.fill(q, 202, 203)
	if it := <-waiting; string(it.Msg.Payload) != "202" {
		b.Fatalf("%q", it.Msg.Payload)
	}
	b.s.Crash() // behind it: all have left
	b.start(storage.Options{})
	q = b.queue("bridge/a", o)
	if got := b.peek(q, holdfast.AllLanes); !slices.Equal(got, []string{"202"}) {
		b.Fatalf("%q", got)
	}
	c := q.Ledger()["r"]
	if c.Accepted != 203 || int(c.Exported) != n || c.Queued != 1 || !c.Balanced() {
		b.Fatalf("%+v", c)
	}
	x, err = q.Export()
	b.must(err)
	b.copyOut(x)
	x.End()
	x.End()
	b.next(q, "202")
}

func importBringsBack(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true, MaxMessages: 5})
	b.fill(q, 0, 2)
	var list []storage.Append
	for i := range 3 {
		list = append(list, storage.Append{Lane: holdfast.Lane(i), Route: "other", Msg: msg("t", byte(i), fmt.Sprint("i", i))})
	}
	b.must(q.Import(list))
	if err := q.Import(list[:1]); !errors.Is(err, holdfast.ErrFull) {
		b.Fatal(err)
	}
	if err := q.Import([]storage.Append{{Lane: 9, Msg: msg("t", 1, "x")}}); err == nil {
		b.Fatal("there is no such lane")
	}
	if err := q.Import([]storage.Append{{Msg: msg("t", 1, strings.Repeat("x", storage.MaxMessage))}}); !errors.Is(err, holdfast.ErrTooLarge) {
		b.Fatal(err)
	}
	b.s.Crash()
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	for _, want := range []string{"i1", "0", "1", "i0", "i2"} {
		b.next(q, want)
	}
	b.counts(q, holdfast.Counts{Accepted: 2, Imported: 3, Queued: 5})
	if c := q.Ledger()["other"]; c.Imported != 3 || c.Accepted != 0 {
		b.Fatalf("%+v", c)
	}
	b.must(b.s.Close())
	if err := q.Import(list); !errors.Is(err, holdfast.ErrClosed) {
		b.Fatal(err)
	}
}

func purgeOld(b *bench) {
	b.start(storage.Options{MaxRanges: 8, TailBytes: 500})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	at := time.Unix(1700000000, 0)
	for i := range 40 {
		m := msg("t", 1, fmt.Sprint(i))
		if m.Received = at; i >= 20 && i%2 == 0 {
			m.Received = at.Add(time.Hour)
		}
		b.put(q, holdfast.Normal, m)
	}
	first := b.next(q, "0")
	p, err := q.Purge(b.Context(), at.Add(time.Minute))
	b.must(err)
	// Of the ten that lie between younger ones only as many gaps are kept as
	// leave room for acknowledgements.
	if p.InFlight != 1 || p.Dropped+p.Left != 29 || p.Left == 0 || q.Len() != 40-int(p.Dropped) {
		b.Fatalf("%+v, length %d", p, q.Len())
	}
	q.Ack(first.ID)
	b.next(q, "20")
	b.s.Crash()
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	dropped := p.Dropped
	if c := q.Ledger()["r"]; c.Dropped["purged"] != dropped || !c.Balanced() {
		b.Fatalf("%+v", c)
	}
	p, err = q.Purge(b.Context(), time.Time{})
	b.must(err)
	if q.Len() != 0 || q.Bytes() != 0 || p.Left+p.InFlight != 0 {
		b.Fatalf("%+v, length %d", p, q.Len())
	}
	b.fill(q, 40, 41)
	b.next(q, "40")
}

func quarantineBack(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true, MaxMessages: 4})
	b.fill(q, 0, 3)
	before := time.Now().Truncate(0)
	for i := range 3 {
		q.Quarantine(b.next(q, fmt.Sprint(i)).ID, "refused")
	}
	b.fill(q, 3, 6) // the rows are on disk with this commit at the latest
	list := b.aside(q)
	if len(list) != 3 || list[2].Reason != "refused" || list[2].Route != "r" || list[2].Since.Before(before) {
		b.Fatalf("%+v", list)
	}
	if _, err := q.Retry(list[0].ID, 99); !errors.Is(err, storage.ErrNotThere) {
		b.Fatal(err)
	}
	n, err := q.Retry(list[1].ID)
	b.must(err)
	if n != 1 {
		b.Fatal(n)
	}
	// There is no room for another one, and nothing is dropped for it.
	if n, err := q.Retry(); n != 0 || !errors.Is(err, holdfast.ErrFull) {
		b.Fatal(n, err)
	}
	n, err = q.Discard(list[0].ID)
	b.must(err)
	if n != 1 {
		b.Fatal(n)
	}
	b.counts(q, holdfast.Counts{Accepted: 6, Queued: 4, Dropped: map[string]uint64{"quarantined": 1}, Quarantined: map[string]uint64{"refused": 1}})
	b.s.Crash()
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	for _, want := range []string{"3", "4", "5", "1"} {
		b.next(q, want)
	}
	n, err = q.Retry()
	b.must(err)
	if n != 1 || len(b.aside(q)) != 0 {
		b.Fatal(n)
	}
	b.next(q, "2")
	b.counts(q, holdfast.Counts{Accepted: 6, Queued: 5, Dropped: map[string]uint64{"quarantined": 1}})
}
