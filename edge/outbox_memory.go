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
	over  bool                       // the session has ended; guarded by mu
}

type queued struct {
	item holdfast.Item
	size int // what it counts for against the bound
	// ended, if not nil, is told once whether it was acknowledged, or the outbox
	// ended before; it is called without the lock.
	ended func(delivered bool)
}

func newMemoryOutbox(maxBytes int) *memoryOutbox {
	return &memoryOutbox{max: maxBytes, taken: make(map[holdfast.ItemID]queued)}
}

// push queues a message. It reports false, and queues nothing, if the bound
// would be met: the client does not keep up. A message that the broker holds
// anyway (a retained one) is pushed with kept set and does not count.
func (b *memoryOutbox) push(m *holdfast.Message, kept bool) bool {
	ok, ready := b.add(m, kept, nil)
	if ready != nil {
		ready()
	}
	return ok
}

// pushFor is push for a message that someone keeps until ended is called, which
// happens exactly once if it returns true.
func (b *memoryOutbox) pushFor(m *holdfast.Message, ended func(delivered bool)) bool {
	ok, ready := b.add(m, false, ended)
	if ready != nil {
		ready()
	}
	return ok
}

// add is push, or pushFor, without telling that there is something: ready does that.
func (b *memoryOutbox) add(m *holdfast.Message, kept bool, ended func(bool)) (ok bool, ready func()) {
	size := m.Size()
	if kept {
		size = 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over || b.bytes > 0 && b.bytes+size > b.max {
		return false, nil
	}
	b.last++
	b.bytes += size
	it := holdfast.Item{ID: holdfast.NewItemID(holdfast.Normal, b.last), Msg: m}
	b.queue = append(b.queue, queued{it, size, ended})
	return true, b.ready
}

// size is how many bytes are not acknowledged.
func (b *memoryOutbox) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

func (b *memoryOutbox) TryNext() (holdfast.Item, bool, error) {
	var gone []func(bool)
	defer func() {
		for _, ended := range gone {
			ended(true) // there is nothing more to be done with it
		}
	}()
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
		if q.ended != nil {
			gone = append(gone, q.ended)
		}
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
	q := b.taken[id]
	b.bytes -= q.size
	delete(b.taken, id)
	b.mu.Unlock()
	if q.ended != nil {
		q.ended(true)
	}
}

// end gives back what others keep. A QoS 2 message that was sent is not for
// anyone else, whether its subscriber has it or not (MQTT 5, 4.8.2).
func (b *memoryOutbox) end() {
	b.mu.Lock()
	b.over = true
	var back, done []func(bool)
	for _, q := range b.queue {
		if q.ended != nil {
			back = append(back, q.ended)
		}
	}
	for _, q := range b.taken {
		switch {
		case q.ended == nil:
		case q.item.Msg.QoS == 2:
			done = append(done, q.ended)
		default:
			back = append(back, q.ended)
		}
	}
	b.queue, b.taken = nil, make(map[holdfast.ItemID]queued)
	b.mu.Unlock()
	for _, ended := range done {
		ended(true)
	}
	for _, ended := range back {
		ended(false)
	}
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
