package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// A lost tail leaves no gap to see. Beside the store is a copy of the small
// rows of its queues - names, progress, counts - as of some commit: at clean
// close, and every few seconds while they change. If the store knows less than
// its copy, its tail is lost, and the copy says how much of whose. The copy is
// made of what was committed: a crash before it is written leaves an older one,
// which says nothing.

const (
	marksName    = "marks"
	marksVersion = 1
	// marksEvery is the shortest time between two writes: an SD card wears.
	marksEvery = 10 * time.Second
	// maxMarks bounds the file; beyond it sessions are left out.
	maxMarks = 256 << 10
	// maxMarksFile is the largest that is read.
	maxMarksFile = 16 << 20
)

// marks are rows by queue and key.
type marks struct {
	mu      sync.Mutex
	path    string // "" for a store in memory
	queues  map[uint32]map[string][]byte
	size    int
	changed bool
}

// markKind reports whether a row is copied, and whose it is.
func markKind(key []byte) (queue uint32, ok bool) {
	if len(key) < 6 || key[0] != keyMeta {
		return 0, false
	}
	return binary.BigEndian.Uint32(key[1:]), key[5] == metaName || key[5] == metaLane || key[5] == metaRoute
}

func nameRowKey(id uint32) string { return string(metaKey(id, metaName)) }

// isSession reports whether the row of a name is that of a session's queue.
func isSession(row []byte) bool { return len(row) > 1 && row[1] == 1 }

// take is called with what was committed.
func (m *marks) take(ops []op) error {
	if m.path == "" {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	removed := false
	for _, o := range ops {
		if len(o.key) == 5 && o.key[0] == keyRemoved && o.value != nil {
			id := binary.BigEndian.Uint32(o.key[1:])
			rows := m.queues[id]
			removed = removed || len(rows) > 0 && !isSession(rows[nameRowKey(id)])
			for k, v := range rows {
				m.size -= len(k) + len(v)
			}
			delete(m.queues, id)
			m.changed = true
		} else if id, ok := markKind(o.key); ok {
			m.setLocked(id, string(o.key), o.value)
		}
	}
	if !removed {
		return nil
	}
	// While the row that removes a queue is on disk its copy is passed over;
	// it must be gone before that row is.
	return m.writeLocked()
}

func (m *marks) setLocked(id uint32, key string, value []byte) {
	rows := m.queues[id]
	if rows == nil {
		if key[5] != metaName || isSession(value) && m.size > maxMarks {
			return // left out
		}
		rows = map[string][]byte{}
		m.queues[id] = rows
	}
	if old, ok := rows[key]; ok {
		m.size -= len(key) + len(old)
	}
	rows[key] = value
	m.size += len(key) + len(value)
	m.changed = true
}

// write writes the file if something has changed.
func (m *marks) write() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.changed || m.path == "" {
		return nil
	}
	return m.writeLocked()
}

func (m *marks) writeLocked() error {
	b := []byte{marksVersion}
	for _, id := range slices.Sorted(maps.Keys(m.queues)) {
		for _, key := range slices.Sorted(maps.Keys(m.queues[id])) {
			b = appendString(b, key)
			b = appendString(b, string(m.queues[id][key]))
		}
	}
	if err := replaceFile(m.path, seal(b)); err != nil {
		return err
	}
	m.changed = false
	return nil
}

// readMarks reads the file; what is damaged says nothing.
func readMarks(dir string) (*marks, error) {
	m := &marks{queues: map[uint32]map[string][]byte{}}
	if dir == "" {
		return m, nil
	}
	m.path = filepath.Join(dir, marksName)
	b, err := readWhole(m.path, maxMarksFile)
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	d, err := unseal(b, marksVersion, "marks")
	for len(d.b) > 0 && !d.bad && err == nil {
		key, value := d.bytes(), d.bytes()
		id, ok := markKind(key)
		if d.bad || !ok {
			return m, corrupt("marks")
		}
		if m.queues[id] == nil {
			m.queues[id] = map[string][]byte{}
		}
		m.queues[id][string(key)] = bytes.Clone(value)
		m.size += len(key) + len(value)
	}
	return m, err
}

// seqOf is the largest number of a transaction in the progress rows.
func seqOf(rows map[string][]byte) (seq uint64) {
	for key, value := range rows {
		if key[5] == metaLane {
			if d, _, err := unsealLane(value); err == nil {
				seq = max(seq, d.uvarint())
			}
		}
	}
	return seq
}

// overlay compares the rows of the store with their copy and returns those that
// count, sorted, and the queues of which the store has lost something.
func (m *marks) overlay(rows []row, removed map[uint32]bool, hasBatches func(uint32) bool) ([]row, map[uint32]bool) {
	have := map[uint32]map[string][]byte{}
	for _, r := range rows {
		if id, ok := markKind([]byte(r.key)); ok {
			if have[id] == nil {
				have[id] = map[string][]byte{}
			}
			have[id][r.key] = r.value
		}
	}
	suspect := map[uint32]bool{}
	add := map[string][]byte{}
	for id, copied := range m.queues {
		own := have[id]
		named, session := len(own[nameRowKey(id)]) > 0, isSession(copied[nameRowKey(id)])
		switch {
		case removed[id]:
		case !named && session && !hasBatches(id):
			// A session that has ended since.
		case !named || seqOf(copied) > seqOf(own):
			suspect[id] = true
			for k, v := range copied {
				// Of what both have, the newer: the copy, unless the store has
				// lost the name alone.
				if _, ok := own[k]; !ok || seqOf(copied) > seqOf(own) {
					add[k] = v
				}
			}
		}
	}
	if len(suspect) > 0 {
		for _, r := range rows {
			if _, ok := add[r.key]; !ok {
				add[r.key] = r.value
			}
		}
		rows = rows[:0:0]
		for _, k := range slices.Sorted(maps.Keys(add)) {
			rows = append(rows, row{k, add[k]})
		}
	}
	// From here on the copy is of these rows: an older one of some of them
	// beside newer ones of others would say what never was.
	m.queues, m.size = map[uint32]map[string][]byte{}, 0
	for _, r := range rows {
		if id, ok := markKind([]byte(r.key)); ok && m.path != "" {
			m.setLocked(id, r.key, r.value)
		}
	}
	m.changed = len(suspect) > 0
	return rows, suspect
}
