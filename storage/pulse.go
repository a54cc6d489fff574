package storage

import (
	"context"
	"sync"
)

// pulse is how others learn that the committer comes round. It has a lock of
// its own: the store's may be what the committer waits for.
type pulse struct {
	mu    sync.Mutex
	asked []chan struct{} // closed at the next beat; guarded by mu
}

// beat answers everyone who has asked.
func (p *pulse) beat() {
	p.mu.Lock()
	asked := p.asked
	p.asked = nil
	p.mu.Unlock()
	for _, c := range asked {
		close(c)
	}
}

func (p *pulse) ask() <-chan struct{} {
	c := make(chan struct{})
	p.mu.Lock()
	p.asked = append(p.asked, c)
	p.mu.Unlock()
	return c
}

// Alive returns nil when the committer has answered, and the error of ctx if it
// has not until then. It answers at once while it waits, and between two
// transactions while it works: a sync under way is waited for. A store that is
// closed is alive. Each call that ends with an error is remembered until the
// next answer, so callers must not repeat it without bound.
func (s *Store) Alive(ctx context.Context) error {
	answer := s.pulse.ask()
	s.wakeCommitter()
	select {
	case <-answer:
	case <-s.stopped:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
