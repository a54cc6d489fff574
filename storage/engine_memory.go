package storage

import (
	"bytes"
	"sort"
	"sync"
)

// Memory is what a store without a disk keeps. A Store that is opened over the
// same Memory after Crash or Close finds what was committed: the reopening of
// the twin, for tests.
type Memory struct {
	mu   sync.RWMutex
	rows []row // sorted by key
}

type row struct {
	key   string
	value []byte
}

// memoryEngine is one opening of a Memory.
type memoryEngine struct{ m *Memory }

func (m *Memory) find(key string) int {
	n := len(m.rows)
	if n > 0 && m.rows[n-1].key < key {
		return n
	}
	return sort.Search(n, func(i int) bool { return m.rows[i].key >= key })
}

func (e memoryEngine) commit(ops []op) error {
	m := e.m
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range ops {
		i := m.find(string(o.key))
		found := i < len(m.rows) && m.rows[i].key == string(o.key)
		switch {
		case o.value == nil && found:
			m.rows = append(m.rows[:i], m.rows[i+1:]...)
		case o.value == nil:
		case found:
			m.rows[i].value = bytes.Clone(o.value)
		default:
			m.rows = append(m.rows, row{})
			copy(m.rows[i+1:], m.rows[i:])
			m.rows[i] = row{string(o.key), bytes.Clone(o.value)}
		}
	}
	return nil
}

func (e memoryEngine) get(key []byte) ([]byte, error) {
	m := e.m
	m.mu.RLock()
	defer m.mu.RUnlock()
	if i := m.find(string(key)); i < len(m.rows) && m.rows[i].key == string(key) {
		return bytes.Clone(m.rows[i].value), nil
	}
	return nil, nil
}

func (e memoryEngine) scan(prefix, from []byte, keysOnly bool, yield func(key, value []byte) bool) error {
	m := e.m
	m.mu.RLock()
	defer m.mu.RUnlock()
	start := max(string(from), string(prefix))
	for i := m.find(start); i < len(m.rows); i++ {
		k := []byte(m.rows[i].key)
		if !bytes.HasPrefix(k, prefix) {
			break
		}
		v := m.rows[i].value
		if keysOnly {
			v = nil
		}
		if !yield(k, v) {
			break
		}
	}
	return nil
}

func (e memoryEngine) last(prefix, upTo []byte) ([]byte, error) {
	m := e.m
	m.mu.RLock()
	defer m.mu.RUnlock()
	i := sort.Search(len(m.rows), func(i int) bool { return m.rows[i].key > string(upTo) })
	if i > 0 && bytes.HasPrefix([]byte(m.rows[i-1].key), prefix) {
		return []byte(m.rows[i-1].key), nil
	}
	return nil, nil
}

func (e memoryEngine) drop(prefixes [][]byte) error {
	m := e.m
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range prefixes {
		i := m.find(string(p))
		j := i
		for j < len(m.rows) && bytes.HasPrefix([]byte(m.rows[j].key), p) {
			j++
		}
		m.rows = append(m.rows[:i], m.rows[j:]...)
	}
	return nil
}

func (e memoryEngine) close() error { return nil }
