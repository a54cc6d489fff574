package storage

import (
	"sync"
	"time"
)

// teller is the goroutine that calls the done of what went without the disk, and
// gives up what waited too long for that.
// It is none of those who acknowledge, which hold locks of their own, and not
// the committer, which may hang in a sync of a dying card.
type teller struct {
	wake chan struct{} // one token
	stop chan struct{}
	done sync.WaitGroup
	// told are those to be called, armed says that the time when the next
	// publication is given up is known. Guarded by Store.mu.
	told  []told
	armed bool
}

type told struct {
	done func(error)
	err  error
}

func (s *Store) startTeller() {
	t := &s.teller
	t.wake, t.stop = make(chan struct{}, 1), make(chan struct{})
	t.done.Go(func() {
		timer := time.NewTimer(time.Hour)
		defer timer.Stop()
		for {
			select {
			case <-t.wake:
			case <-timer.C:
				s.mu.Lock()
				t.armed = false
				s.mu.Unlock()
			case <-t.stop:
				s.tell()
				return
			}
			if wait, ok := s.giveUpDue(); ok {
				timer.Reset(wait)
			}
			s.tell()
		}
	})
}

// stopTeller is called when nothing is added any more.
func (s *Store) stopTeller() {
	close(s.teller.stop)
	s.teller.done.Wait()
}

func (s *Store) tellLocked(done func(error), err error) {
	if done != nil {
		s.teller.told = append(s.teller.told, told{done, err})
		s.teller.poke()
	}
}

func (t *teller) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (s *Store) tell() {
	s.mu.Lock()
	list := s.teller.told
	s.teller.told = nil
	if s.crashed {
		list = nil // kill -9 tells nobody
	}
	s.mu.Unlock()
	for _, t := range list {
		t.done(t.err)
	}
}
