package topic

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// oracleMatch is MQTT 5, 4.7 written down as plainly as can be: split, recurse.
func oracleMatch(filter, name string) bool {
	if name[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	return oracleLevels(strings.Split(filter, "/"), strings.Split(name, "/"))
}

func oracleLevels(f, n []string) bool {
	switch {
	case len(f) == 1 && f[0] == "#":
		return true
	case len(f) == 0 || len(n) == 0:
		return len(f) == len(n)
	}
	return (f[0] == "+" || f[0] == n[0]) && oracleLevels(f[1:], n[1:])
}

// oracleFilter is the grammar of filters, level by level.
func oracleFilter(s string) bool {
	levels := strings.Split(s, "/")
	for i, l := range levels {
		if strings.Contains(l, "+") && l != "+" || strings.Contains(l, "#") && (l != "#" || i != len(levels)-1) {
			return false
		}
	}
	return s != "" && len(s) <= 65535 && strings.ToValidUTF8(s, "") == s && !strings.Contains(s, "\x00")
}

// strings1 are all strings of at least one and at most n of the levels.
func strings1(levels []string, n int) []string {
	all := slices.Clone(levels)
	last := all
	for range n - 1 {
		var next []string
		for _, a := range last {
			for _, l := range levels {
				next = append(next, a+"/"+l)
			}
		}
		all, last = append(all, next...), next
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// names and filters that are short enough for all pairs of them.
var (
	shortNames   = strings1([]string{"", "a", "b", "$a"}, 4)
	shortFilters = slices.DeleteFunc(strings1([]string{"", "a", "$a", "+", "#"}, 4), func(s string) bool { return !oracleFilter(s) })
)

// levelsFrom makes a name or filter of the bytes that a fuzzer gives.
func levelsFrom(b []byte, vocabulary []string) string {
	var s []string
	for _, c := range b {
		s = append(s, vocabulary[int(c)%len(vocabulary)])
	}
	return strings.Join(s, "/")
}

func randomLevels(r *rand.Rand, vocabulary []string, most int) string {
	b := make([]byte, 1+r.IntN(most))
	for i := range b {
		b[i] = byte(r.IntN(256))
	}
	return levelsFrom(b, vocabulary)
}
