package topic

import (
	"slices"
	"strings"
	"testing"
)

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"sport+", "a+/b", "sport#", "a/b#", "#/a", "sport/+/#", "", "\x00", "\xff", "a/#/", "$share/g/+"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if err := ValidFilter(s); (err == nil) != oracleFilter(s) {
			t.Fatalf("%q: %v", s, err)
		}
		name := oracleFilter(s) && !strings.ContainsAny(s, "+#")
		if err := ValidName(s); (err == nil) != name {
			t.Fatalf("%q: %v", s, err)
		}
		group, rest, err := ParseShared(s)
		if err == nil && group != "" && "$share/"+group+"/"+rest != s {
			t.Fatalf("%q: %q and %q", s, group, rest)
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("sport/+/#", "sport/#", "sport/a")
	f.Add("+/b", "#", "$a/b")
	f.Add("a/", "+/+", "a/")
	f.Fuzz(func(t *testing.T, a, b, name string) {
		Match(a, name) // whatever they are, it must end
		Overlap(a, b)
		Covers(a, b)
		if ValidFilter(a) != nil || ValidName(name) != nil {
			return
		}
		got := Match(a, name)
		if got != oracleMatch(a, name) {
			t.Fatalf("%q matches %q: %v", a, name, got)
		}
		var tree Tree[int, int]
		tree.Add(a, 1, 1)
		if len(tree.matched(name)) == 1 != got {
			t.Fatalf("a tree with %q thinks otherwise of %q", a, name)
		}
		var names Names[int]
		names.Set(name, 1)
		compareNames(t, &names, map[string]int{name: 1}, a)
		if ValidFilter(b) != nil {
			return
		}
		if Overlap(a, b) != Overlap(b, a) || !Overlap(a, a) || Overlap(a, name) != got {
			t.Fatalf("overlap of %q, %q and %q", a, b, name)
		}
		if !Covers(a, a) || Covers(a, name) != got || Covers(a, b) && Match(b, name) && !got {
			t.Fatalf("%q covers %q with %q", a, b, name)
		}
		if got && Match(b, name) && !Overlap(a, b) {
			t.Fatalf("%q and %q overlap in %q", a, b, name)
		}
	})
}

// FuzzTree reads script as steps: what to do, how many levels, and the levels.
func FuzzTree(f *testing.F) {
	f.Add([]byte{0, 2, 0, 1, 0, 1, 0, 4, 2, 0, 1})
	f.Add([]byte{0, 3, 2, 2, 2, 0, 3, 2, 2, 1, 1, 3, 2, 2, 2, 2, 3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		var tree Tree[int, int]
		m := model{}
		var names Names[int]
		stored := map[string]int{}
		for step := 0; len(script) > 2 && step < 200; step++ {
			do, n := script[0], min(1+int(script[1]%6), len(script)-2)
			levels := script[2 : 2+n]
			script = script[2+n:]
			filter := filterFrom(levelsFrom(levels, filterWords), do&0x80 != 0)
			name := levelsFrom(levels, []string{"a", "b", "", "c", "$a"})
			switch do % 4 {
			case 0, 1:
				apply(t, &tree, m, do%4 == 0, pair{filter, int(do>>2) % 3}, step)
			case 2:
				if name == "" {
					continue
				}
				if got, want := tree.matched(name), m.match(name); !slices.Equal(got, want) {
					t.Fatalf("%q: got %v, want %v", name, got, want)
				}
				names.Set(name, step)
				stored[name] = step
			case 3:
				compareNames(t, &names, stored, filter)
				names.Delete(name)
				delete(stored, name)
			}
			for _, err := range []error{tree.filters.check(), names.names.check()} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
