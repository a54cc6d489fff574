package storage

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"holdfast"
)

// flush commits everything that is waiting.
func (s *Store) flush(idle bool) {
	if s.lookAtDisk() == spaceNone {
		// Not one page of a file may be touched: what is left is for tables.
		// Everyone who waits goes on waiting.
		return
	}
	s.gather()
	s.makeRoom()
	s.sweep(idle)

	s.mu.Lock()
	if s.crashed {
		s.mu.Unlock()
		return
	}
	if !s.cur.empty() && s.ageIsOldLocked() {
		s.noteAgeLocked()
	}
	txns := s.sealed
	s.sealed = nil
	if !s.cur.empty() {
		s.sealLocked(s.cur)
		txns = append(txns, s.cur)
		s.cur = &txn{}
	}
	s.urgent, s.lazy = false, false
	s.mu.Unlock()

	s.lastMessages = 0
	for i, t := range txns {
		s.pulse.beat()
		s.lastMessages += t.messages
		if err := s.commit(t); err != nil {
			s.fail(err, txns[i:])
			return
		}
	}
}

// gather waits a moment for those who were just answered and are about to come
// again. Without it publishers fall into two groups that take turns, each
// commit carries half of them, and with few of them every second commit carries
// one message. It costs at most a fifth of the last commit's time, and a
// millisecond.
func (s *Store) gather() {
	if s.lastMessages < 2 {
		return
	}
	until := time.Now().Add(min(s.lastCommit/5, time.Millisecond))
	// Who waits already was not among those who were answered.
	want := s.waiting() + s.lastMessages
	for s.waiting() < want && time.Now().Before(until) {
		runtime.Gosched()
	}
}

// waiting is the number of messages that the next commit would carry.
func (s *Store) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.cur.messages
	for _, t := range s.sealed {
		n += t.messages
	}
	return n
}

// commit makes t durable and tells everyone who waits for it.
func (s *Store) commit(t *txn) error {
	start := time.Now()
	if s.o.BeforeSync != nil {
		if err := s.o.BeforeSync(); err != nil {
			return err
		}
	}
	if len(t.ops) > 0 {
		// A crash before the end of commit leaves nothing of t, one behind it
		// all of t: nobody was told of it in either case.
		if err := s.eng.commit(t.ops); err != nil {
			return err
		}
	}
	s.lastCommit = time.Since(start)
	if err := s.marks.take(t.ops); err != nil {
		s.o.Logger.Warn("storage: the marks beside the store were not written", "error", err)
	}

	var wakes []func()
	s.mu.Lock()
	s.pending -= t.pending
	s.stats.Commits++
	s.stats.Messages += uint64(t.messages)
	for _, b := range t.batches {
		l := b.lane
		l.committed = b.first + b.count
		wakes = l.q.wakeLocked(wakes)
		s.trimLocked(l)
		if cap(b.body) <= 2*batchBytes && len(s.free) < 16 {
			s.free = append(s.free, b.body[:0])
		}
	}
	for _, m := range t.lows {
		m.lane.durableLow = max(m.lane.durableLow, m.low)
	}
	s.mu.Unlock()
	for _, done := range t.dones {
		done(nil)
	}
	for _, f := range wakes {
		f()
	}
	return nil
}

// refusalLocked says why nothing can be taken now, or nil.
func (s *Store) refusalLocked() error {
	switch {
	case s.closed || s.crashed:
		return fmt.Errorf("storage: %w", holdfast.ErrClosed)
	case s.failed != nil:
		return s.failed
	}
	return nil
}

// errDown: the engine is being reopened.
var errDown = errors.New("storage: the store is being reopened")

// read runs f with the engine, which stays open meanwhile.
func (s *Store) read(f func(engine) error) error {
	s.engMu.RLock()
	defer s.engMu.RUnlock()
	if s.eng == nil {
		return errDown
	}
	return f(s.eng)
}
