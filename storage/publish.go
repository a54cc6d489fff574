package storage

import (
	"encoding/binary"
	"fmt"

	"holdfast"
)

// Append is one message for one queue. Route may be empty.
type Append struct {
	Queue *Queue
	Lane  holdfast.Lane
	Route string
	Msg   *holdfast.Message
}

// recordOverhead is what a record takes beside its message.
const recordOverhead = 16

// emptyProperties is what properties take beside their contents.
const emptyProperties = 6 * binary.MaxVarintLen32

// Publish makes p safe in all of its durable destinations inside the broker and
// in appends, in one transaction, or in none of them. All admission is decided
// before anything is taken: after a non-nil error (holdfast.ErrFull,
// ErrTooLarge, ErrClosed, or a store that has failed) nothing is stored or
// counted, and done is never called. After nil, done is called exactly once:
// with nil when everything is on disk (at once, if there is nothing to write),
// else with the reason why nobody can promise that. It never waits for the
// disk. done runs on the committer's goroutine or the caller's, and must not
// block nor call TryNext.
//
// With Options.Sync Spill a publication may wait in memory, and done comes also,
// on another goroutine of the store, when all of its destinations have
// acknowledged it.
//
// A publication that is larger than one transaction holds is written in several:
// done comes after the last, and a crash between them leaves a part.
func (s *Store) Publish(p *holdfast.Publication, appends []Append, done func(error)) error {
	m := p.Msg
	if len(appends)+len(p.Sessions) == 0 && !m.Retain && p.Inbound == nil && p.WillOf == "" {
		// Nothing to keep: a store that has failed does not stand in the way.
		s.mu.Lock()
		closed := s.closed || s.crashed
		s.mu.Unlock()
		if closed {
			return fmt.Errorf("storage: %w", holdfast.ErrClosed)
		}
		done(nil)
		return nil
	}
	bound := messageBound(m) + recordOverhead
	if bound > MaxMessage {
		return tooLarge(bound)
	}
	total := len(p.Sessions) * bound
	for i := range p.Sessions {
		if ids := p.Sessions[i].SubscriptionIDs; len(ids) > 0 {
			total += subscriptionIDsBound(ids) + emptyProperties
		}
	}
	for i := range appends {
		n := messageBound(appends[i].Msg) + recordOverhead
		if n > MaxMessage {
			return tooLarge(n)
		}
		total += n
	}
	if m.Retain {
		total += bound + 64
	}
	if p.Inbound != nil {
		total += 64
	}

	var buf [8]func()
	wakes := buf[:0]
	s.mu.Lock()
	err := s.admitLocked(p, appends, total)
	if in := p.Inbound; err == nil && in != nil && in.Queue != "" && s.named[in.Queue] == nil {
		err = fmt.Errorf("storage: there is no queue %q: %w", in.Queue, holdfast.ErrClosed)
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	u := s.afloatLocked(p, appends, total, done) // nil: it is written now
	if u == nil {
		s.spillForLocked(p, appends)
	}
	if u == nil || s.o.Volatile {
		s.roomLocked(total)
	}
	for i := range p.Sessions {
		d := &p.Sessions[i]
		n := bound
		if len(d.SubscriptionIDs) > 0 {
			n += subscriptionIDsBound(d.SubscriptionIDs) + emptyProperties
		}
		out := m.WithSubscriptionIDs(d.SubscriptionIDs)
		wakes = s.enqueueLocked(s.sessionLocked(d.ClientID), newItem{msg: out, qos: d.QoS, retain: d.Retain, qos0: m.QoS == 0}, n, u, wakes)
	}
	for i := range appends {
		a := &appends[i]
		n := messageBound(a.Msg) + recordOverhead
		wakes = s.enqueueLocked(a.Queue, newItem{lane: a.Lane, route: a.Route, msg: a.Msg, qos: a.Msg.QoS, retain: a.Msg.Retain, qos0: m.QoS == 0}, n, u, wakes)
	}
	if m.Retain {
		s.retainLocked(m)
	}
	switch in := p.Inbound; {
	case in == nil:
	case in.Queue != "":
		done = s.named[in.Queue].receivedLocked(in.PacketID, done)
	default:
		q := s.sessionLocked(in.ClientID)
		s.touchLocked(q, 64)
		s.addLocked(op{key: inboundKey(q.id, in.PacketID), value: []byte{1}})
	}
	if p.WillOf != "" {
		s.addLocked(op{key: hashedKey(keyWill, p.WillOf)})
	}
	switch {
	case u == nil:
		s.waitLocked(done, total)
	case s.o.Volatile:
		s.queueUpLocked(u)
		s.waitLocked(func(error) {}, 0) // it is counted where it is waited for
	default:
		s.queueUpLocked(u)
	}
	free := u != nil && u.free
	s.mu.Unlock()
	if free {
		done(nil)
	}
	for _, f := range wakes {
		f()
	}
	return nil
}

func tooLarge(n int) error {
	return fmt.Errorf("storage: %d bytes are more than the %d that are stored whole: %w", n, MaxMessage, holdfast.ErrTooLarge)
}

// waitLocked has done called after the open transaction.
func (s *Store) waitLocked(done func(error), bytes int) {
	s.cur.dones = append(s.cur.dones, done)
	s.cur.messages++
	s.cur.pending += bytes
	s.pending += bytes
	s.activity++
	s.urgentLocked()
}

// enqueueLocked puts it into q, or counts it as dropped; admission was decided.
// It waits in memory as a part of u, or is written if u is nil.
func (s *Store) enqueueLocked(q *Queue, it newItem, bound int, u *afloat, wakes []func()) []func() {
	r := q.routeLocked(it.route)
	size := int64(it.msg.Size())
	keep := it.moved || q.fitsLocked(1, size) || !it.spare && q.o.WhenFull != Refuse && q.makeRoomLocked(it.lane, size, it.qos0)
	// From here on everything goes into one transaction: no crash separates a
	// message from its count.
	written := u == nil || s.o.Volatile
	if written {
		s.touchLocked(q, bound+128)
	} else {
		s.dirtyLocked(q)
	}
	r.Accepted++
	r.unsaved = true
	if !keep {
		r.drop(reasonFull)
		return wakes
	}
	l := q.lanes[it.lane]
	switch {
	case u == nil:
		l.appendLocked(r.id, &it)
	case written:
		l.appendLocked(r.id, &it)
		l.trackLocked(u, r.id)
	default:
		l.waitLocked(u, r.id, &it, s.age.now())
	}
	s.trimLocked(l)
	if u != nil || q.o.Early && it.qos < 2 {
		wakes = q.wakeLocked(wakes)
	}
	return wakes
}
