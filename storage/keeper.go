package storage

import (
	"sync"
	"time"
)

// keeper is the one goroutine beside the committer: it writes the marks, and
// reads through everything that is stored while nothing else happens, so that
// damage is found while what is around it can still be saved.
type keeper struct {
	stop chan struct{}
	done sync.WaitGroup
}

const (
	// scrubEvery is the time between two batches that are read, scrubRound the
	// shortest one between the beginnings of two rounds.
	scrubEvery = 2 * time.Second
	scrubRound = 24 * time.Hour
)

// startKeeper begins to keep a store on disk.
func (s *Store) startKeeper() {
	s.keeper.stop = make(chan struct{})
	if s.marks.path == "" {
		return
	}
	s.keeper.done.Go(func() {
		marks, tick := time.NewTicker(marksEvery), time.NewTicker(s.o.ScrubEvery)
		defer marks.Stop()
		defer tick.Stop()
		var sc scrub
		for {
			select {
			case <-s.keeper.stop:
				return
			case <-marks.C:
				if err := s.marks.write(); err != nil {
					s.o.Logger.Warn("storage: the marks beside the store were not written", "error", err)
				}
			case <-tick.C:
				s.scrubStep(&sc)
			}
		}
	})
}

func (s *Store) stopKeeper() {
	close(s.keeper.stop)
	s.keeper.done.Wait()
}

// scrub is where the background reading is.
type scrub struct {
	began time.Time
	queue uint32 // the queue that is being read, and where
	lane  int
	pos   uint64
	seen  uint64 // the activity of the store at the last step
}

// scrubStep looks at a few batches if nothing else has happened since the last
// step. What cannot be read is counted as lost at once, as a reader would.
func (s *Store) scrubStep(c *scrub) {
	s.mu.Lock()
	idle := s.activity == c.seen && s.failed == nil && !s.closed && !s.crashed
	c.seen = s.activity
	var q *Queue
	if idle && (c.queue > 0 || time.Since(c.began) >= scrubRound) {
		if c.queue == 0 {
			c.began, c.lane, c.pos = time.Now(), 0, 0
		}
		q = s.scrubQueueLocked(c)
	}
	if q == nil {
		s.mu.Unlock()
		return
	}
	l := q.lanes[c.lane]
	pos := l.settled.after(max(c.pos, l.low))
	limit, chunk := l.committed, l.chunkOfLocked(pos)
	s.mu.Unlock()
	if pos >= limit {
		c.pos = 0
		if c.lane++; c.lane == len(q.lanes) {
			c.queue, c.lane = q.id+1, 0
		}
		return
	}
	var f found
	err := s.read(func(eng engine) (err error) {
		f, err = readBatches(eng, q.id, l, chunk, pos, limit)
		return err
	})
	if err != nil {
		return // a reader will say so
	}
	c.pos = max(f.end, pos+1)
	if len(f.lost) == 0 {
		return
	}
	s.mu.Lock()
	var wakes []func()
	if !q.removed && !s.closed && !s.crashed {
		s.loseFoundLocked(l, f.lost)
		wakes = q.wakeLocked(nil)
	}
	s.mu.Unlock()
	for _, f := range wakes {
		f()
	}
}

// scrubQueueLocked is the next queue to be read; nil ends the round.
func (s *Store) scrubQueueLocked(c *scrub) (q *Queue) {
	for id, other := range s.byID {
		if id >= c.queue && (q == nil || id < q.id) {
			q = other
		}
	}
	if q == nil {
		c.queue = 0
		return nil
	}
	if q.id != c.queue {
		c.queue, c.lane, c.pos = q.id, 0, 0
	}
	return q
}
