package storage

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"holdfast"
)

// A bridge's queue keeps the packet identifiers of QoS 2 that are in use at the
// far broker, so that a message that was on its way when the process ended is
// sent again with the one that it had: the far broker then knows it for the same.
// Memory is ahead of the disk by what waits for its commit.

const (
	farVersion   = 1
	boundVersion = 1
)

// farSession is guarded by Store.mu.
type farSession struct {
	name  string
	bound map[uint16]holdfast.Bound
	items map[holdfast.ItemID]uint16
	// inbound are packet identifiers of the far broker that it has not released.
	inbound map[uint16]struct{}
}

func (f *farSession) receive(id uint16) {
	if f.inbound == nil {
		f.inbound = map[uint16]struct{}{}
	}
	f.inbound[id] = struct{}{}
}

func (f *farSession) set(b holdfast.Bound) {
	if f.bound == nil {
		f.bound, f.items = map[uint16]holdfast.Bound{}, map[holdfast.ItemID]uint16{}
	}
	f.free(b.PacketID)
	b.Gone = false
	f.bound[b.PacketID], f.items[b.Item] = b, b.PacketID
}

func (f *farSession) free(id uint16) {
	if old, ok := f.bound[id]; ok {
		delete(f.items, old.Item)
		delete(f.bound, id)
	}
}

// restore takes one row.
func (f *farSession) restore(kind byte, rest, v []byte) error {
	if kind == metaFar {
		d, err := unseal(v, farVersion, "session at the far broker")
		if err == nil {
			f.name = d.string()
		}
		if err != nil || d.bad || len(d.b) != 0 || len(rest) != 0 {
			f.name = ""
			return corrupt("session at the far broker")
		}
		return nil
	}
	d, err := unseal(v, boundVersion, "packet identifier")
	if err != nil {
		return err
	}
	b := holdfast.Bound{Item: holdfast.ItemID(d.uvarint()), Received: d.byte() == 1}
	if d.bad || len(d.b) != 0 || len(rest) != 2 || b.Item.Lane() >= holdfast.LaneCount {
		return corrupt("packet identifier")
	}
	b.PacketID = binary.BigEndian.Uint16(rest)
	f.set(b)
	return nil
}

func (q *Queue) farRow() op {
	return op{key: metaKey(q.id, metaFar), value: seal(appendString([]byte{farVersion}, q.far.name)), own: true}
}

func (q *Queue) boundRow(b holdfast.Bound) op {
	v := binary.AppendUvarint([]byte{boundVersion}, uint64(b.Item))
	if b.Received {
		v = append(v, 1)
	} else {
		v = append(v, 0)
	}
	return op{key: boundKey(q.id, b.PacketID), value: seal(v), own: true}
}

// FarSession returns what is known of the session at the far broker, in the order
// of lanes and positions. After a change it is the new state at once, before that
// is on disk.
func (q *Queue) FarSession() (f holdfast.FarSession) {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	f.Name = q.far.name
	for _, b := range q.far.bound {
		b.Gone = q.lanes[b.Item.Lane()].goneLocked(b.Item.Position())
		f.Bound = append(f.Bound, b)
	}
	f.Inbound = slices.Sorted(maps.Keys(q.far.inbound))
	slices.SortFunc(f.Bound, func(a, b holdfast.Bound) int { return cmp.Compare(a.Item, b.Item) })
	return f
}

