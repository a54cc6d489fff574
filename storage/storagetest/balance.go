package storagetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"holdfast"
	"holdfast/storage"
)

// balance does random things to one queue and to a naive oracle, with crashes
// and reopenings between them.
func balance(b *bench) {
	rng, rounds := b.chance(1)
	m := &model{b: b, rng: rng, queued: map[string]*known{}}
	for range rounds {
		m.round()
	}
	m.drain()
}

// chance is what random trials go by, and how many there are. HOLDFAST_SEED repeats
// those of a run; each kind of trial has a stream of its own.
func (b *bench) chance(stream uint64) (rng *rand.Rand, rounds int) {
	seed := uint64(time.Now().UnixNano())
	if env := os.Getenv("HOLDFAST_SEED"); env != "" {
		n, err := strconv.ParseUint(env, 10, 64)
		b.must(err)
		seed = n
	}
	b.Logf("HOLDFAST_SEED=%d", seed)
	if rounds = 30; testing.Short() {
		rounds = 8
	}
	return rand.New(rand.NewPCG(seed, stream)), rounds
}

// known is one message as the oracle sees it.
type known struct {
	id      int // grows with the order in which the lane has to give them
	lane    holdfast.Lane
	out     holdfast.ItemID // 0: not handed out in this life
	settled bool            // acknowledged, quarantined or dropped
	mayBe   bool            // that was in a life that ended with a crash: it may be back
}

type model struct {
	b      *bench
	rng    *rand.Rand
	n      int // messages
	order  int
	mark   int // the order at the last Mark
	queued map[string]*known

	imported, exported, purged, discarded uint64
}

func (m *model) round() {
	b, rng := m.b, m.rng
	o := storage.Options{TailBytes: 2000 + rng.IntN(20000), ChunkBytes: 2000 + rng.IntN(20000), DropEvery: time.Millisecond, MaxRanges: 2 + rng.IntN(50)}
	if rng.IntN(2) == 0 {
		o.AckDelay = time.Hour
	}
	b.start(o)
	q := b.queue("bridge/m", storage.QueueOptions{Ledger: true})
	for _, k := range m.queued {
		k.out = 0
	}
	var last chan error
	for range 50 + rng.IntN(400) {
		switch rng.IntN(30) {
		case 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13:
			k, msg, payload := m.message()
			done := make(chan error, 1)
			b.must(b.s.Publish(&holdfast.Publication{Msg: msg}, []storage.Append{{Queue: q, Lane: k.lane, Route: fmt.Sprint(m.n % 3), Msg: msg}}, func(err error) { done <- err }))
			last = done
			m.queued[payload] = k
		case 14:
			if last != nil {
				b.must(<-last)
				last = nil
			}
			m.tools(q)
		case 15, 16, 17, 18, 19, 20, 21, 22:
			it, ok, err := q.TryNext()
			b.must(err)
			if !ok {
				continue
			}
			k := m.queued[string(it.Msg.Payload)]
			if k == nil || k.out != 0 || k.settled && !k.mayBe {
				b.Fatalf("%q was handed out: %+v", it.Msg.Payload, k)
			}
			for _, other := range m.queued {
				if other.lane == k.lane && other.id < k.id && other.out == 0 && !other.settled {
					b.Fatalf("%d before %d", k.id, other.id)
				}
			}
			k.out, k.settled, k.mayBe = it.ID, false, false
		case 23:
			if rng.IntN(10) == 0 {
				q.Mark()
				m.mark = m.order
			}
			it, ok, err := q.PollFresh(holdfast.AllLanes)
			b.must(err)
			if !ok {
				continue
			}
			k := m.queued[string(it.Msg.Payload)]
			if k == nil || k.out != 0 || k.settled || k.id <= m.mark {
				b.Fatalf("%q was handed out ahead: %+v, the mark is at %d", it.Msg.Payload, k, m.mark)
			}
			k.out = it.ID
		default:
			k := m.someOut()
			if k == nil {
				continue
			}
			switch rng.IntN(6) {
			case 0:
				q.Release(k.out)
				k.out = 0
				continue
			case 1:
				q.Quarantine(k.out, "bad")
			case 2:
				q.Drop(k.out, "expired")
			default:
				q.Ack(k.out)
			}
			k.settled = true
		}
	}
	if last != nil {
		b.must(<-last)
	}
	m.check(q)
	if rng.IntN(2) == 0 {
		b.s.Crash()
		for _, k := range m.queued {
			k.mayBe = k.settled
		}
		return
	}
	b.must(b.s.Close())
	for payload, k := range m.queued {
		if k.settled && !k.mayBe {
			delete(m.queued, payload)
		}
	}
}

// drain takes everything out: what was not settled for good comes once.
func (m *model) drain() {
	b := m.b
	b.start(storage.Options{MaxRanges: 2})
	q := b.queue("bridge/m", storage.QueueOptions{Ledger: true})
	for _, k := range m.queued {
		k.out = 0
	}
	for q.Len() > 0 {
		it, ok, err := q.TryNext()
		b.must(err)
		if !ok {
			b.Fatalf("%d are queued and none is handed out", q.Len())
		}
		payload := string(it.Msg.Payload)
		if m.queued[payload] == nil {
			b.Fatalf("%s was settled, or comes twice", payload)
		}
		delete(m.queued, payload)
		q.Ack(it.ID)
	}
	for payload, k := range m.queued {
		if !k.settled {
			b.Fatalf("%s never came", payload)
		}
	}
	m.queued = nil
	m.check(q)
}

// message makes a new message and what the oracle knows of it.
func (m *model) message() (k *known, message *holdfast.Message, payload string) {
	m.n++
	m.order++
	payload = fmt.Sprint(m.n)
	message = msg("t", byte(m.rng.IntN(3)), payload)
	message.Origin = string(make([]byte, m.rng.IntN(300)))
	return &known{id: m.order, lane: holdfast.Lane(m.rng.IntN(holdfast.LaneCount))}, message, payload
}

func (m *model) someOut() *known {
	var ids []*known
	for _, k := range m.queued {
		if k.out != 0 && !k.settled {
			ids = append(ids, k)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	slices.SortFunc(ids, func(a, b *known) int { return a.id - b.id })
	return ids[m.rng.IntN(len(ids))]
}

func (m *model) check(q *storage.Queue) {
	var c holdfast.Counts
	for route, r := range q.Ledger() {
		if !r.Balanced() {
			m.b.Fatalf("route %s: %+v", route, r)
		}
		c.Add(r)
	}
	if c.Taken() != uint64(m.n) || int(c.Queued) != q.Len() || c.Lost != 0 {
		m.b.Fatalf("%+v of %d, length %d", c, m.n, q.Len())
	}
	if c.Imported != m.imported || c.Exported != m.exported || c.Dropped["purged"] != m.purged || c.Dropped["quarantined"] != m.discarded {
		m.b.Fatalf("%+v, should be: imported %d, exported %d, purged %d, discarded %d", c, m.imported, m.exported, m.purged, m.discarded)
	}
	// What was settled in a life that ended with a crash may be back.
	least, most := 0, 0
	for _, k := range m.queued {
		if !k.settled {
			least++
			most++
		} else if k.mayBe {
			most++
		}
	}
	if n := q.Len(); n < least || n > most {
		m.b.Fatalf("length %d, should be %d to %d", n, least, most)
	}
}
