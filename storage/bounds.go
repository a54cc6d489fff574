package storage

import (
	"fmt"
	"math"

	"holdfast"
)

// A message is admitted within three bounds: that of its queue, that over all
// queues, and the reserve of the disk. When one of them is met, the rule of the
// message's own queue says what happens, to messages of that queue only.
//
// QoS 0 goes first: a message that was published with QoS 0 takes a place from
// another such message or from none. With drop-oldest it is the new one that is
// dropped as soon as the oldest was published with QoS 1 or 2.

const reasonFull = "full"

// admitLocked decides for all destinations at once; it changes nothing.
func (s *Store) admitLocked(p *holdfast.Publication, appends []Append, total int) error {
	if err := s.refusalLocked(); err != nil && (s.failed == nil || s.closed || s.crashed || !needsNoDisk(p, appends)) {
		return err
	}
	if s.unsafeLocked() && (s.failed != nil || p.Msg.QoS > 0) {
		if err := s.floatsLocked(total); err != nil {
			return err
		}
	}
	if s.disk.level == spaceNone {
		return errSpace
	}
	if s.pending > 0 && s.pending+total > s.o.MaxPending {
		return errPending
	}
	if s.disk.level >= spaceShort && (p.Msg.Retain || p.Inbound != nil || p.WillOf != "") {
		return errSpace
	}
	all := int64(0) // what all destinations that refuse would take
	if s.o.Session.WhenFull == Refuse {
		size := int64(p.Msg.Size())
		for i := range p.Sessions {
			all += size
			if q := s.sessions[p.Sessions[i].ClientID]; q != nil && !q.ownFitsLocked(1, size) || !s.fitsLocked(all) {
				return fmt.Errorf("storage: session %q: %w", p.Sessions[i].ClientID, holdfast.ErrFull)
			}
		}
	}
	for i := range appends {
		q := appends[i].Queue
		if q.removed || appends[i].Lane >= holdfast.LaneCount {
			return fmt.Errorf("storage: queue %q was removed: %w", q.name, holdfast.ErrClosed)
		}
		if q.o.WhenFull != Refuse {
			continue
		}
		all += int64(appends[i].Msg.Size())
		var n, size int64 // of all appends to q so far
		for j := range appends[:i+1] {
			if appends[j].Queue == q {
				n, size = n+1, size+int64(appends[j].Msg.Size())
			}
		}
		if !q.ownFitsLocked(n, size) || !s.fitsLocked(all) {
			return q.fullError()
		}
	}
	return nil
}

var errPending = fmt.Errorf("storage: too much waits for the disk: %w", holdfast.ErrBusy)

func (q *Queue) fullError() error {
	return fmt.Errorf("storage: queue %q: %w", q.name, holdfast.ErrFull)
}

// fitsLocked reports whether n more messages with size bytes are within all
// bounds.
func (q *Queue) fitsLocked(n, size int64) bool {
	return q.ownFitsLocked(n, size) && q.s.fitsLocked(size)
}

func (q *Queue) ownFitsLocked(n, size int64) bool {
	messages, bytes := q.sizeLocked()
	return (q.o.MaxMessages <= 0 || messages+n <= q.o.MaxMessages) &&
		(q.o.MaxBytes <= 0 || bytes+size <= q.o.MaxBytes)
}

// fitsLocked reports whether size bytes more are within the bound over all
// queues. While the disk is low no queue may grow, and while it is short
// nothing comes in at all.
func (s *Store) fitsLocked(size int64) bool {
	limit := int64(math.MaxInt64)
	if s.o.MaxBytes > 0 {
		limit = s.o.MaxBytes
	}
	switch {
	case s.disk.level >= spaceShort:
		return false
	case s.disk.level == spaceLow:
		limit = min(limit, s.disk.queued)
	}
	return s.bytes+size <= limit
}

