package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

// Space is given back below the low-water mark only. In the chunk that is being
// written, passed batches are deleted one by one; small queues never need more.
// A full chunk that is passed is dropped as a whole, several together, because
// Badger stops writes and reads meanwhile. So is the last chunk of a backlog that
// has drained: deletions give its space back only when Badger happens to merge.

const (
	// sweepEvery is the time between two looks at the disk while there is
	// other work.
	sweepEvery = time.Second
	// sweepRows is the most rows deleted at a time.
	sweepRows = 512
	// backlogBytes in a lane are a backlog, and aboutEmpty is what a lane may
	// still have when that has drained.
	backlogBytes = 1 << 20
	aboutEmpty   = 64 << 10
)

// passedChunk is a full chunk below the mark, which is not on disk yet.
type passedChunk struct {
	lane *lane
	chunk
	end uint64
}

// sweep adds the deletion of passed batches to the open transaction. It is
// called by the committer, and looks at the disk when that is idle, or seldom.
func (s *Store) sweep(idle bool) {
	if !idle && time.Since(s.lastSweep) < sweepEvery {
		return
	}
	s.lastSweep = time.Now()
	type job struct {
		l        *lane
		chunk    uint32
		from, to uint64
		empty    bool
	}
	var jobs []job
	s.mu.Lock()
	for l := range s.sweepable {
		delete(s.sweepable, l)
		backlog := s.drainedLocked(l)
		for len(l.chunks) > 1 && l.chunks[1].first <= l.low {
			s.passed = append(s.passed, passedChunk{l, l.chunks[0], l.chunks[1].first})
			l.chunks = l.chunks[1:]
			l.swept = max(l.swept, l.chunks[0].first)
		}
		if to := min(l.low, l.committed); len(l.chunks) == 1 && l.swept < to && !backlog && s.failed == nil {
			jobs = append(jobs, job{l, l.chunks[0].id, l.swept, to, l.low >= l.committed})
		}
	}
	s.mu.Unlock()
	for _, j := range jobs {
		keys, swept := s.passedBatches(j.l, j.chunk, j.from, j.to, j.empty)
		if len(keys) == 0 {
			continue
		}
		q := j.l.q
		s.mu.Lock()
		// The mark that passes these batches is in this transaction or an
		// earlier one: a crash leaves the old mark with its batches, or the new
		// mark and perhaps some batches that the next sweep finds.
		if !q.removed {
			s.touchLocked(q, 0)
			j.l.swept = max(j.l.swept, swept)
			j.l.unsaved = true
			for _, k := range keys {
				s.addLocked(op{key: k, own: true})
			}
			if len(keys) >= sweepRows-1 {
				s.sweepable[j.l] = struct{}{}
			}
			s.lazyLocked()
		}
		s.mu.Unlock()
	}
}

// drainedLocked reports whether the last chunk of a lane is to go as a whole, and
// begins another one when the time for that has come.
func (s *Store) drainedLocked(l *lane) (backlog bool) {
	least := min(backlogBytes, int64(s.o.ChunkBytes)/4)
	switch {
	case l.q.removed || s.failed != nil || len(l.chunks) == 0 || l.mostBytes < least || int64(l.chunkBytes) < least:
		return false
	case l.bytes > min(aboutEmpty, least/4):
		return true
	}
	l.mostBytes = l.bytes
	l.open = nil
	l.beginChunkLocked(l.written)
	l.unsaved = true
	s.touchLocked(l.q, 0)
	s.lazyLocked()
	return true
}

// passedBatches lists the batches of a chunk that end at or below to, and the
// position below which none is left then. A batch ends where the next one
// begins at the latest; the last one ends below to only if nothing is queued.
func (s *Store) passedBatches(l *lane, chunk uint32, from, to uint64, empty bool) (keys [][]byte, swept uint64) {
	var firsts []uint64
	more := false
	// From where the last sweep ended: the deletions before it would cost more
	// to pass than the rows themselves.
	prefix := batchChunkPrefix(l.q.id, l.id, chunk)
	err := s.eng.scan(prefix, batchKey(l.q.id, l.id, chunk, from), true, func(k, _ []byte) bool {
		_, first, ok := splitBatchKey(k)
		if !ok {
			return true
		}
		if first > to || len(keys) == sweepRows {
			more = true
			return false
		}
		keys, firsts = append(keys, bytes.Clone(k)), append(firsts, first)
		return true
	})
	if err != nil {
		s.o.Logger.Warn("storage: sweep", "queue", l.q.name, "error", err)
		return nil, 0
	}
	n := len(keys)
	if n == 0 {
		return nil, 0
	}
	if empty && !more && firsts[n-1] < to {
		return keys, to
	}
	return keys[:n-1], firsts[n-1]
}

