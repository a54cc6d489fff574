package topic

import "strings"

// trie maps strings of levels to values. A node's label has one or more levels:
// a chain without branches is one node, so that a filter of 32,768 levels costs
// two nodes and not 32,768.
//
// Each node below the root has a value or at least two children.
type trie[E any] struct {
	root node[E]
	len  int
}

type node[E any] struct {
	label string
	// children are by the first level of their label; plus and hash are those
	// whose first level is "+" and "#".
	children   map[string]*node[E]
	plus, hash *node[E]
	value      E
	set        bool
}

func (n *node[E]) child(level string) *node[E] {
	switch level {
	case "+":
		return n.plus
	case "#":
		return n.hash
	}
	return n.children[level]
}

// put makes c the child for the first level of its label.
func (n *node[E]) put(c *node[E]) {
	switch level := firstLevel(c.label); level {
	case "+":
		n.plus = c
	case "#":
		n.hash = c
	default:
		if n.children == nil {
			n.children = make(map[string]*node[E], 1)
		}
		n.children[level] = c
	}
}

func (n *node[E]) drop(c *node[E]) {
	switch level := firstLevel(c.label); level {
	case "+":
		n.plus = nil
	case "#":
		n.hash = nil
	default:
		delete(n.children, level)
		if len(n.children) == 0 {
			n.children = nil
		}
	}
}

// only is the child of n if there is exactly one.
func (n *node[E]) only() *node[E] {
	count, c := len(n.children), (*node[E])(nil)
	for _, other := range []*node[E]{n.plus, n.hash} {
		if other != nil {
			count, c = count+1, other
		}
	}
	if count != 1 {
		return nil
	}
	for _, c = range n.children {
	}
	return c
}

func (n *node[E]) leaf() bool { return len(n.children) == 0 && n.plus == nil && n.hash == nil }

// find returns the node of key and its parent, or nil.
func (t *trie[E]) find(key string) (n, parent *node[E]) {
	n = &t.root
	for {
		parent, n = n, n.child(firstLevel(key))
		if n == nil || !strings.HasPrefix(key, n.label) {
			return nil, nil
		}
		if len(key) == len(n.label) {
			if !n.set {
				return nil, nil
			}
			return n, parent
		}
		if key[len(n.label)] != '/' {
			return nil, nil
		}
		key = key[len(n.label)+1:]
	}
}

// insert returns the node of key with set true; fresh if it was not there.
func (t *trie[E]) insert(key string) (n *node[E], fresh bool) {
	parent := &t.root
	for {
		n = parent.child(firstLevel(key))
		if n == nil {
			n = &node[E]{label: key}
			parent.put(n)
			break
		}
		common := commonLevels(n.label, key)
		if common < len(n.label) {
			n = parent.split(n, common)
		}
		if common == len(key) {
			break
		}
		parent, key = n, key[common+1:]
	}
	fresh = !n.set
	if fresh {
		n.set = true
		t.len++
	}
	return n, fresh
}

// split puts a node with the first at bytes of c's label between n and c. Both
// labels become copies: neither keeps the other's bytes alive when it is gone.
func (n *node[E]) split(c *node[E], at int) *node[E] {
	mid := &node[E]{label: strings.Clone(c.label[:at])}
	c.label = strings.Clone(c.label[at+1:])
	mid.put(c)
	n.put(mid)
	return mid
}

// remove takes the value from n, a node that find gave with its parent.
func (t *trie[E]) remove(n, parent *node[E]) {
	var none E
	n.value, n.set = none, false
	t.len--
	if n.leaf() {
		parent.drop(n)
		n = parent
	}
	if c := n.only(); c != nil && !n.set && n != &t.root {
		// n takes the place of its child: n's parent need not know.
		label := n.label + "/" + c.label
		*n = *c
		n.label = label
	}
}

func firstLevel(s string) string { return s[:levelEnd(s, 0)] }

// commonLevels is the length of the longest run of whole levels that a and b
// both start with. Their first levels must be the same.
func commonLevels(a, b string) int {
	n := min(len(a), len(b))
	i := 0
	for i < n && a[i] == b[i] {
		i++
	}
	if (i == len(a) || a[i] == '/') && (i == len(b) || b[i] == '/') {
		return i
	}
	return strings.LastIndexByte(a[:i], '/')
}
