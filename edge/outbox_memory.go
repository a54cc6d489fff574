package edge

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"
)

// memoryOutbox is the Outbox of a clean session: it lives and ends with its
// connection.
type memoryOutbox struct {
	max     int            // bytes
	expired *atomic.Uint64 // counts what lived no longer; may be nil

	mu    sync.Mutex
	queue []queued                   // not handed out, oldest first; guarded by mu
	taken map[holdfast.ItemID]queued // handed out, not acknowledged; guarded by mu
	bytes int                        // of both; guarded by mu
	last  uint64                     // position of the newest; guarded by mu
	ready func()                     // guarded by mu
}

type queued struct {
	item holdfast.Item
	size int // what it counts for against the bound
}

func newMemoryOutbox(maxBytes int) *memoryOutbox {
	return &memoryOutbox{max: maxBytes, taken: make(map[holdfast.ItemID]queued)}
}

// push queues a message. It reports false, and queues nothing, if the bound
// would be met: the client does not keep up. A message that the broker holds
// anyway (a retained one) is pushed with kept set and does not count.
func (b *memoryOutbox) push(m *holdfast.Message, kept bool) bool {
	size := m.Size()
	if kept {
		size = 0
	}
	b.mu.Lock()
	if b.bytes > 0 && b.bytes+size > b.max {
		b.mu.Unlock()
		return false
	}
	b.last++
	b.bytes += size
	b.queue = append(b.queue, queued{holdfast.Item{ID: holdfast.NewItemID(holdfast.Normal, b.last), Msg: m}, size})
	ready := b.ready
	b.mu.Unlock()
	if ready != nil {
		ready()
	}
	return true
}

func (b *memoryOutbox) TryNext() (holdfast.Item, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) > 0 {
		q := b.queue[0]
		b.queue[0] = queued{} // the array must not keep the message alive
		b.queue = b.queue[1:]
		if m, ok := left(q.item.Msg); ok {
			b.taken[q.item.ID] = q
			it := q.item
			it.Msg = m
			return it, true, nil
		}
		b.bytes -= q.size
		if b.expired != nil {
			b.expired.Add(1)
		}
	}
	return holdfast.Item{}, false, nil
}

// left is m with what is left of its Message Expiry Interval now; ok is false if
// nothing is [MQTT-3.3.2-5] [MQTT-3.3.2-6].
func left(m *holdfast.Message) (out *holdfast.Message, ok bool) {
	if m.Properties == nil || !m.Properties.HasExpiry {
		return m, true
	}
	now := time.Now()
	if out, ok = m.After(now.Sub(m.Received)); ok && out != m {
		out.Received = now // for whoever counts on
	}
	return out, ok
}

func (b *memoryOutbox) Ack(id holdfast.ItemID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes -= b.taken[id].size
	delete(b.taken, id)
}

func (b *memoryOutbox) Release(ids ...holdfast.ItemID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var back []queued
	for _, id := range ids {
		if q, ok := b.taken[id]; ok {
			q.item.Again = true
			back = append(back, q)
			delete(b.taken, id)
		}
	}
	slices.SortFunc(back, func(x, y queued) int { return int(x.item.ID) - int(y.item.ID) })
	b.queue = append(back, b.queue...)
}

func (b *memoryOutbox) Notify(ready func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready = ready
}

func (b *memoryOutbox) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue) + len(b.taken)
}
