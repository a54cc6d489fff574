package storage

import (
	"fmt"
	"testing"

	"holdfast"
)

// openLife opens a store over memory for one more life.
func openLife(t *testing.T, memory *Memory, suspect bool) (*Store, *Queue) {
	t.Helper()
	s, err := OpenMemory(Options{Sync: Spill, engine: func(r *repairs) (engine, error) {
		r.loss = suspect
		return memoryEngine{memory}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	q, err := s.Queue("bridge/a", QueueOptions{Ledger: true})
	if err != nil {
		t.Fatal(err)
	}
	return s, q
}

// After damage that took the row which says that positions were in use, they
// must not be used again all the same.
func TestALostRowOfLivesIsNotACleanStop(t *testing.T) {
	for _, suspect := range []bool{false, true} {
		memory := &Memory{}
		s, q := openLife(t, memory, false)
		fill(t, s, q, 0, 3)
		s.Crash()
		if err := (memoryEngine{memory}).commit([]op{{key: []byte{keyLives}}}); err != nil {
			t.Fatal(err)
		}
		s, q = openLife(t, memory, suspect)
		fill(t, s, q, 3, 4)
		var last holdfast.ItemID
		for range 4 {
			it, ok, err := q.TryNext()
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			last = it.ID
		}
		if skipped := last.Position() >= lifePositions; skipped != suspect {
			t.Errorf("after damage %v: the first new position is %d", suspect, last.Position())
		}
		s.Crash()
	}
}

// The positions between two lives are no lost messages, whatever is lost of the
// rows that say so.
func TestADamagedProgressRowCostsNoMoreThanThereWas(t *testing.T) {
	for _, ledger := range []bool{true, false} {
		memory := &Memory{}
		s, q := openLife(t, memory, false)
		fill(t, s, q, 0, 5)
		s.Crash()
		s, q = openLife(t, memory, false)
		fill(t, s, q, 5, 10)
		s.Crash()
		ops := []op{{key: laneKey(q.id, holdfast.Normal), value: []byte("damaged")}}
		if !ledger {
			for id := range q.routes {
				ops = append(ops, op{key: routeKey(q.id, uint32(id))})
			}
		}
		if err := (memoryEngine{memory}).commit(ops); err != nil {
			t.Fatal(err)
		}
		s, q = openLife(t, memory, false)
		if st := s.Stats(); st.Lost != 0 || st.Unreadable != 1 {
			t.Errorf("with the ledger %v: %d lost, %d rows unreadable", ledger, st.Lost, st.Unreadable)
		}
		got := drain(t, q)
		want := []string{}
		for i := range 10 {
			want = append(want, fmt.Sprintf("%06d", i))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("with the ledger %v: got %v", ledger, got)
		}
		for name, c := range q.Ledger() {
			if !c.Balanced() || c.Lost != 0 {
				t.Errorf("with the ledger %v: route %q: %+v", ledger, name, c)
			}
		}
		s.Crash()
	}
}

// What a crash makes the opening skip was not acknowledged.
func TestSkippedPositionsAreNotTakenForAcknowledgedOnes(t *testing.T) {
	for _, acked := range []uint64{0, 3, 5} { // nothing, the middle, the last
		memory := &Memory{}
		s, q := openLife(t, memory, false)
		fill(t, s, q, 0, 5)
		for range 5 {
			it, ok, err := q.TryNext()
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			if it.ID.Position() == acked {
				q.Ack(it.ID)
			}
		}
		other, err := s.Queue("bridge/b", QueueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		fill(t, s, other, 0, 1) // and the acknowledgement with it
		s.Crash()
		want := uint64(0)
		if acked > 0 {
			want = acked + 1
		}
		for life := range 6 {
			s, q = openLife(t, memory, false)
			if _, settled := q.Mark(); settled[holdfast.Normal] != want {
				t.Errorf("with %d acknowledged, in life %d: settled up to %d, want %d", acked, life, settled[holdfast.Normal], want)
			}
			switch life {
			case 2:
				fill(t, s, q, 5, 6)
			case 4:
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			s.Crash()
		}
	}
}

// The first rows of progress do not say what was acknowledged ahead.
func TestTheFirstRowsOfProgressAreRead(t *testing.T) {
	_, q := openLife(t, &Memory{}, false)
	l := q.lanes[holdfast.Normal]
	for _, c := range []struct {
		row   []byte
		ahead uint64
	}{
		{[]byte{firstLaneVersion, 7, 20, 3, 100, 0, 3, 1, 2, 4}, 9},
		{[]byte{firstLaneVersion, 7, 20, 3, 100, 0, 3, 0}, 0},
		{[]byte{laneVersion, 7, 20, 3, 100, 0, 3, 6, 1, 2, 4}, 6},
	} {
		seq, err := l.restore(seal(c.row))
		if err != nil || seq != 7 || l.next != 20 || l.low != 3 || l.ahead != c.ahead {
			t.Errorf("%v: %v, transaction %d, next %d, low %d, ahead %d", c.row, err, seq, l.next, l.low, l.ahead)
		}
	}
}
