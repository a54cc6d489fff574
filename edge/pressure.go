package edge

import (
	"sync"
	"sync/atomic"
)

// pressure counts the bytes that were accepted from clients and are not safe
// yet. Readers wait at the bound, which is how a slow disk slows publishers
// down instead of filling the memory.
type pressure struct {
	max     int64
	n       atomic.Int64
	waiting atomic.Int32

	mu   sync.Mutex
	cond *sync.Cond
}

func (p *pressure) init(max int64) {
	p.max = max
	p.cond = sync.NewCond(&p.mu)
}

func (p *pressure) add(n int) { p.n.Add(int64(n)) }

func (p *pressure) sub(n int) {
	if p.n.Add(-int64(n)) < p.max && p.waiting.Load() > 0 {
		p.wake()
	}
}

// wake makes every waiter look again: at the count, and whether it was closed.
func (p *pressure) wake() {
	p.mu.Lock()
	p.cond.Broadcast()
	p.mu.Unlock()
}

// wait returns when there is room or stop reports true, and tells whether that
// took any time.
func (p *pressure) wait(stop func() bool) (waited bool) {
	if p.n.Load() < p.max {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// The count is read again after waiting was raised: sub either sees the
	// waiter or is seen here.
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	for p.n.Load() >= p.max && !stop() {
		p.cond.Wait()
	}
	return true
}
