package storage

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// audit reads all of a queue that may have lost something, counts what is
// missing, and sets the ledger right: progress, counts and messages are written
// together, but damage may leave one of them older than the others. It runs
// when the store opens after damage, and only then.
func (s *Store) audit(q *Queue) error {
	queued := map[uint32]uint64{}
	var lost, have uint64
	for _, l := range q.lanes {
		if err := s.fillChunks(l); err != nil {
			return err
		}
		for pos := l.settled.after(l.low); pos < l.next; {
			f, err := readBatches(s.eng, q.id, l, l.chunkOfLocked(pos), pos, l.next)
			if err != nil {
				return fmt.Errorf("storage: look through queue %q: %w", q.name, err)
			}
			for _, x := range f.lost {
				if n := l.forgetLocked(x.from, x.to); n < lifePositions/2 {
					lost += n
				} // else it is where the positions of two lives meet
			}
			for _, e := range f.entries {
				if e.pos >= l.low && !l.settled.has(e.pos) {
					if int(e.route) >= len(q.routes) {
						e.route = 0
					}
					queued[e.route]++
					have++
				}
			}
			pos = l.settled.after(max(f.end, l.low, pos+1))
		}
		l.read = max(l.read, l.low)
		l.unsaved = l.unsaved || l.next > 1
	}
	// Where the progress of a lane is lost, what is missing between two batches may
	// as well have been delivered, or never written. The ledger knows how many
	// there can have been.
	if counted, n := q.countedLocked(); counted {
		lost = min(lost, uint64(max(n-int64(have), 0)))
	}
	s.stats.Lost += lost
	if lost > 0 {
		s.o.Logger.Error("storage: messages are missing and counted as lost", "queue", q.name, "count", lost)
	}
	if !q.session {
		q.o.Ledger = true // until the options are given again
		for _, r := range q.routes {
			r.balance(queued[r.id])
		}
	}
	q.unsavedLocked()
	s.touchLocked(q, 0)
	s.lazy = true
	return nil
}

// balance makes the counts true of what is queued: what is there was accepted,
// and what is not there and not accounted for is lost.
func (r *route) balance(queued uint64) {
	have := int64(r.Taken()) - int64(r.Settled())
	if d := int64(queued) - have; d > 0 {
		r.Accepted += uint64(d)
	} else {
		r.Lost += uint64(-d)
	}
	r.unsaved = true
}

// unbalanced reports whether the counts of a queue are not true of its length.
func (q *Queue) unbalanced() bool {
	counted, have := q.countedLocked()
	n, _ := q.sizeLocked()
	return counted && have != n
}

// countedLocked says how many messages are queued by the ledger, if that has
// counted any.
func (q *Queue) countedLocked() (counted bool, queued int64) {
	for _, r := range q.routes {
		queued += int64(r.Taken()) - int64(r.Settled())
		counted = counted || r.Taken() > 0
	}
	return counted, queued
}

// fillChunks finds the chunks whose rows are missing.
func (s *Store) fillChunks(l *lane) error {
	known := map[uint32]chunk{}
	for _, c := range l.chunks {
		known[c.id] = c
	}
	prefix := batchPrefix(keyBatch, l.q.id, l.id)
	for from := prefix; ; {
		var id uint32
		found := false
		err := s.eng.scan(prefix, from, true, func(k, _ []byte) bool {
			c, first, ok := splitBatchKey(k)
			if id = c; ok {
				found = true
				if _, ok := known[c]; !ok {
					known[c] = chunk{id: c, first: first}
				}
			}
			return !ok
		})
		if err != nil {
			return fmt.Errorf("storage: look for the chunks of queue %q: %w", l.q.name, err)
		}
		if !found || id == 1<<32-1 {
			break
		}
		from = batchChunkPrefix(l.q.id, l.id, id+1)
	}
	l.chunks = l.chunks[:0]
	for _, id := range slices.Sorted(maps.Keys(known)) {
		l.chunks = append(l.chunks, known[id])
	}
	return nil
}

// orphans lists the queues that have batches and no name. It looks at one key
// of each queue.
func orphans(eng engine, known func(uint32) bool) (ids []uint32, err error) {
	prefix := []byte{keyBatch}
	for from := prefix; ; {
		var id uint32
		found := false
		err := eng.scan(prefix, from, true, func(k, _ []byte) bool {
			if len(k) < 5 {
				return true
			}
			id, found = binary.BigEndian.Uint32(k[1:]), true
			return false
		})
		if err != nil {
			return nil, fmt.Errorf("storage: look for batches without a queue: %w", err)
		}
		if !found {
			return ids, nil
		}
		if !known(id) {
			ids = append(ids, id)
		}
		if id == 1<<32-1 {
			return ids, nil
		}
		from = queueKey(keyBatch, id+1)
	}
}

// adopt makes a queue for batches whose queue is not known any more, so that
// they can still be read and carried away.
func (s *Store) adopt(id uint32) *Queue {
	name := fmt.Sprintf("lost+found/%d", id)
	s.o.Logger.Error("storage: a queue has lost its name, and gets another one", "queue", name)
	q := s.newQueueLocked(id, name, false)
	s.nextID = max(s.nextID, id+1)
	return q
}

// hasBatches reports whether there are messages of a queue on disk.
func hasBatches(eng engine, id uint32) bool {
	found := false
	prefix := queueKey(keyBatch, id)
	_ = eng.scan(prefix, prefix, true, func(_, _ []byte) bool {
		found = true
		return false
	})
	return found
}
