package storage

import (
	"bytes"
	"reflect"
	"testing"

	"holdfast"
)

func FuzzBatch(f *testing.F) {
	q := &Queue{s: &Store{age: storeAge{clock: newSystemClock()}, cur: &txn{}, o: Options{ChunkBytes: 1 << 20, TailBytes: 1 << 20}, tails: map[*lane]struct{}{}}}
	l := newLane(q, 0)
	for i := range 3 {
		l.appendLocked(uint32(i), &newItem{msg: &holdfast.Message{Topic: "a/b", Payload: []byte("payload"), Properties: &holdfast.Properties{
			HasExpiry: true, Expiry: 7, User: []holdfast.UserProperty{{Name: "n", Value: "v"}}}}, qos: byte(i), retain: i == 1})
	}
	b := q.s.cur.batches[0]
	f.Add(appendTrailer(b.body, &b.trailer))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, v []byte) {
		tr, records, sum, err := decodeTrailer(v)
		if err != nil {
			return
		}
		entries, err := decodeRecords(tr, records, sum)
		if err == nil && uint64(len(entries)) != tr.count {
			t.Fatal("count")
		}
	})
}

// FuzzRecord goes around the checksums.
func FuzzRecord(f *testing.F) {
	f.Add(appendMessage(nil, &holdfast.Message{Topic: "a", Payload: []byte("p"), Properties: &holdfast.Properties{ContentType: "c", User: []holdfast.UserProperty{{Name: "n"}}}}, 1, true))
	f.Add(appendMessage(nil, &holdfast.Message{Topic: "a", Properties: &holdfast.Properties{SubscriptionIDs: []uint32{1, 128}}}, 1, true))
	f.Fuzz(func(t *testing.T, v []byte) {
		d := decoder{b: v}
		m := d.message("a")
		if (m == nil) != d.bad {
			t.Fatal("a message and bad")
		}
		if d.bad {
			return
		}
		b := appendMessage(nil, m, m.QoS, m.Retain)
		if len(b) > messageBound(m) {
			t.Fatalf("%d bytes, bound %d", len(b), messageBound(m))
		}
		d = decoder{b: b}
		again := d.message("")
		if d.bad || len(d.b) != 0 || !reflect.DeepEqual(m, again) || !bytes.Equal(b, appendMessage(nil, again, again.QoS, again.Retain)) {
			t.Fatalf("got %+v, want %+v", again, m)
		}
	})
}

func TestRangeSet(t *testing.T) {
	var s rangeSet
	have := map[uint64]bool{}
	mark := uint64(1)
	x := uint32(1)
	for range 20000 {
		x = x*1664525 + 1013904223
		from := mark + uint64(x>>16)%60
		to := from + uint64(x>>8)%4
		fresh := uint64(0)
		for p := from; p < to; p++ {
			if !have[p] {
				fresh++
				have[p] = true
			}
		}
		if n := s.add(from, to); n != fresh {
			t.Fatalf("%d new, want %d", n, fresh)
		}
		for p := mark; p < mark+70; p++ {
			if s.has(p) != have[p] {
				t.Fatalf("%d: %v", p, s.r)
			}
		}
		if m := s.takeBelow(mark); m != mark {
			for ; mark < m; mark++ {
				if !have[mark] {
					t.Fatal("mark too far")
				}
			}
		}
		d := decoder{b: s.appendTo(nil, mark)}
		if got := d.ranges(mark); d.bad || len(got.r) != len(s.r) || got.count() != s.count() {
			t.Fatalf("%v, want %v", got, s)
		}
	}
}
