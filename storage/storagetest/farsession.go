package storagetest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"holdfast"
	"holdfast/storage"
)

func (b *bench) changeFar(q *storage.Queue, c *holdfast.FarSessionChange) {
	b.Helper()
	done := make(chan error, 1)
	q.ChangeFarSession(c, func(err error) { done <- err })
	b.must(<-done)
}

func (b *bench) far(q *storage.Queue, name string, want ...holdfast.Bound) {
	b.Helper()
	if f := q.FarSession(); f.Name != name || len(f.Bound)+len(want) > 0 && !reflect.DeepEqual(f.Bound, want) {
		b.Fatalf("session %q with %+v\nwant %q with %+v", f.Name, f.Bound, name, want)
	}
}

func bound(id uint16, pos uint64) holdfast.Bound {
	return holdfast.Bound{PacketID: id, Item: holdfast.NewItemID(holdfast.Normal, pos)}
}

func farSession(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	name, other := "far", "elsewhere"
	b.far(q, "")
	b.changeFar(q, &holdfast.FarSessionChange{Begin: &name}) // before there was a message
	b.s.Crash()
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	b.far(q, name)
	b.fill(q, 0, 4)
	b.put(q, holdfast.High, msg("t", 2, "alarm"))
	alarm := b.next(q, "alarm")
	received := bound(2, 2)
	received.Received = true
	high := holdfast.Bound{PacketID: 9, Item: alarm.ID}
	b.changeFar(q, &holdfast.FarSessionChange{Bind: []holdfast.Bound{bound(1, 1), bound(2, 2), high, bound(3, 3), bound(4, 4)}})
	b.changeFar(q, &holdfast.FarSessionChange{Bind: []holdfast.Bound{received}, Free: []uint16{4, 77}})
	b.far(q, name, bound(1, 1), received, bound(3, 3), high)

	// An acknowledgement frees the identifier; a rule of the queue does not.
	q.Ack(alarm.ID)
	q.Ack(b.next(q, "0").ID)
	q.Drop(b.next(q, "1").ID, "sampled")
	received.Gone = true
	b.far(q, name, received, bound(3, 3))
	b.must(b.s.Close())
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	b.far(q, name, received, bound(3, 3))

	// An item has one identifier, and an identifier one item.
	b.changeFar(q, &holdfast.FarSessionChange{Bind: []holdfast.Bound{bound(5, 3)}})
	b.far(q, name, received, bound(5, 3))
	b.changeFar(q, &holdfast.FarSessionChange{Bind: []holdfast.Bound{bound(5, 4)}})
	b.far(q, name, received, bound(5, 4))
	b.changeFar(q, &holdfast.FarSessionChange{Begin: &other})
	b.s.Crash()
	b.start(storage.Options{})
	b.far(b.queue("bridge/a", storage.QueueOptions{Ledger: true}), other)
}

// What comes from the far broker is there with its packet identifier, or not at all.
func farInbound(b *bench) {
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{})
	inbound := func(want ...uint16) {
		b.Helper()
		if got := q.FarSession().Inbound; !slices.Equal(got, want) {
			b.Fatalf("identifiers %v, want %v", got, want)
		}
	}
	come := func(queue string, id uint16) error {
		done := make(chan error, 1)
		p := &holdfast.Publication{Msg: msg("down", 2, "x"), Inbound: &holdfast.Inbound{Queue: queue, PacketID: id}}
		if err := b.s.Publish(p, nil, func(err error) { done <- err }); err != nil {
			return err
		}
		return <-done
	}
	b.must(come("bridge/a", 7))
	b.must(come("bridge/a", 65535))
	b.must(come("bridge/a", 8))
	if err := come("bridge/none", 1); !errors.Is(err, holdfast.ErrClosed) {
		b.Fatalf("a queue that is not there: %v", err)
	}
	inbound(7, 8, 65535)
	b.changeFar(q, &holdfast.FarSessionChange{ForgetInbound: []uint16{8, 9}})
	b.s.Crash()
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{})
	inbound(7, 65535)
	if list, err := b.s.Sessions(); err != nil || len(list) != 0 {
		b.Fatalf("sessions %v, %v", list, err)
	}
	name := "another"
	b.changeFar(q, &holdfast.FarSessionChange{Begin: &name})
	inbound()
	b.s.Crash()
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{})
	inbound()
}

// What was acknowledged in memory only comes again with its identifier.
func farSessionCrash(b *bench) {
	b.start(storage.Options{AckDelay: time.Hour})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	b.fill(q, 0, 2)
	b.changeFar(q, &holdfast.FarSessionChange{Bind: []holdfast.Bound{bound(1, 1), bound(2, 2)}})
	q.Ack(b.next(q, "0").ID)
	b.far(q, "", bound(2, 2))
	b.s.Crash()
	b.start(storage.Options{})
	q = b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	b.far(q, "", bound(1, 1), bound(2, 2))
	b.next(q, "0")
	b.changeFar(q, &holdfast.FarSessionChange{})
	b.must(b.s.RemoveQueue("bridge/a"))
	done := make(chan error, 1)
	q.ChangeFarSession(&holdfast.FarSessionChange{Free: []uint16{1}}, func(err error) { done <- err })
	if err := <-done; err == nil {
		b.Fatal("a queue that was removed takes a change")
	}
	b.far(b.queue("bridge/a", storage.QueueOptions{}), "")
}

func takeOne(b *bench) {
	b.start(storage.Options{TailBytes: 2000})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	b.fill(q, 0, 500)
	take := func(pos uint64, want string) holdfast.Item {
		b.Helper()
		it, ok, err := q.Take(holdfast.NewItemID(holdfast.Normal, pos))
		b.must(err)
		if ok != (want != "") || ok && (string(it.Msg.Payload) != want || !it.Again || it.Route != "r") {
			b.Fatalf("%d is %v, %+v", pos, ok, it)
		}
		return it
	}
	first := b.next(q, "0")
	take(1, "") // it is out
	take(501, "")
	take(0, "")
	disk, memory, back := take(4, "3"), take(499, "498"), take(6, "5")
	take(4, "")
	q.Ack(disk.ID)
	take(4, "")
	q.Release(first.ID, back.ID)
	take(1, "0")
	for i := 1; i < 500; i++ {
		if i == 3 || i == 498 {
			continue
		}
		q.Ack(b.next(q, fmt.Sprint(i)).ID)
	}
	b.none(q)
	q.Ack(memory.ID)
	q.Ack(first.ID)
	b.counts(q, holdfast.Counts{Accepted: 500, Delivered: 500})
	if _, ok, err := q.Take(holdfast.NewItemID(7, 1)); ok || err != nil {
		b.Fatal("a lane that is none")
	}
	// What is ahead of the backlog is left out there, too.
	b.fill(q, 500, 504)
	it := take(503, "502")
	q.Mark()
	b.fill(q, 504, 506)
	q.Ack(b.fresh(q, "504").ID)
	for _, i := range []int{500, 501, 503, 505} {
		q.Ack(b.next(q, fmt.Sprint(i)).ID)
	}
	q.Release(it.ID)
	q.Ack(b.next(q, "502").ID)
	b.none(q)
}
