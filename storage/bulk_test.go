package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast"
)

// bulkMessage is the message with the number i: its size goes from nothing much
// to several blocks of a table, and no part of its bytes is like another's.
func bulkMessage(i int) *holdfast.Message {
	r := rand.New(rand.NewPCG(uint64(i), 3))
	payload := make([]byte, 8+r.IntN(2000))
	if i%1000 == 0 {
		payload = make([]byte, 200<<10)
	}
	for at := 0; at < len(payload); at += 8 {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], r.Uint64())
		copy(payload[at:], word[:])
	}
	return &holdfast.Message{Topic: "plant/7/temperature", QoS: 1, Payload: payload}
}

// Many memtables are written to tables, and those are merged, which is where
// a small test does not come: an engine with a fault there passes all others.
func TestBulkIsReadBackAsItWasWritten(t *testing.T) {
	const size = 15 * memTableSize
	o := Options{Dir: t.TempDir(), DropEvery: 50 * time.Millisecond}
	s := openTest(t, o)
	q, err := s.Queue("bridge/a", QueueOptions{Ledger: true})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	n, written, answered := 0, 0, 0
	done := make(chan error, 1<<16)
	answer := func() {
		if err := <-done; err != nil {
			t.Fatalf("message %d was not made safe: %v", answered, err)
		}
		answered++
	}
	for written < size {
		m := bulkMessage(n)
		err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err })
		if errors.Is(err, holdfast.ErrFull) {
			answer() // there is something to wait for, or it would not be full
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
		written += len(m.Payload)
	}
	for answered < n {
		answer()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("wrote %d messages, %d MiB, in %v", n, written>>20, time.Since(start))

	start = time.Now()
	s = openTest(t, o)
	t.Logf("opened in %v", time.Since(start))
	start = time.Now()
	if q, err = s.Queue("bridge/a", QueueOptions{Ledger: true}); err != nil {
		t.Fatal(err)
	}
	if q.Len() != n {
		t.Errorf("%d messages were acknowledged, %d are there", n, q.Len())
	}
	for i := range n {
		it, ok, err := q.TryNext()
		if err != nil || !ok {
			t.Fatalf("message %d of %d: %v, %v; %+v", i, n, ok, err, s.Stats())
		}
		if want := bulkMessage(i); it.Msg.Topic != want.Topic || !bytes.Equal(it.Msg.Payload, want.Payload) {
			t.Fatalf("message %d of %d is another one; %+v", i, n, s.Stats())
		}
		q.Ack(it.ID)
	}
	if st := s.Stats(); st.Lost+st.Unreadable+st.SetAside != 0 {
		t.Errorf("%+v", st)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("read in %v", time.Since(start))
}
