package storage

import (
	"bytes"
)

// found is what one look at the disk has brought for a lane: items, and
// everything before end is among them, settled, or lost.
type found struct {
	entries []entry
	end     uint64
	lost    []loss
}

// loss is a part of a lane that cannot be read.
type loss struct {
	from, to uint64
	routes   []routeCount
	key, raw []byte
}

// readAhead reads a few batches of l from disk, for a reader that is behind
// what is in memory. A batch that cannot be read is counted as lost and set
// aside; it never stops the queue.
func (q *Queue) readAhead(l *lane) error {
	s := q.s
	q.load.Lock()
	defer q.load.Unlock()
	s.mu.Lock()
	var pos uint64
	redo := l.redo // the head of the log is wanted, not that of the released
	l.redo = nil
	_, load := l.headLocked()
	l.redo = redo
	pos, limit, chunk := l.read, min(l.committed, l.tailBase), l.chunkOfLocked(l.read)
	gone := q.removed || s.closed || s.crashed
	s.mu.Unlock()
	if !load || gone {
		return nil
	}

	var f found
	err := s.read(func(eng engine) (err error) {
		f, err = readBatches(eng, q.id, l, chunk, pos, limit)
		return err
	})
	if err != nil {
		return err
	}

	s.mu.Lock()
	wakes := q.installLocked(l, f)
	s.mu.Unlock()
	for _, f := range wakes {
		f()
	}
	return nil
}

func (q *Queue) installLocked(l *lane, f found) (wakes []func()) {
	s := q.s
	if q.removed || s.closed || s.crashed {
		return nil
	}
	s.loseFoundLocked(l, f.lost)
	l.loaded = nil
	newest := int64(0)
	for _, e := range f.entries {
		if e.pos < max(l.read, l.low) || l.settled.has(e.pos) {
			continue
		}
		e.again = e.pos < l.opened
		e.place = l.afloat[e.pos]
		newest = max(newest, e.at)
		if int(e.route) >= len(q.routes) {
			e.route = 0 // its row is damaged or missing
		}
		l.loaded = append(l.loaded, e)
	}
	s.age.reach(newest) // if the note of the age was lost
	if len(f.lost) > 0 {
		wakes = q.wakeLocked(nil)
	}
	return wakes
}

// loseFoundLocked counts and keeps what cannot be read.
func (s *Store) loseFoundLocked(l *lane, lost []loss) {
	q := l.q
	for _, x := range lost {
		n := l.loseLocked(x.from, x.to, x.routes)
		if n == 0 {
			continue
		}
		s.o.Logger.Error("storage: messages cannot be read and are lost", "queue", q.name, "lane", l.id.String(), "first", x.from, "count", n)
		if x.key != nil && s.damaged < maxDamaged && len(x.raw) <= MaxMessage {
			// A crash before this is written finds the damage again.
			s.damaged++
			key := append([]byte{keyDamaged}, x.key[1:]...)
			s.addLocked(op{key: key, value: append([]byte{1}, x.raw...), own: true})
			s.touchLocked(q, 0)
		}
		s.lazyLocked()
	}
}

// readBatches reads from pos on, up to limit or about readBytes.
func readBatches(eng engine, queue uint32, l *lane, chunk uint32, pos, limit uint64) (found, error) {
	f := found{end: pos}
	prefix := batchPrefix(keyBatch, queue, l.id)
	var bad *loss // its end is where the next batch begins
	var gap uint64
	size := 0
	visit := func(k, v []byte) bool {
		_, first, ok := splitBatchKey(k)
		if !ok || first >= limit {
			return false
		}
		if bad != nil {
			bad.to = first
			f.lost = append(f.lost, *bad)
			f.end, bad = first, nil
		}
		if first > f.end && first <= pos {
			f.end = first // what is missing before pos is of no interest
		}
		if first > f.end {
			gap = first
			return false
		}
		t, records, sum, err := decodeTrailer(v)
		if err != nil || t.first != first {
			bad = &loss{from: first, key: bytes.Clone(k), raw: bytes.Clone(v)}
			return true
		}
		end := t.first + t.count
		if end <= f.end {
			return true
		}
		entries, err := decodeRecords(t, bytes.Clone(records), sum)
		if err != nil {
			f.lost = append(f.lost, loss{t.first, end, t.routes, bytes.Clone(k), bytes.Clone(v)})
		}
		f.entries = append(f.entries, entries...)
		f.end = end
		size += len(v)
		return size < readBytes
	}
	scan := func(from []byte) error {
		if err := eng.scan(prefix, from, false, visit); err != nil {
			return err
		}
		if bad != nil {
			bad.to = limit
			f.lost = append(f.lost, *bad)
			f.end, bad = limit, nil
		}
		return nil
	}
	if err := scan(batchKey(queue, l.id, chunk, pos)); err != nil || f.end > pos {
		return f, err
	}
	// No batch begins at pos: it may stand within one.
	key, err := eng.last(prefix, batchKey(queue, l.id, chunk, pos))
	if err != nil {
		return f, err
	}
	if key != nil {
		_, first, _ := splitBatchKey(key)
		f.end, gap = first, 0
		if err := scan(key); err != nil {
			return f, err
		}
		if f.end > pos {
			return f, nil
		}
		f = found{end: pos}
	}
	// A hole. Badger says nothing of a block that it cannot read and goes on
	// with the next table: look closer before all in between is given up.
	if gap == 0 {
		gap = limit
	}
	end := gap
	step := max(1, (gap-pos)/4096)
	for p, n := pos+1, 0; p < gap; n++ {
		if err := eng.scan(prefix, batchKey(queue, l.id, chunk, p), true, func(k, _ []byte) bool {
			if _, first, ok := splitBatchKey(k); ok && first < gap {
				end = first
			}
			return false
		}); err != nil {
			return f, err
		}
		if end < gap {
			break
		}
		if n < 1024 {
			p++
		} else {
			p += step
		}
	}
	f.lost = append(f.lost, loss{from: pos, to: end})
	f.end = end
	return f, nil
}
