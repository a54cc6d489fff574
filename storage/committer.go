package storage

import "time"

// wakeCommitter must be called after there is something new for it to look at.
func (s *Store) wakeCommitter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// urgentLocked asks for a commit within CommitInterval, lazyLocked for one soon.
func (s *Store) urgentLocked() {
	if !s.urgent {
		s.urgent, s.urgentSince = true, time.Now()
		s.wakeCommitter()
	} else if s.o.CommitInterval > 0 && s.pending >= s.o.MaxPending/2 {
		s.wakeCommitter()
	}
}

func (s *Store) lazyLocked() {
	if !s.lazy {
		s.lazy = true
		s.wakeCommitter()
	}
}

// run is the committer: it owns the engine's writes, and calls every done.
func (s *Store) run() {
	defer close(s.stopped)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.pulse.beat()
		now := time.Now()
		s.mu.Lock()
		closed, crashed := s.closed, s.crashed
		due, at := s.dueLocked(now)
		s.mu.Unlock()
		select {
		case <-s.faults.met:
			due = s.mend
		default:
		}
		switch {
		case crashed:
			return
		case closed:
			s.finish()
			return
		case due != nil:
			due()
			continue
		}
		timer.Stop()
		var alarm <-chan time.Time
		if !at.IsZero() {
			timer.Reset(at.Sub(now))
			alarm = timer.C
		}
		select {
		case <-s.wake:
		case <-alarm:
		case <-s.faults.met:
			s.mend()
		}
	}
}

// dueLocked is what the committer has to do at now; if there is nothing, at is
// when there will be, or zero.
func (s *Store) dueLocked(now time.Time) (due func(), at time.Time) {
	soonest := func(t time.Time) {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	if !s.disk.again.IsZero() {
		if now.Before(s.disk.again) {
			soonest(s.disk.again)
		} else {
			return func() { s.lookAtDisk() }, at
		}
	}
	if s.disk.level == spaceNone {
		return nil, at // no commit until there is space
	}
	if s.expireAt.IsZero() {
		if every := s.expireEveryLocked(); every > 0 {
			s.expireAt = now.Add(every)
		}
	}
	if !s.expireAt.IsZero() {
		if !now.Before(s.expireAt) {
			return s.expire, at
		}
		soonest(s.expireAt)
	}
	// Before what is urgent, which may never end.
	if due = s.waitsDueLocked(now, soonest); due != nil {
		return due, at
	}
	if s.urgent {
		t := s.urgentSince
		if s.pending < s.o.MaxPending/2 {
			t = t.Add(s.o.CommitInterval)
		}
		if !now.Before(t) {
			return s.work, at
		}
		soonest(t)
	}
	if s.idleAt.IsZero() && (s.lazy || len(s.passed)+len(s.removedIDs) > 0) {
		s.idleAt = now.Add(s.o.AckDelay)
	}
	if !s.idleAt.IsZero() {
		if !now.Before(s.idleAt) {
			return s.rest, at
		}
		soonest(s.idleAt)
	}
	return nil, at
}

// work commits what someone waits for.
func (s *Store) work() {
	s.flush(false)
	if s.dropDue() {
		s.giveBack()
	}
}

// dropDue reports whether passed chunks are to be dropped although there is
// other work: seldom, but sooner where the space is needed.
func (s *Store) dropDue() bool {
	every := s.o.DropEvery
	s.mu.Lock()
	if s.disk.level > spaceOK {
		every = min(every, time.Second)
	}
	s.mu.Unlock()
	return time.Since(s.lastDrop) >= every
}

// rest commits what nobody waits for, and gives space back if it is quiet.
func (s *Store) rest() {
	s.mu.Lock()
	s.idleAt = time.Time{}
	s.mu.Unlock()
	s.flush(true)
	s.mu.Lock()
	idle := s.activity == s.seen
	s.seen = s.activity
	s.mu.Unlock()
	if idle || s.dropDue() {
		s.giveBack()
	}
}

// finish is the last work of the committer.
func (s *Store) finish() {
	s.mu.Lock()
	failed := s.failed
	s.mu.Unlock()
	switch {
	case s.lookAtDisk() == spaceNone:
		s.giveUp(errSpace)
	case failed == nil:
		s.mu.Lock()
		if s.expireEveryLocked() > 0 {
			s.noteAgeLocked()
		}
		s.spillLocked()
		s.keepBooksLocked()
		s.writeRetainedLocked()
		s.mu.Unlock()
		s.flush(true)
		s.giveBack()
		s.mu.Lock()
		if s.failed == nil {
			s.endLifeLocked()
		}
		s.mu.Unlock()
		s.flush(true)
	case s.closing == nil && s.reopen() == nil && s.resume():
		s.flush(true)
	}
	s.giveUpAll()
	s.mu.Lock()
	s.closeErr = s.failed
	s.mu.Unlock()
}

// giveUp tells everyone who waits that nobody can promise anything.
func (s *Store) giveUp(err error) {
	s.mu.Lock()
	var dones []func(error)
	for _, t := range append(s.sealed, s.cur) {
		dones = append(dones, t.dones...)
	}
	s.sealed, s.cur = nil, &txn{}
	s.failed = err
	s.mu.Unlock()
	for _, done := range dones {
		done(err)
	}
}
