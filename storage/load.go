package storage

import (
	"encoding/binary"
	"fmt"
	"slices"

	"holdfast"
)

// load reads what is small: names, marks, counts. Batches are not read.
func (s *Store) load() error {
	if err := s.checkFormat(); err != nil {
		return err
	}
	removed, err := removedOf(s.eng)
	if err != nil {
		return fmt.Errorf("storage: read removed queues: %w", err)
	}
	for id := range removed {
		s.removedIDs = append(s.removedIDs, id)
		s.nextID = max(s.nextID, id+1)
	}
	var rows []row
	prefix := []byte{keyMeta}
	err = s.eng.scan(prefix, prefix, false, func(k, v []byte) bool {
		if len(k) < 6 || removed[binary.BigEndian.Uint32(k[1:])] || k[5] == metaSession {
			return true
		}
		rows = append(rows, row{string(k), append([]byte(nil), v...)})
		return true
	})
	if err != nil {
		return fmt.Errorf("storage: read the queues: %w", err)
	}
	rows, suspect := s.marks.overlay(rows, removed, func(id uint32) bool { return hasBatches(s.eng, id) })
	unread := map[*lane]bool{}
	for _, r := range rows { // in the order of keys: the name comes first
		id := binary.BigEndian.Uint32([]byte(r.key[1:]))
		s.nextID = max(s.nextID, id+1)
		s.loadRow(id, r.key[5], []byte(r.key[6:]), r.value, unread)
	}
	strays, err := orphans(s.eng, func(id uint32) bool { return s.byID[id] != nil || removed[id] || slices.Contains(s.removedIDs, id) })
	if err != nil {
		return err
	}
	for _, id := range strays {
		s.adopt(id)
		suspect[id] = true
	}
	v, err := s.eng.get([]byte{keyCounter})
	if err != nil {
		return fmt.Errorf("storage: read the counter of queues: %w", err)
	}
	if v != nil {
		if d, err := unseal(v, 1, "counter"); err == nil {
			s.nextID = max(s.nextID, uint32(d.uvarint()))
		}
	}
	v, err = s.eng.get([]byte{keyAge})
	if err != nil {
		return fmt.Errorf("storage: read the age of the store: %w", err)
	}
	if err := s.age.restore(v); err != nil {
		s.unreadable("age of the store", err)
	}
	for _, q := range s.byID {
		for _, l := range q.lanes {
			next := l.next
			if err := s.loadLane(l, unread[l]); err != nil {
				return err
			}
			suspect[q.id] = suspect[q.id] || l.next != next
		}
		if s.suspect || suspect[q.id] || q.unbalanced() {
			if err := s.audit(q); err != nil {
				return err
			}
		}
	}
	return s.loadAside()
}

// loadRow takes one row of a queue. What cannot be read is logged, counted and
// done without.
func (s *Store) loadRow(id uint32, kind byte, rest, v []byte, unread map[*lane]bool) {
	if kind == metaName {
		d, err := unseal(v, 1, "name of a queue")
		if err != nil {
			s.unreadable("name of a queue", err)
			return
		}
		session := d.byte() == 1
		name := d.string()
		if old := s.sessions[name]; session && old != nil || !session && s.named[name] != nil {
			// A crash while a session was replaced: the newer one is meant.
			if !session {
				old = s.named[name]
			}
			delete(s.byID, old.id)
			for _, l := range old.lanes {
				l.addBytes(-l.bytes)
			}
			s.removedIDs = append(s.removedIDs, old.id)
		}
		s.newQueueLocked(id, name, session).named = true
		return
	}
	q := s.byID[id]
	if q == nil {
		return
	}
	switch {
	case kind == metaLane && len(rest) == 1 && rest[0] < holdfast.LaneCount:
		l := q.lanes[rest[0]]
		seq, err := l.restore(v)
		if err != nil {
			s.unreadable("progress of a queue", err)
			unread[l] = true
		}
		s.seq = max(s.seq, seq)
	case kind == metaChunk && len(rest) == 5 && rest[0] < holdfast.LaneCount:
		l := q.lanes[rest[0]]
		d, err := unseal(v, 1, "chunk")
		if err != nil {
			s.unreadable("chunk", err)
			return
		}
		l.chunks = append(l.chunks, chunk{binary.BigEndian.Uint32(rest[1:]), d.uvarint(), true})
	case kind == metaRoute && len(rest) == 4:
		r, err := decodeRoute(v)
		if err != nil {
			s.unreadable("ledger", err)
			return
		}
		r.id = binary.BigEndian.Uint32(rest)
		if r.id > 1<<16 {
			return
		}
		for uint32(len(q.routes)) <= r.id {
			q.routes = append(q.routes, &route{id: uint32(len(q.routes))})
		}
		q.routes[r.id] = r
		q.routeID[r.name] = r.id
	case kind == metaReleased && len(rest) == 8:
		if q.released == nil {
			q.released = map[uint64]struct{}{}
		}
		q.released[binary.BigEndian.Uint64(rest)] = struct{}{}
	case kind == metaInbound && len(rest) == 2 && !q.session: // those of sessions are read with them
		q.far.receive(binary.BigEndian.Uint16(rest))
	case kind == metaFar || kind == metaBound:
		if err := q.far.restore(kind, rest, v); err != nil {
			s.unreadable("session at the far broker", err)
		}
	}
}

