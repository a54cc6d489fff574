package configs

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Fault is one thing that is wrong in a configuration, and what to do.
type Fault struct {
	File string
	Line int    // starting at 1; 0 if it has none
	Key  string // dotted, as in "bridge.queue.max_bytes"; may be empty
	Text string
}

// Error is "FILE:LINE: KEY: TEXT", without the parts that are not known.
func (f Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Text)
	// The name of a file may have anything in it; a terminal acts on some.
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, b.String())
}

// Faults are all faults of one configuration, in the order of their lines.
type Faults []Fault

// maxFaults bounds what is printed: beyond it the file is no configuration.
const maxFaults = 100

// Error has one line for each fault.
func (f Faults) Error() string {
	var b strings.Builder
	for i, fault := range f {
		if i == maxFaults {
			fmt.Fprintf(&b, "\nand %d more", len(f)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(fault.Error())
	}
	return b.String()
}

// sort puts f in the order of lines; faults of one line keep theirs.
func (f Faults) sort() {
	slices.SortStableFunc(f, func(a, b Fault) int { return a.Line - b.Line })
}