// giveBack drops passed chunks and the rows of removed queues. It is called by
// the committer, when it is idle, or seldom.
func (s *Store) giveBack() {
	s.mu.Lock()
	if s.failed != nil || s.crashed {
		s.mu.Unlock()
		return
	}
	var ready []passedChunk
	s.passed = slices.DeleteFunc(s.passed, func(p passedChunk) bool {
		if p.lane.q.removed {
			return true // goes with the queue
		}
		if p.end > p.lane.durableLow {
			return false
		}
		ready = append(ready, p)
		return true
	})
	removed := s.removedIDs
	s.removedIDs = nil
	s.mu.Unlock()

	var prefixes [][]byte
	for _, p := range ready {
		prefixes = append(prefixes, batchChunkPrefix(p.lane.q.id, p.lane.id, p.id))
	}
	var small [][]byte
	for _, id := range removed {
		keys, large := s.rowsOf(id)
		if large {
			for _, kind := range []byte{keyBatch, keyMeta, keyQuarantine, keyDamaged} {
				prefixes = append(prefixes, queueKey(kind, id))
			}
		}
		small = append(small, keys...)
	}
	if len(prefixes) > 0 {
		start := time.Now()
		// The mark behind these chunks is on disk, and so is the removal of the
		// queues: a crash here leaves rows that nobody looks at.
		s.engMu.Lock()
		err := s.eng.drop(prefixes)
		s.engMu.Unlock()
		took := time.Since(start)
		s.mu.Lock()
		if err == nil {
			s.stats.Drops++
			s.stats.LongestDrop = max(s.stats.LongestDrop, took)
		} else {
			s.passed = append(s.passed, ready...)
			s.removedIDs = append(s.removedIDs, removed...)
		}
		s.mu.Unlock()
		switch {
		case errors.Is(err, errFlushing):
			return // the next look is soon
		case err != nil:
			s.o.Logger.Warn("storage: space was not given back, and will be tried again", "error", err)
			s.lastDrop = time.Now()
			return
		}
	}
	s.lastDrop = time.Now()
	if len(ready)+len(removed) == 0 {
		return
	}
	s.mu.Lock()
	for _, p := range ready {
		s.addLocked(op{key: chunkKey(p.lane.q.id, p.lane.id, p.id), own: true})
	}
	for _, k := range small {
		s.addLocked(op{key: k, own: true})
	}
	for _, id := range removed {
		// Last of all: while this row is there, the rest is garbage.
		s.addLocked(op{key: queueKey(keyRemoved, id), own: true})
	}
	s.lazyLocked()
	s.mu.Unlock()
}

// rowsOf lists the rows of a removed queue; large if there are too many to be
// deleted one by one.
func (s *Store) rowsOf(id uint32) (keys [][]byte, large bool) {
	for _, kind := range []byte{keyBatch, keyMeta, keyQuarantine, keyDamaged} {
		prefix := queueKey(kind, id)
		err := s.eng.scan(prefix, prefix, true, func(k, _ []byte) bool {
			keys = append(keys, bytes.Clone(k))
			return len(keys) <= sweepRows
		})
		if err != nil || len(keys) > sweepRows {
			return nil, true
		}
	}
	return keys, false
}

// removedOf reads the ids of queues whose removal was not finished.
func removedOf(eng engine) (map[uint32]bool, error) {
	ids := map[uint32]bool{}
	prefix := []byte{keyRemoved}
	err := eng.scan(prefix, prefix, true, func(k, _ []byte) bool {
		if len(k) == 5 {
			ids[binary.BigEndian.Uint32(k[1:])] = true
		}
		return true
	})
	return ids, err
}
