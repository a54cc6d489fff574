package storage

import (
	"encoding/binary"
	"sort"
)

// rangeSet is a sorted set of positions, kept as disjoint ranges [from, to).
type rangeSet struct{ r []span }

type span struct{ from, to uint64 }

// add puts [from, to) into the set and returns how many of it are new.
func (s *rangeSet) add(from, to uint64) uint64 {
	if from >= to {
		return 0
	}
	// The first range that reaches from, and the first that begins behind to.
	i := sort.Search(len(s.r), func(i int) bool { return s.r[i].to >= from })
	j := i
	had := uint64(0)
	lo, hi := from, to
	for j < len(s.r) && s.r[j].from <= to {
		a, b := max(s.r[j].from, from), min(s.r[j].to, to)
		if a < b {
			had += b - a
		}
		lo, hi = min(lo, s.r[j].from), max(hi, s.r[j].to)
		j++
	}
	if i == j {
		s.r = append(s.r, span{})
		copy(s.r[i+1:], s.r[i:])
		s.r[i] = span{from, to}
		return to - from
	}
	s.r[i] = span{lo, hi}
	s.r = append(s.r[:i+1], s.r[j:]...)
	return to - from - had
}

// after returns the first position at or behind pos that is not in the set.
func (s *rangeSet) after(pos uint64) uint64 {
	i := sort.Search(len(s.r), func(i int) bool { return s.r[i].to > pos })
	if i < len(s.r) && s.r[i].from <= pos {
		return s.r[i].to
	}
	return pos
}

func (s *rangeSet) has(pos uint64) bool { return s.after(pos) != pos }

// takeBelow removes the range that begins at or below mark and returns the new
// mark behind it.
func (s *rangeSet) takeBelow(mark uint64) uint64 {
	n := 0
	for n < len(s.r) && s.r[n].from <= mark {
		mark = max(mark, s.r[n].to)
		n++
	}
	if n > 0 {
		s.r = append(s.r[:0], s.r[n:]...)
	}
	return mark
}

// below is the part of the set before mark, which must not be in it. It shares
// the memory of s.
func (s *rangeSet) below(mark uint64) rangeSet {
	n := sort.Search(len(s.r), func(i int) bool { return s.r[i].from >= mark })
	return rangeSet{s.r[:n:n]}
}

func (s *rangeSet) count() uint64 {
	var n uint64
	for _, r := range s.r {
		n += r.to - r.from
	}
	return n
}

// appendTo writes the set as gaps and lengths, counted from mark.
func (s *rangeSet) appendTo(b []byte, mark uint64) []byte {
	b = binary.AppendUvarint(b, uint64(len(s.r)))
	for _, r := range s.r {
		b = binary.AppendUvarint(b, r.from-mark)
		b = binary.AppendUvarint(b, r.to-r.from)
		mark = r.to
	}
	return b
}

func (d *decoder) ranges(mark uint64) rangeSet {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad = true
		return rangeSet{}
	}
	var s rangeSet
	for range n {
		gap, length := d.uvarint(), d.uvarint()
		if d.bad || gap >= 1<<60 || length == 0 || length >= 1<<60 || mark+gap+length >= 1<<60 {
			d.bad = true
			return rangeSet{}
		}
		s.r = append(s.r, span{mark + gap, mark + gap + length})
		mark += gap + length
	}
	return s
}
