// Package topic knows topic names and topic filters (MQTT 5, 4.7): which are
// valid, which match, and how to find all that match quickly. A broker asks the
// Tree who wants a message, and Names which retained messages a new
// subscription gets.
//
// Levels are what is between slashes; they may be empty, so "a" and "a/" are
// two names. Case counts, and nothing is normalised [MQTT-4.7.3-4].
//
// Nothing here recurses over levels: a topic of 65,535 slashes costs time in
// proportion to its length, and no more stack than "a".
package topic

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxLength is the largest length of a name or filter in bytes [MQTT-4.7.3-3].
const MaxLength = 65_535

// ValidName tells in words what is wrong with s as a topic name, or returns nil.
// Positions are counted in bytes from 1.
func ValidName(s string) error {
	if err := validString(s, "topic name"); err != nil {
		return err
	}
	if i := strings.IndexAny(s, "+#"); i >= 0 {
		return fmt.Errorf("topic name has the wildcard %q at position %d: wildcards are for filters only [MQTT-4.7.1-1]", s[i], i+1)
	}
	return nil
}

// ValidFilter tells in words what is wrong with s as a topic filter, or returns
// nil. The grammar of shared subscriptions is that of ParseShared.
func ValidFilter(s string) error {
	if err := validString(s, "topic filter"); err != nil {
		return err
	}
	for pos := 0; pos <= len(s); {
		end := levelEnd(s, pos)
		level := s[pos:end]
		if i := strings.IndexAny(level, "+#"); i >= 0 {
			switch {
			case len(level) > 1 && level[i] == '+':
				return fmt.Errorf("topic filter has + beside other characters at position %d: it must be a whole level, as in a/+/b [MQTT-4.7.1-2]", pos+i+1)
			case len(level) > 1:
				return fmt.Errorf("topic filter has # beside other characters at position %d: it must be a whole level, as in a/# [MQTT-4.7.1-1]", pos+i+1)
			case level[i] == '#' && end != len(s):
				return fmt.Errorf("topic filter goes on after # at position %d: # must be the last level [MQTT-4.7.1-1]", pos+i+1)
			}
		}
		pos = end + 1
	}
	return nil
}

func validString(s, what string) error {
	switch {
	case s == "":
		return errors.New(what + " is empty: it needs at least one character [MQTT-4.7.3-1]")
	case len(s) > MaxLength:
		return fmt.Errorf("%s has %d bytes: at most %d are possible [MQTT-4.7.3-3]", what, len(s), MaxLength)
	}
	if i := strings.IndexByte(s, 0); i >= 0 {
		return fmt.Errorf("%s has the character U+0000 at position %d [MQTT-4.7.3-2]", what, i+1)
	}
	if utf8.ValidString(s) {
		return nil
	}
	for i, r := range s {
		if r != utf8.RuneError {
			continue
		}
		if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
			return fmt.Errorf("%s is not valid UTF-8 at position %d [MQTT-1.5.4-1]", what, i+1)
		}
	}
	return nil
}

// sharePrefix begins the filter of a shared subscription (MQTT 5, 4.8.2).
const sharePrefix = "$share/"

// ParseShared takes a filter "$share/GROUP/FILTER" apart [MQTT-4.8.2-1]
// [MQTT-4.8.2-2]. For any other filter group is empty and rest is s. It does
// not check rest.
func ParseShared(s string) (group, rest string, err error) {
	after, ok := strings.CutPrefix(s, sharePrefix)
	if !ok {
		return "", s, nil
	}
	group, rest, ok = strings.Cut(after, "/")
	switch {
	case group == "":
		return "", "", errors.New("shared subscription without a name: it is written $share/NAME/FILTER [MQTT-4.8.2-1]")
	case strings.ContainsAny(group, "+#"):
		return "", "", errors.New("shared subscription with a wildcard in its name [MQTT-4.8.2-2]")
	case !ok || rest == "":
		return "", "", errors.New("shared subscription without a filter: it is written $share/NAME/FILTER [MQTT-4.8.2-2]")
	}
	return group, rest, nil
}

// Match reports whether the topic filter matches the topic name. Both must be
// valid.
func Match(filter, name string) bool {
	if filter == "" || name == "" || hidden(filter, name) {
		return false
	}
	for f, n := 0, 0; ; {
		fEnd := levelEnd(filter, f)
		level := filter[f:fEnd]
		if level == "#" && fEnd == len(filter) {
			return true // also at the end of name: "sport/#" matches "sport" (4.7.1.2)
		}
		if n > len(name) {
			return false
		}
		nEnd := levelEnd(name, n)
		if level != "+" && level != name[n:nEnd] {
			return false
		}
		f, n = fEnd+1, nEnd+1
		if f > len(filter) {
			return n > len(name)
		}
	}
}

// Overlap reports whether any topic name could match both filters, which must
// be valid. A name that would be too long counts as a name.
func Overlap(a, b string) bool {
	if a == "" || b == "" || hidden(a, b) || hidden(b, a) {
		return false
	}
	if a == "+" && b == "/#" || a == "/#" && b == "+" {
		return false // only "" would match both, which is no name [MQTT-4.7.3-1]
	}
	for i, j := 0, 0; ; {
		if lastIsHash(a, i) || lastIsHash(b, j) {
			return true
		}
		if i > len(a) || j > len(b) {
			return i > len(a) && j > len(b)
		}
		aEnd, bEnd := levelEnd(a, i), levelEnd(b, j)
		x, y := a[i:aEnd], b[j:bEnd]
		if x != y && x != "+" && y != "+" {
			return false
		}
		i, j = aEnd+1, bEnd+1
	}
}

// Covers reports whether every topic name that filter matches is matched by
// wider too: who may have wider may have filter. Both must be valid. It says no
// where "#" or "/#" is another word for the same, as "+/#" is.
func Covers(wider, filter string) bool {
	if wider == "" || filter == "" || hidden(wider, filter) {
		return false
	}
	for w, f := 0, 0; ; {
		if lastIsHash(wider, w) {
			return true
		}
		if w > len(wider) || f > len(filter) {
			return w > len(wider) && f > len(filter)
		}
		if lastIsHash(filter, f) {
			return false
		}
		wEnd, fEnd := levelEnd(wider, w), levelEnd(filter, f)
		if x := wider[w:wEnd]; x != "+" && x != filter[f:fEnd] {
			return false
		}
		w, f = wEnd+1, fEnd+1
	}
}

// hidden reports whether filter starts with a wildcard and other with a "$",
// which wildcards there do not match [MQTT-4.7.2-1].
func hidden(filter, other string) bool {
	return other[0] == '$' && (filter[0] == '+' || filter[0] == '#')
}

// lastIsHash reports whether all that is left of s from pos on is "#".
func lastIsHash(s string, pos int) bool { return pos == len(s)-1 && s[pos] == '#' }

// levelEnd is where the level that starts at pos ends: at a slash or at the end
// of s. The next level starts one behind; a position of len(s)+1 is behind all.
func levelEnd(s string, pos int) int {
	if i := strings.IndexByte(s[pos:], '/'); i >= 0 {
		return pos + i
	}
	return len(s)
}
