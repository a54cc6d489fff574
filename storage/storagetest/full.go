package storagetest

import (
	"fmt"

	"holdfast"
	"holdfast/storage"
)

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
