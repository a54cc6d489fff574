package storage

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dgraph-io/badger/v4/table"

	"holdfast"
)

// cutTables cuts the tables of an open store to half, when none is being merged:
// what is mapped behind the end of a file is read with SIGBUS, like a sector that
// the disk cannot read.
func cutTables(t *testing.T, s *Store, dir string) {
	t.Helper()
	db := s.eng.(*badgerEngine).db
	eventually(t, func() bool { return db.Levels()[0].NumTables < 2 })
	for _, x := range db.Tables() {
		name := filepath.Join(dir, table.IDToFilename(x.ID))
		if err := os.Truncate(name, size(t, name)/2&^4095); err != nil {
			t.Fatal(err)
		}
	}
}

// What the disk cannot read while the store is open costs what is in it and no
// more, whoever reads it first, and is counted. Without a guard it is the end of
// the process, and of each one to come.
func TestATableThatCannotBeReadWhileItIsOpenIsSetAside(t *testing.T) {
	if !Corrected() {
		t.Skip("NOT TESTED: this test was " + Uncorrected)
	}
	for _, c := range []struct {
		name  string
		touch func(t *testing.T, s *Store, q *Queue, add func())
	}{
		{"a reader", func(t *testing.T, s *Store, q *Queue, _ func()) {
			eventually(t, func() bool { _, _, _ = q.TryNext(); return s.Stats().Reopened > 0 })
		}},
		{"a merge", func(t *testing.T, s *Store, _ *Queue, add func()) {
			for s.Stats().Reopened == 0 && !t.Failed() {
				add()
			}
		}},
		{"a drop", func(_ *testing.T, s *Store, q *Queue, _ func()) { _ = s.RemoveQueue("bridge/b") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they wait for Badger
			dir := t.TempDir()
			o := Options{Dir: dir, TailBytes: 32 << 10}
			s := openTest(t, o)
			q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
			b, _ := s.Queue("bridge/b", QueueOptions{Ledger: true})
			m := &holdfast.Message{Topic: "t", QoS: 1, Payload: make([]byte, 50<<10)}
			n := uint64(0)
			add := func() {
				t.Helper()
				err := publishNow(t, s, &holdfast.Publication{Msg: m}, Append{Queue: q, Route: "r", Msg: m}, Append{Queue: b, Route: "r", Msg: m})
				if err == nil {
					n++
				} else if s.Stats().Failed == nil && s.Stats().Reopened == 0 {
					t.Fatal(err)
				}
			}
			for range 60 {
				add()
			}
			if err := s.Close(); err != nil { // everything is in tables then
				t.Fatal(err)
			}
			s = openTest(t, o)
			q, _ = s.Queue("bridge/a", QueueOptions{Ledger: true})
			b, _ = s.Queue("bridge/b", QueueOptions{Ledger: true})
			cutTables(t, s, dir)
			c.touch(t, s, q, add)
			eventually(t, func() bool { return s.Stats().Reopened > 0 && s.Stats().Failed == nil })
			if s.Stats().SetAside == 0 {
				t.Error("nothing was set aside")
			}
			add()
			// A restart finds the same.
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openTest(t, o)
			q, _ = s.Queue("bridge/a", QueueOptions{Ledger: true})
			var got uint64
			eventually(t, func() bool { got += uint64(len(drain(t, q))); return q.Len() == 0 })
			books := q.Ledger()["r"]
			t.Logf("%d of %d are there, %+v", got, n, books)
			if !books.Balanced() || books.Accepted != n || books.Lost+got != n {
				t.Errorf("%d of %d are there, %+v", got, n, books)
			}
		})
	}
}

// An opening reads no more than the ends of most tables, but all of one that
// could not be read before.
func TestATableThatCouldNotBeReadIsLookedAtWhole(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	q, _ := s.Queue("bridge/a", QueueOptions{})
	m := &holdfast.Message{Topic: "t", QoS: 1, Payload: make([]byte, 50<<10)}
	for range 40 {
		if err := publishNow(t, s, &holdfast.Publication{Msg: m}, Append{Queue: q, Msg: m}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*.sst"))
	name := slices.MaxFunc(names, func(a, b string) int { return cmp.Compare(size(t, a), size(t, b)) })
	hurt(t, name, "zeros", int(size(t, name)/2))
	findings := func() int {
		x, err := examine(dir, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(x.findings)
	}
	if n := findings(); n != 0 {
		t.Fatalf("%d findings at the ends", n)
	}
	for _, noted := range []string{filepath.Base(name), "?"} {
		if err := os.WriteFile(filepath.Join(dir, faultsName), []byte(noted+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if n := findings(); n != 1 {
			t.Fatalf("%d findings with %q noted", n, noted)
		}
	}
	openTest(t, Options{Dir: dir})
	if _, err := os.Stat(filepath.Join(dir, faultsName)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("what was looked at is still noted: %v", err)
	}
}

func size(t *testing.T, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestTheFileOfAFaultIsFound(t *testing.T) {
	const maps = "7f00-7fff r--s 00000000 fe:00 12 /d/store/000008.sst\n8000-9000 rw-p 00000000 00:00 0\n\n-\nx-y a b c d e\n"
	for addr, want := range map[uintptr]string{0x7f00: "000008.sst", 0x7ffe: "000008.sst", 0x7fff: "?", 0x8000: "?", 0: "?"} {
		if name := mappedFile([]byte(maps), addr); name != want {
			t.Errorf("%x: %s", addr, name)
		}
	}
}