// ChangeFarSession applies c in one transaction. It does not wait for the disk;
// done is called exactly once, as with Store.Change: with nil when all of c is
// there, and everything that was changed before. After an error nobody knows
// which of it a crash would leave. A change of nothing only waits.
func (q *Queue) ChangeFarSession(c *holdfast.FarSessionChange, done func(error)) {
	s := q.s
	total := 64 * (2 + len(c.Free) + len(c.Bind) + len(c.ForgetInbound))
	if c.Begin != nil {
		total += len(*c.Begin)
	}
	s.mu.Lock()
	err := s.refusalLocked()
	if err == nil && len(c.Bind) > 0 { // the rest makes room
		err = s.smallLocked(total)
	}
	if err == nil && (q.removed || s.closed || s.crashed) {
		err = holdfast.ErrClosed
	}
	if err == nil && total > txnBytes/2 {
		err = tooLarge(total)
	}
	if err != nil {
		s.mu.Unlock()
		done(err)
		return
	}
	s.roomLocked(total)
	if !q.named {
		s.touchLocked(q, total)
	}
	if c.Begin != nil {
		for id := range q.far.bound {
			s.addLocked(op{key: boundKey(q.id, id), own: true})
		}
		for id := range q.far.inbound {
			s.addLocked(op{key: inboundKey(q.id, id), own: true})
		}
		q.far = farSession{name: *c.Begin}
		s.addLocked(q.farRow())
	}
	for _, id := range c.Free {
		q.freeLocked(id)
	}
	for _, b := range c.Bind {
		if old, ok := q.far.items[b.Item]; ok && old != b.PacketID {
			q.freeLocked(old)
		}
		q.far.set(b)
		s.addLocked(q.boundRow(b))
	}
	for _, id := range c.ForgetInbound {
		delete(q.far.inbound, id)
		s.addLocked(op{key: inboundKey(q.id, id), own: true})
	}
	s.waitLocked(done, total)
	s.mu.Unlock()
}

// receivedLocked notes a packet identifier of the far broker together with its
// message, and returns what done is to be in its place: a message that was not
// stored comes again, and must not count as one that is there.
func (q *Queue) receivedLocked(id uint16, done func(error)) func(error) {
	q.s.touchLocked(q, 64)
	q.far.receive(id)
	q.s.addLocked(op{key: inboundKey(q.id, id), value: []byte{1}})
	return func(err error) {
		if err != nil {
			q.s.mu.Lock()
			delete(q.far.inbound, id)
			q.s.mu.Unlock()
		}
		done(err)
	}
}

func (q *Queue) freeLocked(id uint16) {
	if _, ok := q.far.bound[id]; ok {
		q.far.free(id)
		q.s.addLocked(op{key: boundKey(q.id, id), own: true})
	}
}

// ackedLocked frees the packet identifier of an item in the transaction that has
// its end: a crash before that leaves both.
func (q *Queue) ackedLocked(item holdfast.ItemID) {
	if id, ok := q.far.items[item]; ok {
		q.freeLocked(id)
		q.s.lazyLocked()
	}
}

// Take hands out one item, wherever it stands; ok is false if it is not there, is
// handed out already, or cannot be read. Next and Poll leave it out. It must be on
// disk, and Mark must be called behind it, if at all.
func (q *Queue) Take(id holdfast.ItemID) (it holdfast.Item, ok bool, err error) {
	s := q.s
	if id.Lane() >= holdfast.LaneCount {
		return it, false, nil
	}
	l, pos := q.lanes[id.Lane()], id.Position()
	s.mu.Lock()
	e, ok, read, err := q.findLocked(l, pos)
	s.mu.Unlock()
	if read {
		v, err := q.look(l, pos, pos+1)
		if err != nil || len(v.entries) != 1 {
			return it, false, err
		}
		e = v.entries[0]
	} else if !ok {
		return it, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// It may have gone meanwhile, or come into memory.
	now, ok, read, err := q.findLocked(l, pos)
	if ok {
		e = now
	} else if !read {
		return it, false, err
	}
	_, _ = l.outLocked(pos) // it may have been released
	e.again = true
	e.place = l.afloat[pos]
	if s.o.Sync == Spill {
		e.handed = time.Since(s.born)
	}
	if l.out == nil {
		l.out = map[uint64]entry{}
	}
	l.out[pos] = e
	l.fresh = max(l.fresh, pos+1) // the reader looks whether it was handed out
	return holdfast.Item{ID: id, Route: q.routes[e.route].name, Msg: q.agedLocked(&e), Again: true}, true, nil
}

// findLocked is the item at pos if it is in memory and may be handed out; read
// says that it has to be read from disk.
func (q *Queue) findLocked(l *lane, pos uint64) (e entry, ok, read bool, err error) {
	s := q.s
	if s.closed || s.crashed || q.removed {
		return e, false, false, holdfast.ErrClosed
	}
	if _, out := l.out[pos]; out || q.heldLocked() || l.goneLocked(pos) || pos >= l.committed {
		return e, false, false, nil
	}
	for i := range l.redo {
		if l.redo[i].pos == pos {
			return l.redo[i], true, false, nil
		}
	}
	if pos >= l.tailBase {
		return l.tail[pos-l.tailBase], true, false, nil
	}
	return e, false, true, nil
}
