package storage

import (
	"errors"
	"time"

	"holdfast"
)

// Where nothing can be written - the store is in memory for want of a disk, or
// its commits fail - the gateway goes on with what needs no disk: QoS 0, and
// QoS 1 that is acknowledged when all who are to get it have acknowledged it, as
// in spill mode, but never written. What they have not acknowledged in time is
// not acknowledged at all: its publisher is told so, and sends it again.

// errUnsafe is what a done gets then.
var errUnsafe = errors.New("storage: there is no disk to keep it on, and not everyone who is to get it has acknowledged it in time")

// unsafeLocked reports whether nothing can be made safe by writing it now.
func (s *Store) unsafeLocked() bool { return s.o.Volatile || s.failed != nil }

// afloatLocked decides whether a publication that was admitted waits for those
// who are to get it; nil if it waits for the disk.
func (s *Store) afloatLocked(p *holdfast.Publication, appends []Append, total int, done func(error)) *afloat {
	u := &afloat{done: done, bytes: total, since: time.Now()}
	switch {
	case s.o.Volatile:
		if p.Msg.QoS == 0 || len(appends)+len(p.Sessions) == 0 && !p.Msg.Retain && p.Inbound == nil {
			return nil // as good as on disk
		}
		u.never = !needsNoDisk(p, appends)
	case s.failed != nil:
		if u.free = p.Msg.QoS == 0; u.free {
			u.done = nil
		}
	case !s.mayWaitLocked(p, appends):
		return nil
	}
	u.places = make([]place, 0, len(p.Sessions)+len(appends))
	return u
}

// floatsLocked decides whether there is room for total bytes more of what waits
// where nothing can be written. It is less than what may wait for a disk, so that
// QoS 0 goes on when a dead link lets the rest wait.
func (s *Store) floatsLocked(total int) error {
	if w := &s.waits; w.bytes > 0 && w.bytes+total > s.o.MaxPending/2 {
		return errPending
	}
	return nil
}

// trackLocked has u wait for the end of the message that was just appended.
func (l *lane) trackLocked(u *afloat, route uint32) {
	e := &l.tail[len(l.tail)-1]
	u.places = append(u.places, place{of: u, lane: l, pos: e.pos, size: e.size, route: route, written: true})
	e.place = &u.places[len(u.places)-1]
	if l.afloat == nil {
		l.afloat = map[uint64]*place{}
	}
	l.afloat[e.pos] = e.place
	u.open++
}

// watchLocked has the teller look after what may have to be given up.
func (s *Store) watchLocked() {
	if s.waits.first != nil && s.unsafeLocked() && !s.teller.armed {
		s.teller.poke()
	}
}

// giveUpDue gives up what has waited too long, and says when the next is due.
func (s *Store) giveUpDue() (wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.teller.armed || !s.unsafeLocked() || s.closed || s.crashed {
		return 0, false
	}
	now := time.Now()
	for u := s.waits.first; u != nil; {
		next := u.next
		if u.done != nil {
			if wait = u.since.Add(s.o.GiveUpAfter).Sub(now); wait > 0 {
				s.teller.armed = true
				return wait, true
			}
			s.giveUpLocked(u)
		}
		u = next
	}
	return 0, false
}

// giveUpLocked tells the publisher of u that nobody can promise anything, and
// takes back what was not handed out: it would come twice.
func (s *Store) giveUpLocked(u *afloat) {
	s.tellLocked(u.done, errUnsafe)
	u.done, u.given, u.never = nil, true, false
	for i := range u.places {
		p := &u.places[i]
		if !p.afloat() {
			continue
		}
		if _, out := p.lane.out[p.pos]; out {
			continue // whoever has it may still bring it there
		}
		_, _ = p.lane.outLocked(p.pos) // it may have been released
		s.takeBackLocked(p)
	}
	if u.open == 0 {
		s.unlinkLocked(u)
	}
}

// takeBackLocked undoes the acceptance of a message that nobody has and that
// was promised to nobody.
func (s *Store) takeBackLocked(p *place) {
	l := p.lane
	if p.written {
		s.touchLocked(l.q, 64)
		s.lazyLocked()
	} else {
		s.dirtyLocked(l.q)
	}
	r := l.q.routes[p.route]
	r.Accepted--
	r.unsaved = true
	l.settleLocked(p.pos, p.size)
	p.leaveLocked()
}

// givenLocked takes a message back that was given up while it was out; false
// if it is to be handed out again.
func (s *Store) givenLocked(e *entry) bool {
	p := e.place
	if !p.afloat() || !p.of.given {
		return false
	}
	u := p.of
	s.takeBackLocked(p)
	if u.open == 0 {
		s.unlinkLocked(u)
	}
	return true
}

// giveUpAll is the end: nothing that still waits will be promised.
func (s *Store) giveUpAll() {
	s.mu.Lock()
	var dones []func(error)
	for u := s.waits.first; u != nil; u = u.next {
		if u.done != nil {
			dones = append(dones, u.done)
		}
	}
	s.waits = waits{}
	s.mu.Unlock()
	for _, done := range dones {
		done(errUnsafe)
	}
}
