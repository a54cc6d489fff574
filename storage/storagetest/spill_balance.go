package storagetest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"holdfast"
	"holdfast/storage"
)

// spillBalance does random things over several lives, with both modes.
func spillBalance(b *bench) {
	rng, rounds := b.chance(2)
	m := &spillModel{bench: b, rng: rng, all: map[string]*sent{}}
	for range rounds {
		m.round()
	}
	b.start(storage.Options{})
	q := b.queue("bridge/a", storage.QueueOptions{Ledger: true})
	for q.Len() > 0 {
		it, ok, err := q.TryNext()
		b.must(err)
		if !ok {
			b.Fatalf("%d are queued and none is handed out", q.Len())
		}
		m.all[string(it.Msg.Payload)].settled = true
		q.Ack(it.ID)
	}
	b.books(q)
	for payload, x := range m.all {
		if x.promised && !x.settled {
			b.Fatalf("%s was promised, and never came", payload)
		}
	}
}

type sent struct {
	n                 int
	lane              holdfast.Lane
	done              chan error
	out               holdfast.ItemID
	promised, settled bool
}

type spillModel struct {
	*bench
	rng *rand.Rand
	n   int
	all map[string]*sent
}

func (m *spillModel) round() {
	rng := m.rng
	o := storage.Options{TailBytes: 2000 + rng.IntN(20000), ChunkBytes: 2000 + rng.IntN(20000), DropEvery: time.Millisecond, MaxRanges: 2 + rng.IntN(50)}
	if rng.IntN(4) > 0 {
		o.Sync = storage.Spill
	}
	o.SpillAfter = []time.Duration{time.Millisecond, 20 * time.Millisecond, never}[rng.IntN(3)]
	o.MaxPending = 20000 + rng.IntN(200000)
	m.start(o)
	q := m.reader("bridge/a")
	var out []*sent
	newest := [holdfast.LaneCount]int{}
	for range 50 + rng.IntN(500) {
		switch rng.IntN(20) {
		case 0, 1, 2, 3, 4, 5, 6:
			m.n++
			qos := byte(1)
			if rng.IntN(20) == 0 {
				qos = 2
			}
			x := &sent{n: m.n, lane: holdfast.Lane(rng.IntN(holdfast.LaneCount)), done: make(chan error, 1)}
			mm := msg("t", qos, fmt.Sprint(m.n))
			mm.Origin = string(make([]byte, rng.IntN(300)))
			err := m.s.Publish(&holdfast.Publication{Msg: mm}, []storage.Append{{Queue: q, Lane: x.lane, Route: fmt.Sprint(m.n % 3), Msg: mm}}, func(err error) { x.done <- err })
			if err == nil { // else the pending bytes are at their bound
				m.all[string(mm.Payload)] = x
			}
		case 7, 8, 9, 10, 11, 12:
			it, ok, err := q.TryNext()
			m.must(err)
			if !ok {
				continue
			}
			x := m.all[string(it.Msg.Payload)]
			if x.out != 0 {
				m.Fatalf("%s was handed out twice", it.Msg.Payload)
			}
			if !it.Again && x.n < newest[x.lane] {
				m.Fatalf("%d behind %d", x.n, newest[x.lane])
			}
			newest[x.lane] = max(newest[x.lane], x.n)
			x.out = it.ID
			out = append(out, x)
		case 13:
			if rng.IntN(5) == 0 {
				q.Notify(nil)
				q.Notify(func() {})
			}
			m.collect()
			m.books(q)
		default:
			if len(out) == 0 {
				continue
			}
			i := rng.IntN(min(3, len(out)))
			x := out[i]
			out = append(out[:i], out[i+1:]...)
			switch rng.IntN(30) {
			case 0:
				q.Release(x.out)
				x.out = 0
				continue
			case 1:
				q.Quarantine(x.out, "bad")
			case 2:
				q.Drop(x.out, "expired")
			default:
				q.Ack(x.out)
			}
			x.settled, x.out = true, 0
		}
	}
	m.books(q)
	if rng.IntN(3) > 0 {
		m.s.Crash()
	} else {
		m.must(m.s.Close())
	}
	m.collect()
	for _, x := range m.all {
		x.out = 0
	}
}

func (m *spillModel) collect() {
	for _, x := range m.all {
		select {
		case err := <-x.done:
			m.must(err)
			x.promised = true
		default:
		}
	}
}
