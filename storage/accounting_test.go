package storage

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

func qos1(payload string) *holdfast.Message {
	return &holdfast.Message{Topic: "t", QoS: 1, Payload: []byte(payload)}
}

// publishNow publishes and waits for its done.
func publishNow(t *testing.T, s *Store, p *holdfast.Publication, appends ...Append) error {
	t.Helper()
	done := make(chan error, 1)
	if err := s.Publish(p, appends, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

func TestWhatWasExportedCountsNoMoreInTheBoundOverAll(t *testing.T) {
	s, err := OpenMemory(Options{MaxBytes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	m := qos1(string(make([]byte, 90)))
	for range 9 {
		if err := publishNow(t, s, &holdfast.Publication{Msg: m}, Append{Queue: q, Route: "r", Msg: m}); err != nil {
			t.Fatal(err)
		}
	}
	x, err := q.Export()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Each(context.Background(), func(Seen) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Commit(); err != nil {
		t.Fatal(err)
	}
	if s.Stats().Bytes != 0 || q.Bytes() != 0 {
		t.Fatalf("%d bytes over all and %d in the queue are left", s.Stats().Bytes, q.Bytes())
	}
}

func TestACloseEndsOnADeadDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dead atomic.Bool
		s, err := OpenMemory(Options{AckDelay: time.Hour, BeforeSync: func() error {
			if dead.Load() {
				return errStub
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
		synctest.Wait()
		dead.Store(true)
		q.CountDropped("r", "x") // what only the close writes
		if err := s.Close(); !errors.Is(err, errStub) {
			t.Fatal(err)
		}
	})
}

// What a failed commit has left of a message with QoS 2 must not make its
// repetition count as one that is stored.
func TestAFailedCommitLeavesNoPacketIdentifier(t *testing.T) {
	memory := &Memory{}
	p := &plan{method: "commit", n: 2, applied: true}
	s, err := OpenMemory(Options{engine: func(*repairs) (engine, error) { return stub{memoryEngine{memory}, p}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	s.Change(&holdfast.SessionChange{ClientID: "pub", Save: &holdfast.SessionState{Expiry: 60}}, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	m := &holdfast.Message{Topic: "t", QoS: 2, Payload: []byte("x")}
	err = publishNow(t, s, &holdfast.Publication{Msg: m, Inbound: &holdfast.Inbound{ClientID: "pub", PacketID: 7}})
	if !errors.Is(err, errStub) {
		t.Fatal(err)
	}
	eventually(t, func() bool { return s.Stats().Reopened == 1 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = OpenMemory(Options{Memory: memory})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	list, err := s.Sessions()
	if err != nil || len(list) != 1 || len(list[0].Inbound) != 0 {
		t.Fatalf("%+v, %v", list, err)
	}
}

// spillStore is one in spill mode, and a queue that somebody reads.
func spillStore(t *testing.T, name string) (*Store, *Queue) {
	t.Helper()
	s, err := OpenMemory(Options{Sync: Spill})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	q, _ := s.Queue(name, QueueOptions{MaxMessages: 1})
	q.Notify(func() {})
	return s, q
}

func TestTwoCopiesInOneQueueDoNotWaitForOneAnother(t *testing.T) {
	s, q := spillStore(t, "bridge/a")
	other, _ := s.Queue("bridge/b", QueueOptions{})
	other.Notify(func() {})
	m := qos1("x")
	var calls atomic.Int32
	waits := make(chan error, 1)
	if err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: other, Msg: m}}, func(err error) { waits <- err }); err != nil {
		t.Fatal(err)
	}
	both := make(chan error, 2)
	err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Msg: m}, {Queue: q, Msg: m}}, func(err error) { calls.Add(1); both <- err })
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-both, <-waits); err != nil || calls.Load() != 1 {
		t.Fatalf("%d calls, %v", calls.Load(), err)
	}
	if n := s.Stats().Pending; n != 0 {
		t.Errorf("%d bytes are pending", n)
	}
}

func TestASessionThatIsRemovedIsForgottenBySpill(t *testing.T) {
	s, _ := spillStore(t, "bridge/a")
	done := make(chan error, 2)
	for range 10 {
		s.Change(&holdfast.SessionChange{ClientID: "c", Reset: true, Save: &holdfast.SessionState{}}, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		q, _ := s.SessionQueue("c")
		q.Notify(func() {})
		m := qos1("x")
		if err := s.Publish(&holdfast.Publication{Msg: m, Sessions: []holdfast.Delivery{{ClientID: "c", QoS: 1}}}, nil, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		it, _, _ := q.TryNext()
		q.Ack(it.ID)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.waits.dirty); n > 1 {
		t.Errorf("%d queues are remembered", n)
	}
}

func TestARetainedValueThatWaitsIsForgottenToo(t *testing.T) {
	s, _ := spillStore(t, "bridge/a")
	m := &holdfast.Message{Topic: "t", Payload: []byte("x"), Retain: true, Received: time.Now().Add(-10 * time.Hour),
		Properties: &holdfast.Properties{Expiry: 5, HasExpiry: true}}
	kept := func(forget bool) []*holdfast.Message {
		if err := publishNow(t, s, &holdfast.Publication{Msg: m}); err != nil {
			t.Fatal(err)
		}
		if forget {
			s.ForgetRetained("t")
		}
		s.mu.Lock()
		s.writeRetainedLocked()
		s.mu.Unlock()
		done := make(chan error, 1)
		s.SetWill("c", nil, func(err error) { done <- err }) // goes with the same commit
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		list, err := s.Retained()
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if list := kept(true); len(list) != 0 {
		t.Errorf("%d are kept", len(list))
	}
	// Its life counts from when it came, by the age of the store.
	if list := kept(false); len(list) != 1 || time.Since(list[0].Received) > time.Hour {
		t.Errorf("%+v", list)
	}
}
