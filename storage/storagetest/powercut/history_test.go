//go:build linux && (amd64 || arm64)

package powercut

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// history is everything that the program has said in all of its lives: what
// was promised to it, and what it took out.
type history struct {
	want   map[string]uint64 // by source, the last that was about to be published
	safe   map[string]uint64 // by source, the last that was promised, and all before it
	got    map[string]map[string]map[uint64]bool
	state  map[string][]value // by topic, what was about to be retained, in order
	opened bool               // the last life has opened its store

	// inbound are "CLIENT ID", promised; forgetting those about to be forgotten,
	// which may be heard of before the promise; forgotten those promised to be.
	inbound, forgetting, forgotten map[string]bool

	// spill are lives in spill mode: their books may lack what was delivered.
	spill  map[int]bool
	direct int // of all lives, as far as it was said
	life   int // of the last

	pubrec   map[string]bool // positions, promised and not about to be acked
	sessions map[string]bool
}

type value struct {
	source string
	seq    uint64
}

var queues = []string{"bridge", "one", "two"}

func newHistory() *history {
	h := &history{
		want: map[string]uint64{}, safe: map[string]uint64{}, got: map[string]map[string]map[uint64]bool{},
		state: map[string][]value{}, inbound: map[string]bool{}, forgetting: map[string]bool{}, forgotten: map[string]bool{},
		spill: map[int]bool{}, pubrec: map[string]bool{}, sessions: map[string]bool{},
	}
	for _, q := range queues {
		h.got[q] = map[string]map[uint64]bool{}
	}
	return h
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// sourceOf takes a source apart.
func sourceOf(source string) (life, p int) {
	l, k, _ := strings.Cut(source, ".")
	life, _ = strconv.Atoi(l)
	p, _ = strconv.Atoi(k)
	return life, p
}

// hear takes one line; what the program has found at its start is not history.
func (h *history) hear(line string) error {
	f := strings.Fields(line)
	if len(f) == 0 {
		return nil
	}
	switch f[0] {
	case "opened":
		h.opened = true
	case "spill":
		h.spill[int(number(f[1]))], h.life = true, 0
	case "direct":
		h.direct += max(0, int(number(f[1]))-h.life)
		h.life = max(h.life, int(number(f[1])))
	case "want":
		h.want[f[1]] = max(h.want[f[1]], number(f[2]))
	case "safe":
		h.promise(f[1], number(f[2]))
	case "retain":
		h.state[f[1]] = append(h.state[f[1]], value{f[2], number(f[3])})
	case "got":
		of := h.got[f[1]]
		if of[f[2]] == nil {
			of[f[2]] = map[uint64]bool{}
		}
		of[f[2]][number(f[3])] = true
	case "forget":
		h.forgetting[f[1]+" "+f[2]] = true
	case "forgotten":
		h.forgotten[f[1]+" "+f[2]] = true
	case "pubrec":
		h.pubrec[f[1]] = true
	case "pubcomp":
		delete(h.pubrec, f[1])
	case "session!":
		h.sessions[f[1]] = true
	case "bad":
		return fmt.Errorf("%s", line)
	}
	return nil
}

func (h *history) promise(source string, seq uint64) {
	h.safe[source] = max(h.safe[source], seq)
	life, p := sourceOf(source)
	if publisherQoS(p) == 2 {
		key := fmt.Sprintf("client%d %d", p, inboundID(life, seq))
		h.inbound[key] = true
	}
}

// promised is how many messages were promised for the bridge, in all lives but
// those of except.
func (h *history) promised(except map[int]bool) (n uint64) {
	for source, seq := range h.safe {
		if life, p := sourceOf(source); !retains(p) && !except[life] {
			n += seq
		}
	}
	return n
}

// goesTo says which queues a publisher's messages go to.
func goesTo(queue string, p int) bool {
	return !retains(p) && (queue != "two" || publisherQoS(p) == 2)
}

// found is what a program has found in a store, as lines.
type found struct {
	h     *history
	again bool // a commit has failed: repetitions are allowed, and the books may lack something
	list  []string
	n     int

	items    map[string]map[string][]uint64 // by queue and source, in order
	retained map[string]value
	inbound  map[string]bool
	released map[string]bool
	sessions map[string]bool
	accepted uint64 // by the books
	queued   uint64 // by the books
	length   uint64 // of the bridge's queue
	opened   bool
}

func (f *found) fault(format string, args ...any) {
	if f.n++; len(f.list) < 12 {
		f.list = append(f.list, fmt.Sprintf(format, args...))
	}
}

// check compares what was found with what was promised, and returns every
// difference. lost counts messages that were promised and are nowhere.
func (h *history) check(lines []string, again bool) (faults []string, lost uint64) {
	f := &found{h: h, again: again, items: map[string]map[string][]uint64{}, retained: map[string]value{},
		inbound: map[string]bool{}, released: map[string]bool{}, sessions: map[string]bool{}}
	for _, line := range lines {
		f.read(line)
	}
	if !f.opened {
		f.fault("the store did not open: %s", strings.Join(lines[max(0, len(lines)-3):], "; "))
		return f.list, h.promised(nil)
	}
	for _, q := range queues {
		lost += f.queue(q)
	}
	if n := h.promised(h.spill); f.accepted < n && !f.again { // what was taken while commits failed is in no books
		f.fault("books: %d accepted, and %d were promised in lives that count each", f.accepted, n)
	}
	items := 0
	for _, seqs := range f.items["bridge"] {
		items += len(seqs)
	}
	if uint64(items) != f.length || f.queued != f.length {
		f.fault("the bridge's queue hands out %d messages, its length is %d, the books say %d", items, f.length, f.queued)
	}
	f.state()
	for key := range h.inbound {
		if !f.inbound[key] && !h.forgetting[key] {
			f.fault("QoS 2 packet identifier %s was promised and is forgotten", key)
		}
	}
	for key := range h.forgotten {
		if f.inbound[key] {
			f.fault("QoS 2 packet identifier %s was forgotten by promise and is back", key)
		}
	}
	for pos := range h.pubrec {
		if !f.released[pos] {
			f.fault("PUBREC of position %s was promised and is forgotten", pos)
		}
	}
	for name := range h.sessions {
		if !f.sessions[name] {
			f.fault("session %s was promised and is not there", name)
		}
	}
	return f.list, lost
}

func (f *found) read(line string) {
	w := strings.Fields(line)
	if len(w) == 0 {
		return
	}
	switch w[0] {
	case "opened":
		f.opened = true
	case "item":
		if f.items[w[1]] == nil {
			f.items[w[1]] = map[string][]uint64{}
		}
		f.items[w[1]][w[3]] = append(f.items[w[1]][w[3]], number(w[4]))
	case "retained":
		f.retained[w[1]] = value{w[2], number(w[3])}
	case "inbound":
		f.inbound[w[1]+" "+w[2]] = true
	case "released":
		f.released[w[1]] = true
	case "session":
		f.sessions[w[1]] = w[2] == "1"
	case "books":
		f.accepted += number(w[2])
		f.queued += number(w[3])
		if w[4] != "true" || w[5] != "0" {
			f.fault("books of route %s: %s", w[1], line)
		}
	case "dropped":
		// By the rule of a full queue, as it should be: this disk never shall be.
		f.fault("the load fills the disk: %s messages of route %s were dropped, %s", w[3], w[1], w[2])
	case "store":
		if w[1] != "0" || w[2] != "0" {
			f.fault("the store has lost %s messages and cannot read %s rows", w[1], w[2])
		}
		f.length = number(w[3])
	default:
		f.fault("%s", line)
	}
}

// queue checks one queue: every promised message is there or was taken out, in
// order, and nothing is missing in the middle.
func (f *found) queue(q string) (lost uint64) {
	for source, last := range f.h.want {
		_, p := sourceOf(source)
		if !goesTo(q, p) {
			continue
		}
		have := map[uint64]bool{}
		high := uint64(0)
		for seq := range f.h.got[q][source] {
			have[seq] = true
			high = max(high, seq)
		}
		before := uint64(0)
		for _, seq := range f.items[q][source] {
			if seq <= before && !f.again {
				f.fault("%s: %s %d is behind %d", q, source, seq, before)
			}
			before = max(before, seq)
			have[seq] = true
		}
		high = max(high, before)
		if high > last {
			f.fault("%s: %s %d was never published", q, source, high)
		}
		missing := uint64(0)
		for seq := uint64(1); seq <= f.h.safe[source]; seq++ {
			if !have[seq] {
				missing++
			}
		}
		if missing > 0 {
			f.fault("%s: %d messages of %s are lost, of %d that were promised", q, missing, source, f.h.safe[source])
		}
		for seq := f.h.safe[source] + 1; seq < high; seq++ {
			if !have[seq] {
				f.fault("%s: %s %d is missing, and %d is there", q, source, seq, high)
				break
			}
		}
		lost += missing
	}
	return lost
}

// state checks that the retained values are the last promised or later ones.
func (f *found) state() {
	for topic, values := range f.h.state {
		promised := -1
		for i, v := range values {
			if v.seq <= f.h.safe[v.source] {
				promised = i
			}
		}
		v, there := f.retained[topic]
		if !there && promised < 0 {
			continue
		}
		if i := slices.Index(values, v); !there || i < promised && !f.laterToo(values, v, promised) {
			f.fault("retained %s: %v is there (%t), promised was %v", topic, v, there, values[promised])
		}
	}
}

// laterToo: a value that was sent again, after a failure, is at several places.
func (f *found) laterToo(values []value, v value, from int) bool {
	return slices.Contains(values[from:], v)
}
