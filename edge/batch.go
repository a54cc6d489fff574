package edge

import (
	"sync"
	"sync/atomic"
)

// batch is what a reader has handled of one read: whoever has got something by it is
// written to at its end, many packets in one write.
type batch struct {
	open atomic.Bool // changed by the reader, false only with mu

	mu      sync.Mutex
	touched []*conn // guarded by mu
}

// add reports whether the end of the batch will flush c.
func (b *batch) add(c *conn) bool {
	if !b.open.Load() {
		return false
	}
	if c.owed.Swap(true) {
		return true // another batch will, or this one
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open.Load() {
		c.owed.Store(false)
		return false
	}
	b.touched = append(b.touched, c)
	return true
}

// wakeAfter is wake at the end of what the reader of by handles now. by is nil for
// what no client has published.
func (c *conn) wakeAfter(by *conn) {
	c.dirty.Store(true)
	if by == nil || by == c || !by.batch.add(c) {
		c.wake()
	}
}

// beginBatch and endBatch are for the connection's reader. It must end the batch
// before it waits for anything.
func (c *conn) beginBatch() { c.batch.open.Store(true) }

func (c *conn) endBatch() {
	b := &c.batch
	if !b.open.Load() {
		return
	}
	b.mu.Lock()
	b.open.Store(false)
	touched := b.touched
	b.touched = nil
	b.mu.Unlock()
	few := len(touched) <= flushedByReader
	for i, other := range touched {
		touched[i] = nil
		other.owed.Store(false)
		if few {
			other.flush()
		} else {
			other.wake()
		}
	}
	if cap(touched) <= keptTouched {
		b.touched = touched[:0] // nobody adds before the next begins
	}
	c.flush()
}

// flushedByReader is to how many others a reader writes itself. More of them have
// their writers do it, which come to it later and have more in one write by then.
const flushedByReader = 4

// keptTouched is how many places are kept for the next batch.
const keptTouched = 64
