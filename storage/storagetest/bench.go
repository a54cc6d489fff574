package storagetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"holdfast"
	"holdfast/storage"
)

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
