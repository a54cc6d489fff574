package storage

import (
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// What waits is written exactly when its time is over, whatever else is written
// meanwhile; books and retained values have times of their own.
func TestWhatWaitsIsWrittenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := &Memory{}
		s, err := OpenMemory(Options{Memory: memory, Sync: Spill})
		if err != nil {
			t.Fatal(err)
		}
		q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
		q.Notify(func() {})
		begun := time.Now()
		publish := func(m *holdfast.Message, appends ...Append) chan time.Duration {
			done := make(chan time.Duration, 1)
			if err := s.Publish(&holdfast.Publication{Msg: m}, appends, func(err error) {
				if err != nil {
					t.Error(err)
				}
				done <- time.Since(begun)
			}); err != nil {
				t.Fatal(err)
			}
			return done
		}
		message := func(text string) (*holdfast.Message, Append) {
			m := &holdfast.Message{Topic: "t", QoS: 1, Payload: []byte(text)}
			return m, Append{Queue: q, Route: "r", Msg: m}
		}
		m, a := message("quick")
		quick := publish(m, a)
		it, _, _ := q.TryNext()
		q.Ack(it.ID)
		if took := <-quick; took != 0 {
			t.Fatalf("acknowledged by its reader, and told after %v", took)
		}
		publish(&holdfast.Message{Topic: "v", Retain: true, Payload: []byte("value")})
		m, a = message("slow")
		slow := publish(m, a)
		time.Sleep(499 * time.Millisecond) // of the bubble
		for range 3 {
			done := make(chan error, 1)
			s.SetWill("c", &holdfast.Will{Msg: m}, func(err error) { done <- err })
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-slow:
			t.Fatal("written before its time")
		default:
		}
		if took := <-slow; took != 500*time.Millisecond {
			t.Fatalf("written after %v", took)
		}
		retained := func() int { list, _ := s.Retained(); return len(list) }
		time.Sleep(time.Until(begun.Add(retainEvery - time.Millisecond)))
		if retained() != 0 {
			t.Fatal("the retained value was written before its time")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if retained() != 1 {
			t.Fatal("the retained value is not written")
		}
		// The books are written a minute after the first message that they lack.
		other, _ := s.Queue("bridge/b", QueueOptions{Ledger: true})
		other.CountDropped("r", "sampled")
		commits := s.Stats().Commits
		time.Sleep(time.Until(begun.Add(booksEvery - time.Millisecond)))
		if n := s.Stats().Commits; n != commits {
			t.Fatalf("%d commits before the books were due", n-commits)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := s.Stats().Commits; n != commits+1 {
			t.Fatalf("%d commits for the books", n-commits)
		}
		s.Crash()
		s, err = OpenMemory(Options{Memory: memory})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		q, _ = s.Queue("bridge/a", QueueOptions{Ledger: true})
		other, _ = s.Queue("bridge/b", QueueOptions{Ledger: true})
		if c := q.Ledger()["r"]; c.Accepted != 2 || c.Delivered != 1 || c.Queued != 1 || q.Len() != 1 {
			t.Fatalf("%+v", c)
		}
		if c := other.Ledger()["r"]; c.Dropped["sampled"] != 1 {
			t.Fatalf("%+v", c)
		}
	})
}
