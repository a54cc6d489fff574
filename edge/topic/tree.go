package topic

// Tree maps topic filter and key to a value: who has subscribed to what. The
// zero value is empty and ready.
//
// It is not safe for concurrent use. Several calls of Match may run at a time,
// if nothing else does.
type Tree[K comparable, V any] struct {
	filters trie[entries[K, V]]
	len     int
}

// Add sets the value of filter and key; replaced tells that there was one.
// filter must be valid.
func (t *Tree[K, V]) Add(filter string, key K, v V) (replaced bool) {
	n, _ := t.filters.insert(filter)
	if n.value.set(key, v) {
		return true
	}
	t.len++
	return false
}

// Remove takes the value of filter and key away and tells whether there was one.
func (t *Tree[K, V]) Remove(filter string, key K) bool {
	n, parent := t.filters.find(filter)
	if n == nil || !n.value.remove(key) {
		return false
	}
	t.len--
	if len(n.value.list) == 0 {
		t.filters.remove(n, parent)
	}
	return true
}

// Len is the number of pairs of filter and key.
func (t *Tree[K, V]) Len() int { return t.len }

// branch is a node whose filters match the name up to pos.
type branch[K comparable, V any] struct {
	n   *node[entries[K, V]]
	pos int
}

// Match calls visit for each filter and key whose filter matches name, in no
// particular order: a key with several such filters is visited once for each.
// name must be valid. visit must not change the tree.
//
// Each node of the tree is looked at once at most, however many wildcards there
// are. There are no allocations below 16 open branches.
func (t *Tree[K, V]) Match(name string, visit func(key K, v V)) {
	if name == "" {
		return
	}
	var buf [16]branch[K, V]
	open := buf[:0]
	at := branch[K, V]{n: &t.filters.root}
	for {
		n := at.n
		// Wildcards at the first level do not match "$SYS" [MQTT-4.7.2-1].
		wild := n != &t.filters.root || name[0] != '$'
		if wild && n.hash != nil {
			n.hash.value.visit(visit) // also for name's end (MQTT 5, 4.7.1.2)
		}
		var next, other branch[K, V]
		if at.pos > len(name) {
			n.value.visit(visit)
		} else {
			if n.children != nil {
				next = follow(n.children[name[at.pos:levelEnd(name, at.pos)]], name, at.pos, visit)
			}
			if wild && n.plus != nil {
				other = follow(n.plus, name, at.pos, visit)
			}
		}
		switch {
		case next.n != nil && other.n != nil:
			open = append(open, other)
		case next.n == nil && other.n != nil:
			next = other
		case next.n == nil:
			if len(open) == 0 {
				return
			}
			next, open = open[len(open)-1], open[:len(open)-1]
		}
		at = next
	}
}

// follow compares the label of n, which may be nil, with the levels of name from
// pos on. It returns n with the position behind them if they match, and visits
// n itself if its label ends with a "#" that matches.
func follow[K comparable, V any](n *node[entries[K, V]], name string, pos int, visit func(K, V)) branch[K, V] {
	if n == nil {
		return branch[K, V]{}
	}
	label := n.label
	for l := 0; ; {
		lEnd := levelEnd(label, l)
		level := label[l:lEnd]
		if level == "#" && lEnd == len(label) {
			n.value.visit(visit)
			return branch[K, V]{}
		}
		if pos > len(name) {
			return branch[K, V]{}
		}
		end := levelEnd(name, pos)
		if level != "+" && level != name[pos:end] {
			return branch[K, V]{}
		}
		pos = end + 1
		if lEnd == len(label) {
			return branch[K, V]{n, pos}
		}
		l = lEnd + 1
	}
}

// entries are the keys and values of one filter: a list that is quick to visit,
// and for a long one an index, so that a filter which thousands have subscribed
// to is not searched from its start for each of them.
type entries[K comparable, V any] struct {
	list  []entry[K, V]
	index map[K]int // position in list; nil for a short list
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

// indexFrom is the length of a list from which on it has an index.
const indexFrom = 16

func (e *entries[K, V]) find(key K) (int, bool) {
	if e.index != nil {
		i, ok := e.index[key]
		return i, ok
	}
	for i := range e.list {
		if e.list[i].key == key {
			return i, true
		}
	}
	return 0, false
}

func (e *entries[K, V]) set(key K, v V) (replaced bool) {
	if i, ok := e.find(key); ok {
		e.list[i].value = v
		return true
	}
	e.list = append(e.list, entry[K, V]{key, v})
	switch {
	case e.index != nil:
		e.index[key] = len(e.list) - 1
	case len(e.list) == indexFrom:
		e.index = make(map[K]int, 2*indexFrom)
		for i := range e.list {
			e.index[e.list[i].key] = i
		}
	}
	return false
}

func (e *entries[K, V]) remove(key K) bool {
	i, ok := e.find(key)
	if !ok {
		return false
	}
	last := len(e.list) - 1
	e.list[i] = e.list[last]
	e.list[last] = entry[K, V]{} // not kept alive by the array
	e.list = e.list[:last]
	if e.index == nil {
		return true
	}
	delete(e.index, key)
	if i < last {
		e.index[e.list[i].key] = i
	}
	if len(e.list) < indexFrom/2 {
		e.index = nil
		e.list = append([]entry[K, V](nil), e.list...) // and the large array goes
	}
	return true
}

func (e *entries[K, V]) visit(f func(K, V)) {
	for i := range e.list {
		f(e.list[i].key, e.list[i].value)
	}
}
