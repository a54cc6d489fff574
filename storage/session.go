package storage

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"holdfast"
)

// sessionOfUser is the version of the rows that begin with a user name.
const sessionVersion, sessionOfUser = 1, 2

// encodeSession has the age of the store at its end if the session is detached.
func encodeSession(st *holdfast.SessionState, age int64) []byte {
	b := []byte{sessionVersion}
	if st.Username != "" {
		b = appendString([]byte{sessionOfUser}, st.Username)
	}
	b = binary.BigEndian.AppendUint32(b, st.Expiry)
	b = binary.AppendUvarint(b, uint64(len(st.Subscriptions)))
	for _, sub := range st.Subscriptions {
		b = appendString(b, sub.Filter)
		flags := sub.QoS & 3
		if sub.NoLocal {
			flags |= 1 << 2
		}
		if sub.RetainAsPublished {
			flags |= 1 << 3
		}
		flags |= sub.RetainHandling & 3 << 4
		b = append(b, flags)
		b = binary.AppendUvarint(b, uint64(sub.Identifier))
	}
	if st.Detached {
		b = binary.AppendUvarint(b, uint64(age))
	}
	return seal(b)
}

// decodeSession also returns the age of the store when the session was detached.
func decodeSession(v []byte) (st holdfast.SessionState, age int64, err error) {
	version := byte(sessionVersion)
	if len(v) > 0 && v[0] == sessionOfUser {
		version = sessionOfUser
	}
	d, err := unseal(v, version, "session")
	if err != nil {
		return st, 0, err
	}
	if version == sessionOfUser {
		st.Username = d.string()
	}
	if len(d.b) < 4 {
		return st, 0, corrupt("session")
	}
	st.Expiry, d.b = binary.BigEndian.Uint32(d.b), d.b[4:]
	for range d.uvarint() {
		if d.bad {
			break
		}
		sub := holdfast.Subscription{Filter: d.string()}
		flags := d.byte()
		sub.QoS = flags & 3
		sub.NoLocal = flags&(1<<2) != 0
		sub.RetainAsPublished = flags&(1<<3) != 0
		sub.RetainHandling = flags >> 4 & 3
		sub.Identifier = uint32(d.uvarint())
		st.Subscriptions = append(st.Subscriptions, sub)
	}
	if st.Detached = !d.bad && len(d.b) > 0; st.Detached {
		age = int64(d.uvarint())
	}
	if d.bad || len(d.b) != 0 || age < 0 || age >= 1<<60 {
		return st, 0, corrupt("session")
	}
	return st, age, nil
}

