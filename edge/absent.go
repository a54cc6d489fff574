package edge

import (
	"time"

	"holdfast"
)

// What is to happen to clients that are away: a session ends when its Session
// Expiry Interval has passed [MQTT-3.1.2-23], a will is published when its delay
// has, or with the end of the session [MQTT-3.1.3-9], and retained messages go
// when they have expired. One goroutine sees to all of it.

// retainedSweep is how often expired retained messages are looked for. Nobody
// gets one that has expired; this is for the memory and the disk.
const retainedSweep = time.Minute

// setExpiry takes the Session Expiry Interval of a DISCONNECT; false if it may
// not be set.
func (s *session) setExpiry(seconds uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expiry == 0 && seconds != 0 {
		return false
	}
	s.expiryUnsaved = s.expiryUnsaved || s.expiry != seconds
	s.expiry = seconds
	return true
}

func (s *session) expires() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expiry
}

func (s *session) expiryIsUnsaved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expiryUnsaved
}

// leaveLocked begins the absence of a durable session whose connection has
// ended. It returns the will if that is to be published now. Server.mu is held.
func (s *Server) leaveLocked(ss *session, will *holdfast.Will, by *author) *holdfast.Will {
	expiry := ss.expires()
	if expiry == 0 {
		s.endLocked(ss)
		return will
	}
	now := time.Now()
	if expiry != holdfast.NeverExpires {
		ss.endsAt = now.Add(time.Duration(expiry) * time.Second)
	}
	if will != nil && will.Delay > 0 {
		ss.delayWill(will, by, now, 0)
		will = nil
	}
	if !ss.endsAt.IsZero() || ss.will != nil || ss.expiryIsUnsaved() {
		s.saveDetachedLocked(ss)
	}
	s.wakeAbsent()
	return will
}

// delayWill has the will published when its delay has passed, of which waited
// is over, or with the end of the session. Server.mu is held.
func (s *session) delayWill(will *holdfast.Will, by *author, now time.Time, waited time.Duration) {
	s.will, s.willBy, s.willAt = will.Msg, by, now.Add(time.Duration(will.Delay)*time.Second-waited)
	if !s.endsAt.IsZero() && s.endsAt.Before(s.willAt) {
		s.willAt = s.endsAt
	}
}

// saveDetachedLocked stores that nobody is connected. A crash before it is on
// disk lets the absence begin with the next start: the session stays too long
// rather than too short.
func (s *Server) saveDetachedLocked(ss *session) {
	ss.savedDetached = true
	ss.mu.Lock()
	state := ss.stateLocked()
	ss.expiryUnsaved = false
	ss.mu.Unlock()
	state.Detached = true
	s.opts.Store.Change(&holdfast.SessionChange{ClientID: ss.clientID, Save: state}, func(err error) {
		if err != nil {
			s.log.Warn("when a client left was not stored: after a restart its session lives longer", "client_id", ss.clientID, "error", err)
		}
	})
}

// endLocked ends a durable session that nobody is connected to, its queue
// included. Should the disk refuse, the next start ends it.
func (s *Server) endLocked(ss *session) {
	s.router.forget(ss)
	ss.endInbound()
	delete(s.sessions, ss.clientID)
	s.opts.Store.Change(&holdfast.SessionChange{ClientID: ss.clientID, Reset: true}, func(err error) {
		if err != nil {
			s.log.Warn("the end of a session was not stored", "client_id", ss.clientID, "error", err)
		}
	})
}

// returnLocked ends the absence of a session that is taken up again. stale
// tells that there was a will, which is not to be published any more.
func (s *session) returnLocked() (stale bool) {
	stale = s.will != nil
	s.will, s.willBy, s.willAt, s.endsAt = nil, nil, time.Time{}, time.Time{}
	return stale
}

func (s *Server) wakeAbsent() {
	select {
	case s.absentWake <- struct{}{}:
	default:
	}
}

// watchAbsent does what is due until Shutdown.
func (s *Server) watchAbsent() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	swept := time.Now()
	for {
		select {
		case <-s.quit:
			return
		case <-s.absentWake:
		case <-timer.C:
		}
		now := time.Now()
		if now.Sub(swept) >= retainedSweep {
			s.retained.dropExpired(now, s.opts.Store)
			swept = now
		}
		next := swept.Add(retainedSweep)
		s.mu.Lock()
		if at := s.doDueLocked(now); !at.IsZero() && at.Before(next) {
			next = at
		}
		s.mu.Unlock()
		timer.Reset(time.Until(next))
	}
}

// doDueLocked publishes the wills and ends the sessions whose time has come, and
// returns when the next is due; zero if none is.
func (s *Server) doDueLocked(now time.Time) (next time.Time) {
	soonest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if s.closed {
		return next
	}
	for id, ss := range s.sessions {
		if ss.attached() {
			continue
		}
		if ss.will != nil && !now.Before(ss.willAt) {
			s.publishWill(id, ss.will, ss.willBy)
			ss.will, ss.willBy, ss.willAt = nil, nil, time.Time{}
		}
		if !ss.endsAt.IsZero() && !now.Before(ss.endsAt) {
			s.log.Info("session expired", "client_id", id)
			s.endLocked(ss)
			continue
		}
		soonest(ss.willAt)
		soonest(ss.endsAt)
	}
	return next
}
