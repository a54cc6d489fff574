package topic

// Names maps topic names to values and finds those that a filter matches: the
// retained messages. The zero value is empty and ready.
//
// It is not safe for concurrent use. Several calls of Get and Match may run at
// a time, if nothing else does.
type Names[V any] struct {
	names trie[named[V]]
}

// named has the whole name beside the value: a node's label is but its end.
type named[V any] struct {
	name  string
	value V
}

// Set sets the value of name, which must be valid, and returns the old one.
func (n *Names[V]) Set(name string, v V) (old V, replaced bool) {
	at, fresh := n.names.insert(name)
	if fresh {
		at.value.name = name
	}
	old, at.value.value = at.value.value, v
	return old, !fresh
}

// Delete takes name away and returns the value that it had.
func (n *Names[V]) Delete(name string) (old V, ok bool) {
	at, parent := n.names.find(name)
	if at == nil {
		return old, false
	}
	old = at.value.value
	n.names.remove(at, parent)
	return old, true
}

// Get returns the value of name.
func (n *Names[V]) Get(name string) (v V, ok bool) {
	at, _ := n.names.find(name)
	if at == nil {
		return v, false
	}
	return at.value.value, true
}

// Len is the number of names.
func (n *Names[V]) Len() int { return n.names.len }

// ends is a node whose names match the filter up to pos, or with all in which
// case everything below it matches too.
type ends[V any] struct {
	n   *node[named[V]]
	pos int
	all bool
}

// Match calls visit for each name that filter matches, in no particular order,
// until visit returns false. filter must be valid. visit must not change n.
//
// Each name is looked at once at most, and only those are that agree with the
// filter up to where they part.
func (n *Names[V]) Match(filter string, visit func(name string, v V) bool) {
	if filter == "" {
		return
	}
	root := &n.names.root
	open := []ends[V]{{n: root}}
	for len(open) > 0 {
		at := open[len(open)-1]
		open = open[:len(open)-1]
		hash := at.all || lastIsHash(filter, at.pos)
		if at.n.set && (hash || at.pos > len(filter)) {
			if !visit(at.n.value.name, at.n.value.value) {
				return
			}
		}
		if at.pos > len(filter) && !at.all {
			continue
		}
		if hash {
			for level, c := range at.n.children {
				if at.n != root || !dollar(level) {
					open = append(open, ends[V]{n: c, all: true})
				}
			}
			continue
		}
		level := filter[at.pos:levelEnd(filter, at.pos)]
		if level != "+" {
			if c := at.n.children[level]; c != nil {
				open = pursue(open, c, filter, at.pos)
			}
			continue
		}
		for level, c := range at.n.children {
			if at.n != root || !dollar(level) {
				open = pursue(open, c, filter, at.pos)
			}
		}
	}
}

// pursue compares the label of c with the levels of filter from pos on and puts
// c on open if they agree.
func pursue[V any](open []ends[V], c *node[named[V]], filter string, pos int) []ends[V] {
	label := c.label
	for l := 0; ; {
		if pos > len(filter) {
			return open
		}
		if lastIsHash(filter, pos) {
			return append(open, ends[V]{n: c, all: true})
		}
		end, lEnd := levelEnd(filter, pos), levelEnd(label, l)
		if level := filter[pos:end]; level != "+" && level != label[l:lEnd] {
			return open
		}
		pos = end + 1
		if lEnd == len(label) {
			if pos > len(filter) && !c.set {
				return open
			}
			return append(open, ends[V]{n: c, pos: pos})
		}
		l = lEnd + 1
	}
}

// dollar reports whether a first level is out of reach for wildcards
// [MQTT-4.7.2-1].
func dollar(level string) bool { return level != "" && level[0] == '$' }
