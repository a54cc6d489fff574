package topic

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// check tells what is wrong with the shape of a trie: each node below the root
// has a value or two children, and labels and keys agree.
func (t *trie[E]) check() error {
	set := 0
	var walk func(n *node[E]) error
	walk = func(n *node[E]) error {
		count := 0
		each := func(key string, c *node[E]) error {
			if c == nil {
				return nil
			}
			count++
			if firstLevel(c.label) != key {
				return fmt.Errorf("label %q below %q", c.label, key)
			}
			return walk(c)
		}
		for k, c := range n.children {
			if k == "+" || k == "#" || c == nil {
				return fmt.Errorf("child %q is in the wrong place", k)
			}
			if err := each(k, c); err != nil {
				return err
			}
		}
		if err := each("+", n.plus); err != nil {
			return err
		}
		if err := each("#", n.hash); err != nil {
			return err
		}
		if n.set {
			set++
		} else if n != &t.root && count < 2 {
			return fmt.Errorf("node %q is of no use: %d children", n.label, count)
		}
		return nil
	}
	if err := walk(&t.root); err != nil {
		return err
	}
	if set != t.len {
		return fmt.Errorf("%d values, but a length of %d", set, t.len)
	}
	return nil
}

type pair struct {
	filter string
	key    int
}

// model is the tree as a plain map.
type model map[pair]int

func (m model) match(name string) []string {
	var all []string
	for p, v := range m {
		if oracleMatch(p.filter, name) {
			all = append(all, fmt.Sprint(p.key, v))
		}
	}
	slices.Sort(all)
	return all
}

func (t *Tree[K, V]) matched(name string) []string {
	var all []string
	t.Match(name, func(k K, v V) { all = append(all, fmt.Sprint(k, v)) })
	slices.Sort(all)
	return all
}

// apply does one step on both and compares what they say of it.
func apply(t testing.TB, tree *Tree[int, int], m model, add bool, p pair, v int) {
	t.Helper()
	_, had := m[p]
	if add {
		m[p] = v
		if tree.Add(p.filter, p.key, v) != had {
			t.Fatalf("Add %v: replaced is not %v", p, had)
		}
	} else {
		delete(m, p)
		if tree.Remove(p.filter, p.key) != had {
			t.Fatalf("Remove %v: not %v", p, had)
		}
	}
	if tree.Len() != len(m) {
		t.Fatalf("Len is %d of %d", tree.Len(), len(m))
	}
}

var filterWords = []string{"a", "b", "+", "", "c", "$a", "+", "a"}

// filterFrom makes a valid filter: wildcards are whole levels in filterWords.
func filterFrom(s string, hash bool) string {
	if hash {
		return s + "/#"
	}
	if s == "" {
		return "#"
	}
	return s
}

func TestATreeAgreesWithAPlainMapThroughThousandsOfChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var tree Tree[int, int]
	m := model{}
	for i := range 20000 {
		p := pair{filterFrom(randomLevels(r, filterWords, 4), r.IntN(3) == 0), r.IntN(3)}
		grow := i/2000%2 == 0 // wax and wane
		apply(t, &tree, m, r.IntN(10) < 3 == !grow, p, i)
		if i%20 == 0 {
			if err := tree.filters.check(); err != nil {
				t.Fatal(err)
			}
			name := randomLevels(r, []string{"a", "b", "", "c", "$a", "d"}, 5)
			if name == "" {
				continue
			}
			if got, want := tree.matched(name), m.match(name); !slices.Equal(got, want) {
				t.Fatalf("%q: got %v, want %v", name, got, want)
			}
		}
	}
	for p := range maps.Clone(m) {
		apply(t, &tree, m, false, p, 0)
	}
	if err := tree.filters.check(); err != nil || !tree.filters.root.leaf() {
		t.Errorf("an emptied tree has nodes: %v", err)
	}
}

func TestAKeyIsVisitedOncePerFilter(t *testing.T) {
	var tree Tree[string, int]
	for i, f := range []string{"a/b", "a/+", "a/#", "#", "+/b", "a/b/#", "x"} {
		tree.Add(f, "k", i)
	}
	if got := tree.matched("a/b"); len(got) != 6 {
		t.Errorf("visited %v", got)
	}
	if tree.Add("a/b", "k", 9) != true || tree.Add("a/b", "other", 9) != false || tree.Len() != 8 {
		t.Error("a second value for the same filter and key must replace the first")
	}
}

