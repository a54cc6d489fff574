package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast"
)

// What Badger refuses, or would end the process for, or would silently remove.
func TestOddFilesDoNotKeepItClosed(t *testing.T) {
	t.Parallel()
	im := damageImage(t)
	for _, c := range []struct {
		name string
		hurt func(dir string) error
	}{
		{"LOCK is a folder", func(dir string) error { return os.MkdirAll(filepath.Join(dir, "LOCK", "x"), 0o700) }},
		{"a memtable that is a folder", func(dir string) error { return os.Mkdir(filepath.Join(dir, "00077.mem"), 0o700) }},
		{"a memtable without a number", func(dir string) error { return os.WriteFile(filepath.Join(dir, "x.mem"), []byte("x"), 0o600) }},
		{"names and files of many kinds", func(dir string) error {
			table := im.files(t, "*.sst")[0]
			b, err := os.ReadFile(filepath.Join(dir, table))
			huge := filepath.Join(dir, "00082.mem")
			return errors.Join(err,
				os.WriteFile(filepath.Join(dir, "00079.old.mem"), []byte("x"), 0o600),
				os.WriteFile(filepath.Join(dir, "0"+table), b[:len(b)/2], 0o600),
				os.Symlink("/dev/zero", filepath.Join(dir, "00080.mem")),
				unix.Mkfifo(filepath.Join(dir, "00081.mem"), 0o600),
				os.WriteFile(huge, nil, 0o600), os.Truncate(huge, 1<<40),
				os.Symlink("/dev/zero", filepath.Join(dir, faultsName)),
				os.MkdirAll(filepath.Join(dir, "probe.tmp", "x"), 0o700))
		}},
		{"a MANIFEST of a terabyte, and no place for a new one", func(dir string) error {
			return errors.Join(
				os.Truncate(filepath.Join(dir, "MANIFEST"), 1<<40),
				os.MkdirAll(filepath.Join(dir, "MANIFEST.tmp", "x"), 0o700),
				os.WriteFile(filepath.Join(dir, setAsideDir), nil, 0o600))
		}},
		{"marks of a terabyte, and faults that are a folder", func(dir string) error {
			return errors.Join(os.Truncate(filepath.Join(dir, marksName), 1<<40), os.MkdirAll(filepath.Join(dir, faultsName, "x"), 0o700))
		}},
		{"a negative table", func(dir string) error { return os.WriteFile(filepath.Join(dir, "-1.sst"), []byte("x"), 0o600) }},
		{"a memtable of ten bytes", func(dir string) error { return os.WriteFile(filepath.Join(dir, "00078.mem"), make([]byte, 10), 0o600) }},
		{"an empty value log", func(dir string) error { return os.WriteFile(filepath.Join(dir, "000001.vlog"), nil, 0o600) }},
		{"a value log of garbage", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "000009.vlog"), bytes.Repeat([]byte{0xff}, 5000), 0o600)
		}},
		{"a table of garbage", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "000999.sst"), bytes.Repeat([]byte{7}, 5000), 0o600)
		}},
		{"an empty KEYREGISTRY", func(dir string) error { return os.WriteFile(filepath.Join(dir, "KEYREGISTRY"), nil, 0o600) }},
		{"a short DISCARD", func(dir string) error { return os.WriteFile(filepath.Join(dir, "DISCARD"), []byte("abc"), 0o600) }},
		{"MANIFEST is a folder", func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "MANIFEST")), os.Mkdir(filepath.Join(dir, "MANIFEST"), 0o700))
		}},
		{"an empty MANIFEST", func(dir string) error { return os.WriteFile(filepath.Join(dir, "MANIFEST"), nil, 0o600) }},
		{"marks is a folder", func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, marksName)), os.Mkdir(filepath.Join(dir, marksName), 0o700))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := im.copy(t)
			if err := c.hurt(dir); err != nil {
				t.Fatal(err)
			}
			if lost, unseen, _ := im.after(t, dir); lost != 0 || unseen != 0 {
				t.Fatalf("lost %d, unseen %d", lost, unseen)
			}
		})
	}
}

// The last resort keeps what can be read.
func TestStartingOverKeepsEveryRow(t *testing.T) {
	im := damageImage(t)
	dir := im.copy(t)
	r, err := startOver(dir, Options{}.withDefaults().Logger)
	if err != nil || r.rows == 0 {
		t.Fatal(r, err)
	}
	if lost, unseen, _ := im.after(t, dir); lost != 0 || unseen != 0 {
		t.Fatalf("lost %d, unseen %d", lost, unseen)
	}
}

// Everything in the small rows gone: the marks name the queue, and without them
// its batches are still there to be carried away.
func TestAQueueThatHasLostItsName(t *testing.T) {
	for _, marked := range []bool{true, false} {
		dir := t.TempDir()
		s := openTest(t, Options{Dir: dir})
		q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
		fill(t, s, q, 0, 20)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		eng, err := openBadger(dir, Options{}.withDefaults().Logger)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(eng.drop([][]byte{{keyMeta}}), eng.close()); err != nil {
			t.Fatal(err)
		}
		name := "bridge/a"
		if !marked {
			name = "lost+found/1"
			if err := os.Remove(filepath.Join(dir, marksName)); err != nil {
				t.Fatal(err)
			}
		}
		s = openTest(t, Options{Dir: dir})
		q, _ = s.Queue(name, QueueOptions{Ledger: true})
		if got := drain(t, q); len(got) != 20 || got[19] != "000019" {
			t.Fatalf("%s: %v", name, got)
		}
		for route, c := range q.Ledger() {
			if !c.Balanced() || c.Lost != 0 || marked && (route != "r" || c.Accepted != 20) {
				t.Fatalf("%s: %s %+v", name, route, c)
			}
		}
		s.Close()
	}
}