// makeRoomLocked applies the rule of a full queue that does not refuse. It
// returns false if the new message is the one to be dropped.
func (q *Queue) makeRoomLocked(lane holdfast.Lane, size int64, qos0 bool) bool {
	s := q.s
	if q.o.WhenFull == DropNewest || s.disk.level >= spaceShort ||
		q.o.MaxBytes > 0 && size > q.o.MaxBytes || s.o.MaxBytes > 0 && size > s.o.MaxBytes {
		return false
	}
	for !q.fitsLocked(1, size) {
		n, behind := q.dropOldestLocked(lane, qos0)
		if behind != nil {
			// What would have to go is on disk: the committer reads it.
			if qos0 {
				q.overLocked(0) // so that the next one is compared with it
				return false
			}
			// Until it is dropped the bounds are exceeded by what waits for
			// the committer at most.
			if !s.fitsLocked(size) {
				q.overLocked(size)
			} else {
				q.overLocked(0)
			}
			return true
		}
		if n == 0 {
			return false
		}
	}
	return true
}

// overLocked has the committer look at the queue's oldest messages, and drop of
// them what exceeds the queue's bounds, and owed bytes for the bound over all.
func (q *Queue) overLocked(owed int64) {
	q.owed += owed
	if !q.over {
		q.over = true
		q.s.over = append(q.s.over, q)
	}
}

// dropOldestLocked drops the oldest item of the least urgent lane, but of none
// more urgent than least, and returns its size; 0 if there is none to drop.
// With qos0 it drops only what was published with QoS 0. behind is a lane that
// must be read first.
func (q *Queue) dropOldestLocked(least holdfast.Lane, qos0 bool) (size int64, behind *lane) {
	if q.heldLocked() {
		return 0, nil // all is as good as handed out
	}
	for i := len(urgency) - 1; i >= 0; i-- {
		l := q.lanes[urgency[i]]
		head, load := l.headLocked()
		if load {
			return 0, l
		}
		if head != nil && (head.qos0 || !qos0) {
			return q.dropHeadLocked(l, reasonFull), nil
		}
		if urgency[i] == least {
			break
		}
	}
	return 0, nil
}

// dropHeadLocked drops the head that headLocked has returned, counted under
// reason.
func (q *Queue) dropHeadLocked(l *lane, reason string) (size int64) {
	e := l.takeLocked()
	if e.place.ram() {
		q.s.dirtyLocked(q)
	} else {
		q.s.touchLocked(q, 64)
		q.s.lazyLocked()
	}
	if e.place.afloat() {
		q.s.landLocked(e.place, nil)
	}
	l.settleLocked(e.pos, e.size)
	r := q.routes[e.route]
	r.drop(reason)
	q.bookedLocked(r)
	q.forgetReleasedLocked(l, e.pos)
	return int64(e.size)
}

// makeRoom drops what is on disk of the queues that are over their bounds. It
// is called by the committer.
func (s *Store) makeRoom() {
	for {
		s.mu.Lock()
		if len(s.over) == 0 || s.closed || s.crashed {
			s.mu.Unlock()
			return
		}
		q := s.over[len(s.over)-1]
		behind := q.headBehindLocked()
		for behind == nil && !q.removed && (!q.ownFitsLocked(0, 0) || q.owed > 0 && !s.fitsLocked(0)) {
			var n int64
			if n, behind = q.dropOldestLocked(holdfast.High, false); n == 0 {
				break
			}
			q.owed -= n
		}
		if behind == nil {
			q.notOverLocked()
		}
		s.mu.Unlock()
		if behind == nil {
			continue
		}
		if err := q.readAhead(behind); err != nil {
			s.o.Logger.Warn("storage: a full queue cannot be read", "queue", q.name, "error", err)
			s.mu.Lock()
			q.notOverLocked()
			s.mu.Unlock()
		}
	}
}

// notOverLocked takes q, which is the last of them, from those that are over.
func (q *Queue) notOverLocked() {
	q.over, q.owed = false, 0
	q.s.over = q.s.over[:len(q.s.over)-1]
}

// headBehindLocked is the least urgent lane whose head must be read from disk.
func (q *Queue) headBehindLocked() *lane {
	for i := len(urgency) - 1; i >= 0 && !q.removed && !q.heldLocked(); i-- {
		l := q.lanes[urgency[i]]
		if head, load := l.headLocked(); load {
			return l
		} else if head != nil {
			return nil
		}
	}
	return nil
}
