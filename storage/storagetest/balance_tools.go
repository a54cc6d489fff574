package storagetest

import (
	"fmt"
	"time"

	"holdfast"
	"holdfast/storage"
)

// tools does one of the things that people do by hand. All of them are on disk
// when they return, whatever happens then.
func (m *model) tools(q *storage.Queue) {
	switch m.rng.IntN(5) {
	case 0:
		m.export(q)
	case 1:
		m.purge(q)
	case 2:
		var list []storage.Append
		for range 1 + m.rng.IntN(20) {
			k, msg, payload := m.message()
			list = append(list, storage.Append{Lane: k.lane, Route: fmt.Sprint(m.n % 4), Msg: msg})
			m.queued[payload] = k
		}
		m.imported += uint64(len(list))
		m.b.must(q.Import(list))
	default:
		m.unquarantine(q)
	}
}

// inQueue reports whether k must be in the queue, and whether it may be.
func (k *known) inQueue() (must, may bool) { return !k.settled, !k.settled || k.mayBe }

func (m *model) export(q *storage.Queue) {
	b := m.b
	x, err := q.Export()
	b.must(err)
	defer x.End()
	seen := map[string]bool{}
	last := map[holdfast.Lane]int{}
	for _, s := range b.copyOut(x) {
		payload := string(s.Msg.Payload)
		k := m.queued[payload]
		if k == nil || k.out != 0 || seen[payload] {
			b.Fatalf("%s was exported: %+v", payload, k)
		}
		if _, may := k.inQueue(); !may || s.ID.Lane() != k.lane || k.id < last[k.lane] {
			b.Fatalf("%s was exported: %+v behind %d", payload, k, last[k.lane])
		}
		seen[payload], last[k.lane] = true, k.id
	}
	for payload, k := range m.queued {
		if must, _ := k.inQueue(); must && k.out == 0 && !seen[payload] {
			b.Fatalf("%s was not exported: %+v", payload, k)
		}
	}
	b.none(q)
	if m.rng.IntN(3) == 0 {
		return
	}
	n, err := x.Commit()
	b.must(err)
	if int(n) != len(seen) {
		b.Fatalf("%d of %d", n, len(seen))
	}
	m.exported += n
	for payload := range seen {
		delete(m.queued, payload)
	}
}

func (m *model) purge(q *storage.Queue) {
	b := m.b
	p, err := q.Purge(b.Context(), time.Time{})
	b.must(err)
	m.purged += p.Dropped
	left := map[string]bool{}
	for _, payload := range b.peek(q, holdfast.AllLanes) {
		left[payload] = true
	}
	var kept uint64
	for payload, k := range m.queued {
		switch {
		case k.out != 0 && !k.settled:
		case left[payload]:
			if _, may := k.inQueue(); !may {
				b.Fatalf("%s is queued: %+v", payload, k)
			}
			k.settled, k.mayBe = false, false
			kept++
		case !k.settled || k.mayBe && k.out == 0:
			delete(m.queued, payload)
		}
	}
	if kept != p.Left {
		b.Fatalf("%d are left, should be %+v", kept, p)
	}
}

func (m *model) unquarantine(q *storage.Queue) {
	b := m.b
	list := b.aside(q)
	if len(list) == 0 {
		return
	}
	a := list[m.rng.IntN(len(list))]
	payload := string(a.Msg.Payload)
	if k := m.queued[payload]; k != nil && !k.settled {
		b.Fatalf("%s is queued and in quarantine: %+v", payload, k)
	}
	delete(m.queued, payload)
	if m.rng.IntN(3) == 0 {
		m.discarded++
		_, err := q.Discard(a.ID)
		b.must(err)
		return
	}
	m.order++
	m.queued[payload] = &known{id: m.order, lane: a.ID.Lane()}
	_, err := q.Retry(a.ID)
	b.must(err)
}