// loadLane compares the row of a lane with its last batch, and makes the best
// of it if the row is damaged.
func (s *Store) loadLane(l *lane, unread bool) error {
	id := l.q.id
	prefix := batchPrefix(keyBatch, id, l.id)
	key, err := s.eng.last(prefix, batchKey(id, l.id, 1<<32-1, 1<<64-1))
	if err != nil {
		return fmt.Errorf("storage: find the end of a queue: %w", err)
	}
	if key != nil {
		c, first, _ := splitBatchKey(key)
		if n := len(l.chunks); n == 0 || l.chunks[n-1].id < c {
			l.chunks = append(l.chunks, chunk{id: c, first: first})
		}
		if first >= l.next {
			v, err := s.eng.get(key)
			if err != nil {
				return fmt.Errorf("storage: read the end of a queue: %w", err)
			}
			t, _, _, err := decodeTrailer(v)
			if err != nil {
				t.first, t.count = first, 1
			}
			noRow := unread || l.next == 1
			l.next = t.first + t.count
			if noRow {
				// From the first batch on, whatever of it was acknowledged.
				_ = s.eng.scan(prefix, prefix, true, func(k, _ []byte) bool {
					_, l.low, _ = splitBatchKey(k)
					return false
				})
				l.low = max(l.low, 1)
			}
			l.startLocked()
		}
	}
	if len(l.chunks) > 1 && l.chunks[1].first <= l.low {
		s.sweepable[l] = struct{}{}
		s.lazy = true
	}
	if l.swept < l.low && len(l.chunks) > 0 {
		s.sweepable[l] = struct{}{}
		s.lazy = true
	}
	return nil
}

// loadAside counts what is kept of messages in quarantine and of damage.
func (s *Store) loadAside() error {
	for _, kind := range []byte{keyQuarantine, keyDamaged} {
		prefix := []byte{kind}
		err := s.eng.scan(prefix, prefix, true, func(k, _ []byte) bool {
			if kind == keyDamaged {
				s.damaged++
			} else if len(k) > 5 {
				if q := s.byID[binary.BigEndian.Uint32(k[1:])]; q != nil {
					q.aside++
				}
			}
			return true
		})
		if err != nil {
			return fmt.Errorf("storage: count what is set aside: %w", err)
		}
	}
	return nil
}

// checkFormat writes the version into a new or older store, and refuses a newer one.
// A crash behind that leaves a store that no older holdfast opens, and rows that it
// could still read.
func (s *Store) checkFormat() error {
	v, err := s.eng.get([]byte{keyFormat})
	if err != nil {
		return fmt.Errorf("storage: read the version of the store: %w", err)
	}
	have := uint64(0)
	if v != nil {
		d, err := unseal(v, 1, "version of the store")
		if err != nil {
			s.unreadable("version of the store", err)
		} else if have = d.uvarint(); have > formatVersion {
			return fmt.Errorf("storage: the store in %s was written by a newer holdfast (format %d, this one knows up to %d): install that version again, or give this one another data_dir", s.o.Dir, have, formatVersion)
		}
	}
	if have < formatVersion {
		row := seal(binary.AppendUvarint([]byte{1}, formatVersion))
		if err := s.eng.commit([]op{{key: []byte{keyFormat}, value: row}}); err != nil {
			return fmt.Errorf("storage: write the version of the store: %w", err)
		}
	}
	return nil
}