// A crash between a commit and the marks says nothing.
func TestOldMarksAreNoLoss(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	fill(t, s, q, 0, 10)
	gone, _ := s.Queue("bridge/gone", QueueOptions{Ledger: true})
	fill(t, s, gone, 0, 10)
	if err := s.marks.write(); err != nil {
		t.Fatal(err)
	}
	fill(t, s, q, 10, 20)
	if err := s.RemoveQueue("bridge/gone"); err != nil {
		t.Fatal(err)
	}
	if got := drain(t, q); len(got) != 20 {
		t.Fatal(got)
	}
	fill(t, s, q, 20, 21)
	s.Crash()
	s = openTest(t, Options{Dir: dir})
	if q, _ = s.Queue("bridge/a", QueueOptions{Ledger: true}); s.Stats().Lost != 0 || q.Len() > 21 {
		t.Fatalf("%+v, length %d", s.Stats(), q.Len())
	}
	if q, _ = s.Queue("bridge/gone", QueueOptions{Ledger: true}); q.Len() != 0 || len(q.Ledger()) != 0 {
		t.Fatal("a removed queue has come back")
	}
}

// What nobody reads is found nonetheless.
func TestTheBackgroundScanFindsDamage(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	fill(t, s, q, 0, 20)
	s.Close()
	damage(t, dir, 7, func(v []byte) []byte { v[3] ^= 1; return v })
	s = openTest(t, Options{Dir: dir, ScrubEvery: time.Millisecond})
	eventually(t, func() bool { return s.Stats().Lost == 1 })
	q, _ = s.Queue("bridge/a", QueueOptions{Ledger: true})
	if got := drain(t, q); len(got) != 19 {
		t.Fatal(got)
	}
}

func TestWhatIsSetAsideIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range asideFiles + 10 {
		name := fmt.Sprintf("%05d.mem", i)
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := setAside(dir, name); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, setAsideDir, name), 8<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := boundAside(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(dir, setAsideDir))
	if err != nil || len(left) != asideBytes/(8<<20) || left[len(left)-1].Name() != fmt.Sprintf("%05d.mem", asideFiles+9) {
		t.Fatal(len(left), err)
	}
}

// A folder that cannot be made or written is told from one that is damaged.
func TestAnUnwritableFolderSaysSo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: filepath.Join(file, "store")}); !errors.Is(err, ErrUnwritable) {
		t.Fatal(err)
	}
	if err := unwritable("x", "y", holdfast.ErrFull); !errors.Is(err, holdfast.ErrFull) {
		t.Fatal(err)
	}
}

// Whose the messages of a batch were that has gone nobody knows when they are
// missed, but when the others have come.
func TestALossIsCountedOnTheRouteThatHadIt(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	for _, route := range []string{"one", "one", "two", "two", "two"} {
		m := &holdfast.Message{Topic: "t", QoS: 1, Payload: []byte(route)}
		if err := publishNow(t, s, &holdfast.Publication{Msg: m}, Append{Queue: q, Route: route, Msg: m}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		damage(t, dir, 1, func([]byte) []byte { return nil })
	}
	s = openTest(t, Options{Dir: dir})
	q, _ = s.Queue("bridge/a", QueueOptions{Ledger: true})
	if n := len(drain(t, q)); n != 3 {
		t.Fatal(n)
	}
	for route, want := range map[string]holdfast.Counts{"one": {Accepted: 2, Lost: 2}, "two": {Accepted: 3, Delivered: 3}} {
		if c := q.Ledger()[route]; !c.Balanced() || c.Accepted != want.Accepted || c.Lost != want.Lost || c.Delivered != want.Delivered {
			t.Errorf("%s: %+v", route, c)
		}
	}
}

// A table in the place of another one of its level, which Badger refuses: nothing else
// has to be written anew for that, and what was in the other one is counted.
func TestATableInThePlaceOfAnotherIsTakenInAsItIs(t *testing.T) {
	t.Parallel()
	im := damageImage(t)
	b, err := os.ReadFile(filepath.Join(im.dir, "MANIFEST"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := readManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	displaced := 0
	for id, level := range m.tables {
		for other := range m.tables {
			if other == id || m.tables[other] != level || level == 0 || displaced > 1 {
				continue
			}
			displaced++
			dir := im.copy(t)
			b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%06d.sst", id)))
			if err = errors.Join(err, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%06d.sst", other)), b, 0o600)); err != nil {
				t.Fatal(err)
			}
			r, err := guard(dir, Options{}.withDefaults().Logger, deepBytes)
			if err != nil || !r.loss || r.rows > 0 || r.aside > 0 {
				t.Fatalf("%+v %v", r, err)
			}
			eng, err := openBadger(dir, Options{}.withDefaults().Logger)
			if err != nil {
				t.Fatal(err)
			}
			if err := eng.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if displaced == 0 {
		t.Fatal("there are no two tables of a level")
	}
}
