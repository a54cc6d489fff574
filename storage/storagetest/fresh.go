package storagetest

import (
	"fmt"

	"holdfast"
	"holdfast/storage"
)

func (b *bench) fresh(q *storage.Queue, want string) holdfast.Item {
	b.Helper()
	it, ok, err := q.PollFresh(holdfast.AllLanes)
	b.must(err)
	if got := ""; !ok && want != got || ok && string(it.Msg.Payload) != want {
		b.Fatalf("got %v %+v, want %q ahead", ok, it.Msg, want)
	}
	return it
}

func freshBeside(b *bench) {
	b.start(storage.Options{TailBytes: 8000})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	b.fill(q, 0, 500)
	b.fresh(q, "") // nothing was marked
	end, settled := q.Mark()
	if end[holdfast.Normal] != 501 || end[holdfast.High] != 1 || settled != [holdfast.LaneCount]uint64{} {
		b.Fatalf("marks %v, %v", end, settled)
	}
	b.fresh(q, "")
	b.fill(q, 500, 504)
	b.put(q, holdfast.High, msg("t", 1, "alarm"))
	b.next(q, "alarm")
	a, c := b.fresh(q, "500"), b.fresh(q, "501")
	b.next(q, "0")
	d := b.fresh(q, "502")
	q.Ack(a.ID)
	q.Ack(c.ID)
	q.Release(d.ID) // it waits for its place
	for i := 1; i < 500; i++ {
		q.Ack(b.next(q, fmt.Sprint(i)).ID)
	}
	if it := b.next(q, "502"); !it.Again {
		b.Fatal("nobody is told that it was handed out before")
	}
	b.next(q, "503")
	b.none(q)
	b.fresh(q, "")
	if _, settled := q.Mark(); settled[holdfast.Normal] != 503 {
		b.Fatalf("settled up to %v", settled)
	}
	// What the reader is too slow for is left to the backlog.
	q.Mark()
	b.fill(q, 504, 1500)
	first, ok, err := q.PollFresh(holdfast.AllLanes)
	b.must(err)
	if !ok || first.ID.Position() <= 505 {
		b.Fatalf("got %v %+v, want what is still in memory", ok, first.ID)
	}
	for i := 504; i < 1500; i++ {
		if uint64(i+1) != first.ID.Position() {
			q.Ack(b.next(q, fmt.Sprint(i)).ID)
		}
	}
	b.none(q)
	b.fresh(q, "")
}

func freshFull(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{MaxMessages: 6, Ledger: true})
	b.fill(q, 0, 4)
	q.Mark()
	b.fill(q, 4, 6)
	x, y := b.fresh(q, "4"), b.fresh(q, "5")
	q.Release(x.ID, y.ID)
	b.fill(q, 6, 9) // 0 to 2 have to go, not what was ahead of them
	for i := 3; i < 9; i++ {
		q.Ack(b.next(q, fmt.Sprint(i)).ID)
	}
	b.none(q)
	if c := q.Ledger()["r"]; c.Dropped["full"] != 3 || c.Delivered != 6 || !c.Balanced() {
		b.Fatalf("%+v", c)
	}
}
