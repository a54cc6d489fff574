package storage

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"holdfast"
	"holdfast/storage/storagetest/badcard"
)

// cardStore is a store with one queue on a card that fails.
type cardStore struct {
	*badcard.Card
	t   *testing.T
	dir string
	s   *Store
	q   *Queue
	n   int // messages that were promised
}

func newCardStore(t *testing.T) *cardStore {
	t.Helper()
	c := &cardStore{Card: badcard.Insert(t), t: t}
	c.dir = filepath.Join(c.Dir, "store")
	c.open()
	return c
}

func (c *cardStore) open() {
	c.t.Helper()
	c.s = openTest(c.t, Options{Dir: c.dir, TailBytes: 32 << 10})
	c.q, _ = c.s.Queue("bridge/a", QueueOptions{Ledger: true})
}

// add publishes messages of 400 kB, which must be promised.
func (c *cardStore) add(n int) {
	c.t.Helper()
	for range n {
		if err := c.publish(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// close closes the store, and looks whether all of its files are as they should be.
func (c *cardStore) close() {
	c.t.Helper()
	if err := c.s.Close(); err != nil {
		c.t.Fatal(err)
	}
	x, err := examine(c.dir, -1, nil)
	if err != nil || len(x.findings) > 0 {
		c.t.Fatalf("%v %+v", err, x.findings)
	}
}

// table has a message in a table of its own.
func (c *cardStore) table() {
	c.t.Helper()
	c.add(1)
	c.close()
	c.open()
}

func (c *cardStore) publish() error {
	c.t.Helper()
	m := &holdfast.Message{Topic: "t", QoS: 1, Payload: fmt.Appendf(nil, "%08d%s", c.n, strings.Repeat("x", 400000))}
	err := publishNow(c.t, c.s, &holdfast.Publication{Msg: m}, Append{Queue: c.q, Route: "r", Msg: m})
	if err == nil {
		c.n++
	}
	return err
}

// merged reports whether a merge has taken the tables of level 0 down.
func (c *cardStore) merged() bool {
	levels := c.s.eng.(*badgerEngine).db.Levels()
	deep := 0
	for _, l := range levels[1:] {
		deep += l.NumTables
	}
	return levels[0].NumTables < 2 && deep > 0
}

// complete looks whether everything is there after a restart.
func (c *cardStore) complete() {
	c.t.Helper()
	c.close()
	c.open()
	got := drain(c.t, c.q)
	if books := c.q.Ledger()["r"]; len(got) != c.n || books.Lost != 0 || !books.Balanced() {
		c.t.Fatalf("%d of %d, %+v", len(got), c.n, books)
	}
	for i, p := range got {
		if p[:8] != fmt.Sprintf("%08d", i) {
			c.t.Fatalf("%s in the place of %d", p[:8], i)
		}
	}
}

// back waits until the store has come back.
func (c *cardStore) back() {
	c.t.Helper()
	eventually(c.t, func() bool { st := c.s.Stats(); return st.Reopened > 0 && st.Failed == nil })
}

// Some file systems give no space beforehand: there files have holes.
func TestAStoreWorksWhereNoSpaceCanBeTakenBeforehand(t *testing.T) {
	needCorrections(t)
	t.Parallel()
	c := newCardStore(t)
	if err := c.s.Close(); err != nil {
		t.Fatal(err)
	}
	c.Fail(badcard.Fault{Ops: []badcard.Op{badcard.Allocate}, Errno: syscall.EOPNOTSUPP})
	c.open()
	c.add(3)
	c.complete()
	if c.Hits() == 0 {
		t.Error("nothing has asked for space")
	}
}

// A change of the MANIFEST that cannot be written, or only the half of it, is
// written by the next try, and nothing of it is left.
func TestAChangeOfTheManifestThatFailsIsTakenBack(t *testing.T) {
	needCorrections(t)
	for _, c := range []struct {
		name  string
		fault badcard.Fault
	}{
		{"a flush without space", badcard.Fault{Ops: []badcard.Op{badcard.Write}, Errno: syscall.ENOSPC, Half: true, Times: 2}},
		// Its change is longer.
		{"a merge without space", badcard.Fault{Ops: []badcard.Op{badcard.Write}, Errno: syscall.ENOSPC, Half: true, Times: 2, Longer: 20}},
		{"a sync fails", badcard.Fault{Ops: []badcard.Op{badcard.Sync}, Errno: syscall.EIO, Times: 1}},
		{"a sync fails, and that of taking it back", badcard.Fault{Ops: []badcard.Op{badcard.Sync}, Errno: syscall.EIO, Times: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // they wait for Badger, which waits for a second after each failure
			fault := c.fault
			fault.File = "MANIFEST"
			c := newCardStore(t)
			c.Fail(fault)
			for c.Hits() < fault.Times {
				c.table()
			}
			c.table()
			c.table()
			eventually(t, c.merged)
			c.complete()
		})
	}
}

// After 10,000 removals of tables the MANIFEST is written anew. If that fails the
// one that is there goes on, and has all changes.
func TestAManifestThatCannotBeWrittenAnewGoesOn(t *testing.T) {
	needCorrections(t)
	for _, op := range []badcard.Op{badcard.Write, badcard.Rename} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			c := newCardStore(t)
			c.table()
			deletions := manifestDeletions(t, c.s)
			*deletions = 20000
			c.Fail(badcard.Fault{File: "MANIFEST-REWRITE", Ops: []badcard.Op{op}, Errno: syscall.ENOSPC})
			c.table()
			eventually(t, c.merged)
			if c.Hits() == 0 || *deletions < 20000 {
				t.Fatalf("failed %d times, %d removals", c.Hits(), *deletions)
			}
			// The next one that can be written is.
			c.Fail()
			deletions = manifestDeletions(t, c.s)
			*deletions = 20000
			c.table()
			if *deletions >= 20000 {
				t.Fatalf("%d removals", *deletions)
			}
			c.complete()
		})
	}
}

// manifestDeletions is where Badger counts removals of tables: no test makes
// 10,000 of them.
func manifestDeletions(t *testing.T, s *Store) *int {
	t.Helper()
	field := reflect.ValueOf(s.eng.(*badgerEngine).db).Elem().FieldByName("manifest")
	if !field.IsValid() {
		t.Fatal("Badger has its MANIFEST elsewhere now")
	}
	count := field.Elem().FieldByName("manifest").FieldByName("Deletions")
	return (*int)(unsafe.Pointer(count.UnsafeAddr()))
}