func TestWhatWasNeverAddedIsNotRemoved(t *testing.T) {
	var tree Tree[int, int]
	tree.Add("a/b/c", 1, 1)
	tree.Add("a/b/d", 1, 1)
	for _, f := range []string{"a", "a/b", "a/b/", "a/b/c/d", "a/b/cc", "a/bb", "", "#", "+"} {
		if tree.Remove(f, 1) {
			t.Errorf("%q removed", f)
		}
	}
	if tree.Remove("a/b/c", 2) || tree.Len() != 2 {
		t.Error("another key removed")
	}
}

func TestManyKeysOfOneFilterComeAndGo(t *testing.T) {
	var tree Tree[int, int]
	const many = 50000
	for i := range many {
		tree.Add("alarm", i, i)
	}
	for i := 0; i < many; i += 2 {
		tree.Remove("alarm", i)
	}
	if got := len(tree.matched("alarm")); got != many/2 || tree.Add("alarm", 1, 0) != true || tree.Add("alarm", 2, 0) {
		t.Errorf("%d keys are left", got)
	}
	for i := range many {
		tree.Remove("alarm", i)
	}
	if tree.Len() != 0 || !tree.filters.root.leaf() {
		t.Error("the filter is still there")
	}
}

func TestALongFilterIsTwoNodesAndNotThousands(t *testing.T) {
	var tree Tree[int, int]
	long := strings.Repeat("+/", 30000)
	tree.Add(long+"a", 1, 1)
	tree.Add(long+"b", 1, 1)
	nodes := 0
	for n := tree.filters.root.plus; n != nil; n = n.plus {
		nodes++
	}
	if nodes != 1 || len(tree.filters.root.plus.children) != 2 {
		t.Errorf("%d nodes", nodes)
	}
}

func TestNamesAgreeWithAPlainMapThroughThousandsOfChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	words := []string{"a", "b", "", "c", "$a", "ab"}
	var names Names[int]
	m := map[string]int{}
	for i := range 20000 {
		name := randomLevels(r, words, 4)
		if name == "" {
			continue
		}
		old, had := m[name]
		if r.IntN(10) < 4 == (i/2000%2 == 0) {
			if got, ok := names.Delete(name); got != old || ok != had {
				t.Fatalf("Delete %q: %d, %v", name, got, ok)
			}
			delete(m, name)
		} else {
			if got, ok := names.Set(name, i); got != old || ok != had {
				t.Fatalf("Set %q: %d, %v", name, got, ok)
			}
			m[name] = i
		}
		if got, ok := names.Get(name); got != m[name] || (ok != (m[name] == i && i > 0)) && i > 0 {
			t.Fatalf("Get %q: %d, %v", name, got, ok)
		}
		if names.Len() != len(m) {
			t.Fatalf("Len is %d of %d", names.Len(), len(m))
		}
		if i%20 == 0 {
			if err := names.names.check(); err != nil {
				t.Fatal(err)
			}
			compareNames(t, &names, m, filterFrom(randomLevels(r, filterWords, 5), r.IntN(3) == 0))
			compareNames(t, &names, m, "#")
		}
	}
}

func compareNames(t testing.TB, names *Names[int], m map[string]int, filter string) {
	t.Helper()
	got := map[string]int{}
	names.Match(filter, func(name string, v int) bool {
		if _, twice := got[name]; twice {
			t.Fatalf("%q: %q visited twice", filter, name)
		}
		got[name] = v
		return true
	})
	want := maps.Clone(m)
	maps.DeleteFunc(want, func(name string, _ int) bool { return !oracleMatch(filter, name) })
	if !maps.Equal(got, want) {
		t.Fatalf("%q: got %v, want %v", filter, got, want)
	}
}

func TestMatchOfNamesStopsWhenItIsTold(t *testing.T) {
	var names Names[int]
	for i := range 10 {
		names.Set(fmt.Sprint("a/", i), i)
	}
	for _, f := range []string{"#", "a/+", "a/#", "+/+"} {
		n := 0
		names.Match(f, func(string, int) bool { n++; return n < 3 })
		if n != 3 {
			t.Errorf("%q: %d visits", f, n)
		}
	}
}
