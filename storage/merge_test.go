package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"holdfast"
)

// needCorrections skips what a plain "go test" cannot pass.
func needCorrections(t *testing.T) {
	t.Helper()
	if !Corrected() {
		t.Skip("NOT TESTED: this test was " + Uncorrected)
	}
}

// A merge that cannot write one of its tables must not remove those that it was
// made of: what was acknowledged would be gone without a word.
func TestAMergeThatFailsLosesNothing(t *testing.T) {
	needCorrections(t)
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	payload := strings.Repeat("x", 4000)
	n := 0
	more := func(messages int) {
		t.Helper()
		done := make(chan error, messages)
		for range messages {
			m := &holdfast.Message{Topic: "t", QoS: 1, Payload: fmt.Appendf(nil, "%08d%s", n, payload)}
			if err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
			n++
		}
		for range messages {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	fresh := func() int { return s.eng.(*badgerEngine).db.Levels()[0].NumTables }
	for more(1000); fresh() != 1; more(100) {
		if err := settled(s); err != nil {
			t.Fatal(err)
		}
	}
	// The next table is that of a memtable; with it there are enough to merge.
	// Of the tables after it every second one cannot be made.
	last := uint64(0)
	files, _ := filepath.Glob(filepath.Join(dir, "*.sst"))
	for _, f := range files {
		id, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(f), ".sst"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		last = max(last, id)
	}
	var inTheWay []string
	for id := last + 3; id < last+20; id += 2 {
		name := filepath.Join(dir, fmt.Sprintf("%06d.sst", id))
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		inTheWay = append(inTheWay, name)
	}
	for fresh() == 1 {
		more(100)
	}
	if err := settled(s); err != nil {
		t.Fatal(err)
	}
	for _, name := range inTheWay {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	// From the disk, not from memory.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, Options{Dir: dir})
	q, _ = s.Queue("bridge/a", QueueOptions{Ledger: true})
	got := drain(t, q)
	if c := q.Ledger()["r"]; len(got) != n || c.Lost != 0 || !c.Balanced() {
		t.Fatalf("%d of %d, %+v", len(got), n, c)
	}
	for i, p := range got {
		if p[:8] != fmt.Sprintf("%08d", i) {
			t.Fatalf("%s in the place of %d", p[:8], i)
		}
	}
}
