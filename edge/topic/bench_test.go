package topic

import (
	"fmt"
	"testing"
)

// site is a tree of 1,000 sensors, each with a subscription of its own, and a
// few with wildcards.
func site() *Tree[string, byte] {
	t := new(Tree[string, byte])
	for i := range 1000 {
		t.Add(fmt.Sprintf("site/room%d/sensor%d/temperature", i%50, i), "c", 1)
	}
	for _, f := range []string{"#", "site/+/+/temperature", "site/room7/#", "+/room7/+/+", "alarm/#", "$SYS/#"} {
		t.Add(f, "w", 0)
	}
	return t
}

func TestMatchDoesNotAllocate(t *testing.T) {
	tree := site()
	var wild Tree[string, byte]
	for i := range 64 { // every mix of a and + in six levels
		f := ""
		for b := range 6 {
			f += string("a+"[i>>b&1]) + "/"
		}
		wild.Add(f+"#", "k", 0)
	}
	sum := 0
	visit := func(string, byte) { sum++ }
	if n := testing.AllocsPerRun(100, func() {
		tree.Match("site/room7/sensor7/temperature", visit)
		tree.Match("nobody/wants/this", func(string, byte) { sum++ })
		wild.Match("a/a/a/a/a/a/a", visit)
		Match("site/+/#", "site/room7/sensor7/temperature")
		_ = ValidName("site/room7") == nil && ValidFilter("site/+/#") == nil
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if want := 101 * (5 + 1 + 64); sum != want {
		t.Errorf("%d visits, want %d", sum, want)
	}
}

func BenchmarkTreeMatch(b *testing.B) {
	tree := site()
	sum := 0
	b.ReportAllocs()
	for b.Loop() {
		tree.Match("site/room7/sensor7/temperature", func(_ string, v byte) { sum += int(v) })
	}
}

func BenchmarkTreeMatchNobody(b *testing.B) {
	tree := site()
	b.ReportAllocs()
	for b.Loop() {
		tree.Match("other/room7/sensor7/humidity", func(string, byte) {})
	}
}

func BenchmarkMatch(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Match("site/+/sensor7/#", "site/room7/sensor7/temperature")
	}
}

func BenchmarkTreeAddRemove(b *testing.B) {
	tree := site()
	b.ReportAllocs()
	for b.Loop() {
		tree.Add("site/room7/sensor7/humidity", "k", 0)
		tree.Remove("site/room7/sensor7/humidity", "k")
	}
}

func BenchmarkNamesMatch(b *testing.B) {
	var n Names[int]
	for i := range 10000 {
		n.Set(fmt.Sprintf("site/room%d/sensor%d/temperature", i%50, i), i)
	}
	b.ReportAllocs()
	for b.Loop() {
		found := 0
		n.Match("site/room7/+/temperature", func(string, int) bool { found++; return true })
		if found != 200 {
			b.Fatal(found)
		}
	}
}
