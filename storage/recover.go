package storage

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// fail ends everything that is waiting, and then tries to get the store back.
// Nothing is acknowledged until the engine was closed, which flushes its
// memtables, and opened again: after one failed sync later ones may succeed
// over a hole.
func (s *Store) fail(err error, txns []*txn) {
	s.mu.Lock()
	s.stats.Failures++
	s.mu.Unlock()
	s.halt(fmt.Errorf("storage: the commit failed, and nothing is acknowledged until the store was reopened: %w", err), txns)
}

// mend reopens the store because a part of it cannot be read, which sets that
// aside. What waits is committed before.
func (s *Store) mend() {
	s.mu.Lock()
	before := s.stats.Failures
	s.mu.Unlock()
	s.flush(false)
	s.mu.Lock()
	reopened := s.stats.Failures != before
	s.mu.Unlock()
	if !reopened {
		s.halt(fmt.Errorf("%w: the store is reopened without it", errFault), nil)
	}
}

// halt ends everything that waits with err, and gets the store back.
func (s *Store) halt(err error, txns []*txn) {
	s.o.Logger.Error("storage: nothing is taken until the store was reopened", "error", err)
	var dones []func(error)
	var wakes []func()
	s.mu.Lock()
	s.failed = err
	s.watchLocked()
	all := append(append(slices.Clone(txns), s.sealed...), s.cur)
	s.sealed, s.cur = nil, &txn{}
	dones = s.undoLocked(all)
	s.mu.Unlock()
	for _, done := range dones {
		done(err)
	}
	for _, f := range wakes {
		f()
	}
	s.recover()
}

// undoLocked takes back what transactions had that were not committed, the first
// of which the engine may have seen, and keeps their progress for the next one.
// It returns whom to tell.
func (s *Store) undoLocked(all []*txn) (dones []func(error)) {
	for i, t := range all {
		dones = append(dones, t.dones...)
		s.pending -= t.pending
		for _, b := range t.batches {
			b.lane.open = nil
			b.lane.voidLocked(b.first, b.first+b.count)
			if i == 0 { // the only one that the engine has seen
				s.addLocked(op{key: batchKey(b.lane.q.id, b.lane.id, b.chunk, b.first), own: true})
			}
		}
		for _, o := range t.ops {
			if o.own {
				s.addLocked(o)
			}
			if i == 0 && o.value != nil && isInboundKey(o.key) {
				// Its client sends the message again, which must not count as one
				// that is stored.
				s.addLocked(op{key: o.key, own: true})
			}
		}
	}
	for _, t := range all {
		for _, q := range t.touched {
			q.touched = nil
			q.unsavedLocked()
			s.touchLocked(q, 0)
		}
	}
	return dones
}

// recover closes and opens the engine until it takes a commit again.
func (s *Store) recover() {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 30*time.Second) {
		if s.reopen() == nil && s.resume() {
			return
		}
		s.mu.Lock()
		stop := s.closed || s.crashed
		s.mu.Unlock()
		if stop {
			s.wakeCommitter()
			return
		}
		timer := time.NewTimer(wait)
		for waiting := true; waiting; {
			select {
			case <-timer.C:
				waiting = false
			case <-s.wake:
				s.mu.Lock()
				stop := s.closed || s.crashed
				s.mu.Unlock()
				if stop {
					timer.Stop()
					s.wakeCommitter()
					return
				}
			}
		}
	}
}

// reopen replaces the engine; readers wait meanwhile.
func (s *Store) reopen() error {
	if s.closing == nil && s.eng != nil && s.pillow != nil {
		need, err := s.pillow.toClose()
		if err == nil {
			err = s.pillow.makeWay(need + newStoreBytes)
		}
		if err != nil {
			return err
		}
	}
	// A close that fails may leave rows in the log only; the opening replays them
	// into a table, or does without: nobody was told.
	if err := s.closeEngine(closeWait); errors.Is(err, errClosing) {
		s.o.Logger.Error("storage: reopen", "error", err)
		return err
	} else if err != nil {
		s.o.Logger.Warn("storage: close after a failed commit", "error", err)
	}
	s.engMu.Lock()
	defer s.engMu.Unlock()
	mended := repairs{faults: s.faults}
	eng, err := s.o.engine(&mended)
	s.mu.Lock()
	s.stats.SetAside += uint64(mended.aside)
	s.stats.Salvaged += uint64(mended.rows)
	if mended.loss {
		// What is small is in memory too, and written anew.
		for _, q := range s.byID {
			q.unsavedLocked()
			s.touchLocked(q, 0)
		}
	}
	s.mu.Unlock()
	if err != nil {
		s.o.Logger.Error("storage: reopen", "error", err)
		return err
	}
	s.eng = eng
	return nil
}

// closeWait bounds how long a close is waited for at once. Badger tries for ever
// to write its memtables, and a card that has died never takes them.
const closeWait = 5 * time.Second

var errClosing = errors.New("storage: the disk does not take what is in memory, and the store cannot be closed")

// closeEngine closes the engine, or goes on waiting for that: until it has
// happened nobody may open the folder anew. It is called by the committer, and
// when that has ended.
func (s *Store) closeEngine(most time.Duration) error {
	s.engMu.Lock()
	if eng := s.eng; eng != nil {
		s.eng = nil
		closing := make(chan error, 1)
		s.closing = closing
		go func() { closing <- eng.close() }() // ends with the process if the disk never comes back
	}
	s.engMu.Unlock()
	if s.closing == nil {
		return nil
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case err := <-s.closing:
		s.closing = nil
		return err
	case <-timer.C:
		return errClosing
	}
}

// resume writes the progress that the failed commits had, takes back the rows
// of messages that nobody was promised, and lets everyone in again.
func (s *Store) resume() bool {
	s.mu.Lock()
	txns := s.sealed
	s.sealed = nil
	s.sealLocked(s.cur)
	txns = append(txns, s.cur)
	s.cur = &txn{}
	s.urgent, s.lazy = false, false
	s.mu.Unlock()
	for i, t := range txns {
		if err := s.commit(t); err != nil {
			s.mu.Lock()
			// Nothing but own progress is in these, so that it is collected anew.
			rest := append(append(slices.Clone(txns[i:]), s.sealed...), s.cur)
			s.sealed, s.cur = nil, &txn{}
			dones := s.undoLocked(rest)
			s.mu.Unlock()
			for _, done := range dones {
				done(err)
			}
			s.o.Logger.Error("storage: commit after reopening", "error", err)
			return false
		}
	}
	var wakes []func()
	s.mu.Lock()
	s.failed = nil
	s.keepBooksLocked()
	s.spillLocked() // what came meanwhile
	s.lazyLocked()
	s.stats.Reopened++
	for _, q := range s.byID {
		wakes = q.wakeLocked(wakes)
	}
	s.mu.Unlock()
	s.o.Logger.Info("storage: reopened after a failed commit")
	for _, f := range wakes {
		f()
	}
	return true
}
