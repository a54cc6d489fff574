package topic

import (
	"strings"
	"testing"
	"time"
)

func TestFiltersOfTheStandard(t *testing.T) {
	for _, c := range []struct {
		filter, name string
		want         bool
	}{
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/#", "sport", true},
		{"sport/#", "sports", false},
		{"#", "sport/tennis", true},
		{"#", "/", true},
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"sport/+/#", "sport/a", true},
		{"sport/+/#", "sport", false},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		{"+/tennis/#", "sport/tennis", true},
		{"#", "$SYS/broker", false},
		{"+/broker", "$SYS/broker", false},
		{"+/#", "$SYS/broker", false},
		{"$SYS/#", "$SYS/broker", true},
		{"$SYS/+", "$SYS/broker", true},
		{"a/#", "a/$SYS", true},
		{"ACCOUNTS", "Accounts", false},
		{"a", "a/", false},
		{"a//b", "a/b", false},
		{"a/+/b", "a//b", true},
		{"", "a", false},
		{"#", "", false},
	} {
		if got := Match(c.filter, c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.filter, c.name, got)
		}
	}
}

func TestFaultsAreNamedWithTheirPlace(t *testing.T) {
	for _, c := range []struct {
		check func(string) error
		s     string
		want  string // part of the error; "" for none
	}{
		{ValidFilter, "sport/+/#", ""},
		{ValidFilter, "#", ""},
		{ValidFilter, "+", ""},
		{ValidFilter, "/", ""},
		{ValidFilter, "+/+/#", ""},
		{ValidFilter, "$share/g/a", ""},
		{ValidFilter, "a\uFFFDb", ""}, // a replacement character that was sent as such
		{ValidFilter, "sport+", "+ beside other characters at position 6"},
		{ValidFilter, "a+/b", "position 2"},
		{ValidFilter, "a/+b", "position 3"},
		{ValidFilter, "++", "position 1"},
		{ValidFilter, "sport#", "# beside other characters at position 6"},
		{ValidFilter, "a/b#", "position 4"},
		{ValidFilter, "a/#b", "position 3"},
		{ValidFilter, "#/a", "goes on after # at position 1"},
		{ValidFilter, "a/#/", "goes on after # at position 3"},
		{ValidFilter, "#/#", "goes on after # at position 1"},
		{ValidFilter, "", "is empty"},
		{ValidFilter, strings.Repeat("a", 65536), "has 65536 bytes"},
		{ValidFilter, strings.Repeat("a", 65535), ""},
		{ValidFilter, "a\x00", "U+0000 at position 2"},
		{ValidFilter, "ab\xff", "not valid UTF-8 at position 3"},
		{ValidFilter, "a\uFFFD\xed\xa0\x80", "not valid UTF-8 at position 5"},
		{ValidName, "a/b", ""},
		{ValidName, "/", ""},
		{ValidName, "$SYS/x", ""},
		{ValidName, "a/ b/ü", ""},
		{ValidName, "", "topic name is empty"},
		{ValidName, "a/+/b", "'+' at position 3"},
		{ValidName, "a#", "'#' at position 2"},
		{ValidName, "\x00", "position 1"},
		{ValidName, "\xc0\xaf", "position 1"},
		{ValidName, strings.Repeat("a", 65536), "at most 65535"},
	} {
		err := c.check(c.s)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%.20q: %v", c.s, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%.20q: %v, want %q", c.s, err, c.want)
		case err != nil && !strings.Contains(err.Error(), "[MQTT-"):
			t.Errorf("%.20q: %v names no clause", c.s, err)
		}
	}
}

