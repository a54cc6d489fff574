package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"holdfast"
	"holdfast/storage"
)

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
