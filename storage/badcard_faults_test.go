package storage

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"holdfast"
	"holdfast/storage/storagetest/badcard"
)

// sector is a part of each table that the card cannot read from now on; at is where
// it is, in hundredths of the table.
func (c *cardStore) sector(at int64) (faults []badcard.Fault) {
	c.t.Helper()
	names, _ := filepath.Glob(filepath.Join(c.dir, "*.sst"))
	if len(names) == 0 {
		c.t.Fatal("there is no table")
	}
	for _, name := range names {
		from := size(c.t, name) * at / 100 &^ 4095
		faults = append(faults, badcard.Fault{File: filepath.Base(name), Ops: []badcard.Op{badcard.Read}, Errno: syscall.EIO, From: from, To: from + 4096})
	}
	return faults
}

// A sector that the card cannot read costs the messages in its blocks, whoever
// meets it and wherever it is: they are counted, and all others are there.
func TestASectorThatCannotBeReadCostsItsBlock(t *testing.T) {
	needCorrections(t)
	start := func(c *cardStore) {}
	for _, x := range []struct {
		name string
		at   int64
		open bool // the store is open when the sector goes
		meet func(c *cardStore)
	}{
		{"in the first block, at the start", 0, false, start},
		{"in the middle, at the start", 50, false, start},
		{"in the index, at the start", 100, false, start},
		{"in the middle, met by a reader", 50, true, func(c *cardStore) {
			eventually(c.t, func() bool { _, _, _ = c.q.TryNext(); return c.s.Stats().Reopened > 0 })
		}},
		{"in the middle, met by a merge", 50, true, func(c *cardStore) {
			for c.s.Stats().Reopened == 0 {
				if err := c.publish(); err != nil && c.s.Stats().Failed == nil && c.s.Stats().Reopened == 0 {
					c.t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			c := newCardStore(t)
			c.add(4)
			if err := c.s.Close(); err != nil { // everything is in tables then
				t.Fatal(err)
			}
			if !x.open {
				c.Fail(c.sector(x.at)...)
			}
			c.open()
			if x.open {
				eventually(t, func() bool { return c.s.eng.(*badgerEngine).db.Levels()[0].NumTables < 2 })
				c.Fail(c.sector(x.at)...)
				x.meet(c)
				c.back()
			}
			if c.s.Stats().SetAside == 0 || c.Hits() == 0 {
				t.Errorf("%d files were set aside, %d reads have failed", c.s.Stats().SetAside, c.Hits())
			}
			// The messages that a reader has taken are the only ones out.
			if err := c.s.Close(); err != nil {
				t.Fatal(err)
			}
			c.open()
			var got []string
			eventually(t, func() bool { got = append(got, drain(t, c.q)...); return c.q.Len() == 0 })
			books := c.q.Ledger()["r"]
			if !books.Balanced() || int(books.Accepted) != c.n || int(books.Lost)+len(got) != c.n || books.Lost > 2 || x.at < 100 && books.Lost == 0 {
				t.Errorf("%d of %d are there, %+v", len(got), c.n, books)
			}
			for i := 1; i < len(got); i++ {
				if got[i][:8] <= got[i-1][:8] || len(got[i]) != 400008 {
					t.Fatalf("%s behind %s", got[i][:8], got[i-1][:8])
				}
			}
		})
	}
}

// Whatever the card answers while the gateway runs, it runs on: nothing is promised
// but what its reader has acknowledged, and the store comes back with the card.
func TestACardThatFailsIsSurvived(t *testing.T) {
	needCorrections(t)
	everything := append(badcard.ReadOnly().Ops, badcard.Read)
	for name, fault := range map[string]badcard.Fault{
		"it turns read-only":            badcard.ReadOnly(),
		"it answers nothing":            {Ops: everything, Errno: syscall.EIO},
		"no page of a log is to be had": {File: "*.mem", Ops: []badcard.Op{badcard.Read}, Errno: syscall.EIO},
		"no log can be synced":          {File: "*.mem", Ops: []badcard.Op{badcard.Sync}, Errno: syscall.EIO},
		"no table can be made":          {File: "*.sst", Ops: []badcard.Op{badcard.Create}, Errno: syscall.EIO},
		"no table can be written":       {File: "*.sst", Ops: []badcard.Op{badcard.Read}, Errno: syscall.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCardStore(t)
			c.add(3)
			c.Fail(fault)
			for c.publish() == nil {
			}
			m := &holdfast.Message{Topic: "t", QoS: 1, Payload: fmt.Appendf(nil, "%08d", c.n)}
			done := make(chan error, 1)
			if err := c.s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: c.q, Route: "r", Msg: m}}, func(err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				t.Errorf("promised (%v), and nobody has it", err)
			default:
			}
			c.Fail()
			c.back()
			if err := <-done; err != nil {
				t.Errorf("the store is back: %v", err)
			}
			c.n++
			c.complete()
		})
	}
}