// Sessions returns every stored session that a Change has saved. It reads what
// is on disk, so that it is to be called before the first Change. A session
// whose row cannot be read is logged and left out. A queue without a session is
// removed: it is what a publication has left that met the end of its session.
func (s *Store) Sessions() ([]holdfast.SessionState, error) {
	byID := map[uint32]*holdfast.SessionState{}
	at := func(id uint32) *holdfast.SessionState {
		if byID[id] == nil {
			byID[id] = &holdfast.SessionState{}
		}
		return byID[id]
	}
	saved, known, left := map[uint32]bool{}, map[uint32]bool{}, map[uint32]int64{}
	prefix := []byte{keyMeta}
	err := s.read(func(eng engine) error {
		return eng.scan(prefix, prefix, false, func(k, v []byte) bool {
			if len(k) < 6 {
				return true
			}
			id := binary.BigEndian.Uint32(k[1:])
			switch rest := k[6:]; {
			case k[5] == metaSession:
				st, age, err := decodeSession(v)
				known[id] = true
				if err != nil {
					s.unreadable("session", err)
					return true
				}
				saved[id] = true
				have := at(id)
				have.Expiry, have.Subscriptions, have.Detached, have.Username = st.Expiry, st.Subscriptions, st.Detached, st.Username
				left[id] = age
			case k[5] == metaInbound && len(rest) == 2:
				at(id).Inbound = append(at(id).Inbound, binary.BigEndian.Uint16(rest))
			case k[5] == metaReleased && len(rest) == 8:
				at(id).Released = append(at(id).Released, binary.BigEndian.Uint64(rest))
			}
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	var list []holdfast.SessionState
	var wakes []func()
	defer func() {
		for _, f := range wakes {
			f()
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, q := range s.byID {
		if q.session && !known[id] && s.smallLocked(0) == nil {
			wakes = s.removeLocked(q, wakes)
			s.lazyLocked()
		}
	}
	for id, st := range byID {
		q := s.byID[id]
		if q == nil || !q.session || !saved[id] {
			continue
		}
		l := q.lanes[holdfast.Normal]
		st.Released = slices.DeleteFunc(st.Released, func(pos uint64) bool { return l.goneLocked(pos) })
		if len(st.Released) == 0 {
			st.Released = nil
		}
		if st.Detached {
			s.age.reach(left[id])
			st.Away = time.Duration(max(0, s.age.now()-left[id])) * time.Millisecond
		}
		st.ClientID = q.name
		list = append(list, *st)
	}
	return list, nil
}

// goneLocked reports whether pos is settled.
func (l *lane) goneLocked(pos uint64) bool { return pos < l.low || pos >= l.next || l.settled.has(pos) }

// Change applies c in one transaction. It does not wait for the disk; done is
// called exactly once, with nil when all of c is there. Messages of c.Append
// obey the bounds of the session's queue and take free places only: what was
// promised to the session before them stays. With c.Moved they do not count
// against the bound over all queues, since they leave another one, and are
// refused rather than dropped (holdfast.ErrFull, ErrClosed). A Reset makes a new queue: the old
// one answers holdfast.ErrClosed from then on.
func (s *Store) Change(c *holdfast.SessionChange, done func(error)) {
	var state []byte
	total := 64 + 64*(len(c.ForgetInbound)+len(c.Released))
	if c.Save != nil {
		age := int64(0)
		if c.Save.Detached {
			s.mu.Lock()
			age = s.age.now()
			s.mu.Unlock()
		}
		state = encodeSession(c.Save, age)
		total += len(state) + len(c.ClientID)
		if len(state) > MaxMessage {
			done(fmt.Errorf("storage: the subscriptions of a session take %d bytes: %w", len(state), holdfast.ErrTooLarge))
			return
		}
	}
	for _, m := range c.Append {
		n := messageBound(m) + recordOverhead
		if n > MaxMessage {
			done(tooLarge(n))
			return
		}
		total += n
	}

	var wakes []func()
	s.mu.Lock()
	err := s.smallLocked(total)
	q := s.sessions[c.ClientID]
	if err == nil && c.Moved && q == nil {
		err = fmt.Errorf("storage: there is no session %q: %w", c.ClientID, holdfast.ErrClosed)
	}
	if err == nil && (c.Moved || s.o.Session.WhenFull == Refuse) && len(c.Append) > 0 && q != nil && !c.Reset {
		var size int64
		for _, m := range c.Append {
			size += int64(m.Size())
		}
		if !q.ownFitsLocked(int64(len(c.Append)), size) || !c.Moved && !s.fitsLocked(size) {
			err = q.fullError()
		}
	}
	if err != nil {
		s.mu.Unlock()
		done(err)
		return
	}
	changed := false
	if q != nil && len(c.Append) > 0 && q.waitsLocked() {
		s.spillLocked()
	}
	s.roomLocked(total)
	if c.Reset && q != nil {
		wakes = s.removeLocked(q, wakes)
		q, changed = nil, true
	}
	if q == nil && (c.Save != nil || len(c.Append) > 0) {
		q = s.createLocked(c.ClientID, true)
	}
	if q != nil {
		for _, id := range c.ForgetInbound {
			s.addLocked(op{key: inboundKey(q.id, id)})
			changed = true
		}
		for _, pos := range c.Released {
			changed = s.releasedLocked(q, pos) || changed
		}
		for _, m := range c.Append {
			wakes = s.enqueueLocked(q, newItem{msg: m, qos: m.QoS, retain: m.Retain, spare: true, moved: c.Moved}, messageBound(m)+recordOverhead, nil, wakes)
			changed = true
		}
		if state != nil {
			s.touchLocked(q, len(state)+64)
			s.addLocked(op{key: metaKey(q.id, metaSession), value: state})
			changed = true
		}
	}
	if changed {
		s.waitLocked(done, total)
		done = nil
	}
	s.mu.Unlock()
	if done != nil {
		done(nil)
	}
	for _, f := range wakes {
		f()
	}
}

// releasedLocked records PUBREC for a position that is still in the queue.
func (s *Store) releasedLocked(q *Queue, pos uint64) bool {
	l := q.lanes[holdfast.Normal]
	if l.goneLocked(pos) {
		return false
	}
	if q.released == nil {
		q.released = map[uint64]struct{}{}
	}
	q.released[pos] = struct{}{}
	s.addLocked(op{key: releasedKey(q.id, pos), value: []byte{1}})
	return true
}