func TestSharedSubscriptionsAreTakenApart(t *testing.T) {
	for _, c := range []struct {
		s, group, rest string
		ok             bool
	}{
		{"$share/g/a/+/#", "g", "a/+/#", true},
		{"$share/g//a", "g", "/a", true},
		{"$share", "", "$share", true},
		{"$shared/g/a", "", "$shared/g/a", true},
		{"a/$share/g", "", "a/$share/g", true},
		{"$share/g", "", "", false},
		{"$share/g/", "", "", false},
		{"$share//a", "", "", false},
		{"$share/", "", "", false},
		{"$share/g+/a", "", "", false},
		{"$share/#/a", "", "", false},
	} {
		group, rest, err := ParseShared(c.s)
		if group != c.group || rest != c.rest || (err == nil) != c.ok {
			t.Errorf("%q: %q, %q, %v", c.s, group, rest, err)
		}
	}
}

func TestMatchAgreesWithTheOracleOnAllShortTopics(t *testing.T) {
	for _, f := range shortFilters {
		for _, n := range shortNames {
			if got := Match(f, n); got != oracleMatch(f, n) {
				t.Fatalf("%q matches %q: %v", f, n, got)
			}
		}
	}
}

func TestOverlapAgreesWithTheOracleOnAllShortFilters(t *testing.T) {
	// Names of four levels are enough for filters of three; "b" is the level
	// that no filter names.
	filters := shortFilters[:0:0]
	for _, f := range shortFilters {
		if strings.Count(f, "/") < 3 {
			filters = append(filters, f)
		}
	}
	for _, a := range filters {
		for _, b := range filters {
			want := false
			for _, n := range shortNames {
				if oracleMatch(a, n) && oracleMatch(b, n) {
					want = true
					break
				}
			}
			if got := Overlap(a, b); got != want {
				t.Fatalf("%q and %q: %v", a, b, got)
			}
		}
	}
}

func TestCoversAgreesWithTheOracleOnAllShortFilters(t *testing.T) {
	matched := make(map[string][]bool)
	for _, f := range shortFilters {
		for _, n := range shortNames {
			matched[f] = append(matched[f], oracleMatch(f, n))
		}
	}
	for _, wider := range shortFilters {
		for _, f := range shortFilters {
			if strings.Count(f, "/") == 3 && strings.HasSuffix(f, "#") || strings.Count(wider, "/") == 3 && strings.HasSuffix(f, "#") {
				continue // names of more than four levels would tell
			}
			want := true
			for i, of := range matched[f] {
				if of && !matched[wider][i] {
					want = false
					break
				}
			}
			if got := Covers(wider, f); got != want && (got || f != "#" && f != "/#") {
				t.Fatalf("%q covers %q: %v", wider, f, got)
			}
		}
	}
}

func TestTheDeepestTopicsNeitherHangNorOverflow(t *testing.T) {
	deep := strings.Repeat("/", MaxLength)
	plus := strings.Repeat("+/", MaxLength/2) + "+"
	hash := strings.Repeat("+/", MaxLength/2) + "#"
	short := strings.Repeat("/", MaxLength/2)
	start := time.Now()
	var tree Tree[int, int]
	for i, f := range []string{deep, plus, hash, short} {
		if err := ValidFilter(f); err != nil {
			t.Fatal(err)
		}
		tree.Add(f, i, i)
	}
	// Each prefix is a branch of its own.
	for i := 1; i < 1000; i++ {
		tree.Add(plus[:2*i]+"#", i, i)
		tree.Add(deep[:i], i, i)
	}
	visits := 0
	tree.Match(deep, func(int, int) { visits++ })
	tree.Match(short, func(int, int) { visits++ })
	if want := 999 + 2 + 999 + 3; visits != want {
		t.Errorf("%d visits, want %d", visits, want)
	}
	if !Match(hash, deep) || !Overlap(plus, short) || Match(plus, deep) {
		t.Error("deep topics do not match as they should")
	}
	var names Names[int]
	names.Set(deep, 1)
	names.Set(short, 2)
	found := 0
	for _, f := range []string{"#", plus, hash, deep} {
		names.Match(f, func(string, int) bool { found++; return true })
	}
	if found != 2+1+2+1 {
		t.Errorf("%d names found", found)
	}
	// Milliseconds, if the time is in proportion to the length; else minutes.
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("took %v", d)
	}
}
