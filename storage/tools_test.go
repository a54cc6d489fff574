package storage

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"holdfast"
)

// A commit that fails while messages come back from a file or from quarantine:
// each is in one place afterwards, and the books say which.
func TestAFailedCommitLosesNothingThatComesBack(t *testing.T) {
	for _, applied := range []bool{false, true} {
		for n := range 20 {
			p := &plan{method: "commit", n: n, applied: applied}
			t.Run(fmt.Sprintf("commit %d applied %v", n, applied), func(t *testing.T) { comebacks(t, p) })
			if !p.hit {
				break
			}
		}
	}
}

func comebacks(t *testing.T, p *plan) {
	memory := &Memory{}
	open := func() (*Store, *Queue) {
		for {
			s, err := OpenMemory(Options{AckDelay: time.Millisecond, engine: func(*repairs) (engine, error) {
				return stub{memoryEngine{memory}, p}, nil
			}})
			if err == nil {
				q, err := s.Queue("bridge/a", QueueOptions{Ledger: true})
				if err != nil {
					t.Fatal(err)
				}
				return s, q
			}
			if !errors.Is(err, errStub) {
				t.Fatal(err)
			}
		}
	}
	s, q := open()
	// again does f until no commit fails in it.
	again := func(f func() error) {
		t.Helper()
		for {
			err := f()
			if err == nil {
				return
			}
			if !errors.Is(err, errStub) {
				t.Fatal(err)
			}
			eventually(t, func() bool { return s.Stats().Failed == nil })
		}
	}
	imported := func(payload string) {
		t.Helper()
		again(func() error {
			return q.Import([]Append{{Route: "r", Msg: &holdfast.Message{Topic: "t", QoS: 1, Payload: []byte(payload)}}})
		})
	}
	check := func(want holdfast.Counts, aside int) {
		t.Helper()
		c := q.Ledger()["r"]
		kept := 0
		again(func() error {
			kept = 0
			return q.Quarantined(func(Quarantined) bool { kept++; return true })
		})
		if fmt.Sprint(c) != fmt.Sprint(want) || kept != aside || q.aside != aside || q.Len() != int(c.Queued) {
			t.Fatalf("%+v, %d aside (%d), length %d\nwant %+v, %d aside", c, kept, q.aside, q.Len(), want, aside)
		}
	}
	for i := range 3 {
		imported(fmt.Sprint(i))
	}
	check(holdfast.Counts{Imported: 3, Queued: 3}, 0)
	var first holdfast.ItemID
	for i := range 2 {
		it, ok, err := q.TryNext()
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		q.Quarantine(it.ID, "refused")
		if i == 0 {
			first = it.ID
		}
	}
	imported("3")
	check(holdfast.Counts{Imported: 4, Queued: 2, Quarantined: map[string]uint64{"refused": 2}}, 2)
	again(func() error {
		_, err := q.Retry(first)
		if err != nil { // the row is to be there again when the store is
			eventually(t, func() bool { return s.Stats().Failed == nil })
			check(holdfast.Counts{Imported: 4, Queued: 2, Quarantined: map[string]uint64{"refused": 2}}, 2)
		}
		return err
	})
	check(holdfast.Counts{Imported: 4, Queued: 3, Quarantined: map[string]uint64{"refused": 1}}, 1)
	again(func() error {
		_, err := q.Discard()
		return err
	})
	end := holdfast.Counts{Imported: 4, Queued: 3, Dropped: map[string]uint64{"quarantined": 1}}
	check(end, 0)
	if err := s.Close(); err != nil && !errors.Is(err, errStub) {
		t.Fatal(err)
	}
	s, q = open()
	defer s.Close()
	check(end, 0)
	var got []string
	for range 3 {
		it, _, err := q.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(it.Msg.Payload))
	}
	if !slices.Equal(got, []string{"2", "3", "0"}) {
		t.Fatalf("%q", got)
	}
}

// A store of before: its routes have neither imported nor exported, and its
// quarantine no time.
func TestRowsOfVersion1AreRead(t *testing.T) {
	r := &route{name: "r", Counts: holdfast.Counts{Accepted: 7, Delivered: 3, Dropped: map[string]uint64{"full": 1}}}
	v := r.row(true)
	old := slices.Clone(v[:len(v)-6]) // without two zeros and the checksum
	old[0] = 1
	got, err := decodeRoute(seal(old))
	if err != nil || got.Accepted != 7 || got.Dropped["full"] != 1 || got.Imported != 0 || got.queued() != 3 {
		t.Fatalf("%+v %v", got, err)
	}
	key := quarantineKey(1, holdfast.High, 9)
	m := &holdfast.Message{Topic: "t", Payload: []byte("p"), QoS: 1}
	a, err := decodeAside(key, encodeMessage(m, "r", "refused"))
	if err != nil || a.Route != "r" || a.Reason != "refused" || !a.Since.IsZero() || string(a.Msg.Payload) != "p" || a.ID != holdfast.NewItemID(holdfast.High, 9) {
		t.Fatalf("%+v %v", a, err)
	}
}
