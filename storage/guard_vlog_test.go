package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"holdfast"
)

// A power cut between the creation of a value log file and its first write
// leaves an empty one, with which Badger refuses to open: During db.vlog.open.
func TestAStoreOpensWithAnEmptyValueLogFile(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	q, err := s.Queue("bridge/a", QueueOptions{Ledger: true})
	if err != nil {
		t.Fatal(err)
	}
	const n = 100
	done := make(chan error, n)
	for i := range n {
		m := &holdfast.Message{Topic: "t", Payload: fmt.Append(nil, i), QoS: 1}
		if err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	s.Crash()
	if err := os.WriteFile(filepath.Join(dir, "000002.vlog"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if q, err = s.Queue("bridge/a", QueueOptions{Ledger: true}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		it, ok, err := q.TryNext()
		if err != nil || !ok || string(it.Msg.Payload) != fmt.Sprint(i) {
			t.Fatalf("message %d: %v, %v, %v", i, it.Msg, ok, err)
		}
	}
	if c := q.Ledger()["r"]; c.Lost != 0 {
		t.Errorf("lost %d", c.Lost)
	}
}
