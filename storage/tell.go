package storage

import "sync"

// teller is the goroutine that calls the done of what went without the disk.
// It is none of those who acknowledge, which hold locks of their own, and not
// the committer, which may hang in a sync of a dying card.
type teller struct {
	wake chan struct{} // one token
	stop chan struct{}
	done sync.WaitGroup
	// told are those to be called. Guarded by Store.mu.
	told []func(error)
}

func (s *Store) startTeller() {
	t := &s.teller
	t.wake, t.stop = make(chan struct{}, 1), make(chan struct{})
	if s.o.Sync == Always {
		return
	}
	t.done.Go(func() {
		for {
			select {
			case <-t.wake:
				s.tell()
			case <-t.stop:
				s.tell()
				return
			}
		}
	})
}

// stopTeller is called when nothing is added any more.
func (s *Store) stopTeller() {
	close(s.teller.stop)
	s.teller.done.Wait()
}

func (s *Store) tellLocked(done func(error)) {
	s.teller.told = append(s.teller.told, done)
	select {
	case s.teller.wake <- struct{}{}:
	default:
	}
}

func (s *Store) tell() {
	s.mu.Lock()
	told := s.teller.told
	s.teller.told = nil
	if s.crashed {
		told = nil // kill -9 tells nobody
	}
	s.mu.Unlock()
	for _, done := range told {
		done(nil)
	}
}
