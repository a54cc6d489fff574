package at

import (
	"strings"
	"time"
)

// joiner holds back a URC whose payload may contain line ends and joins the
// lines that follow. Some firmwares (Eigencomm ECMT) print a payload raw and
// without its length, so this is a heuristic:
//
//   - While the payload is open by its own grammar (Options.Open: a JSON value
//     or a string that is not closed), every line belongs to it, whatever it
//     looks like: "OK" in an open object is data.
//   - When it is not open, a line that follows after exactly one line end
//     belongs to it: firmware puts an empty line between two results, so a
//     line without one before it is no result.
//   - A silence of Options.Gap, or maxJoin bytes, ends it in any case.
//
// What stays undetectable: a payload that is plain text and contains an empty
// line. Its rest is taken for what it looks like.
type joiner struct {
	active bool
	text   []byte
	open   bool
	check  func(string) (bool, bool)
}

// maxJoin is above the receive buffer of every firmware that needs joining.
const maxJoin = 8 << 10

func (j *joiner) start(line string, open bool, check func(string) (bool, bool)) {
	*j = joiner{active: true, text: append(j.text[:0], line...), open: open, check: check}
}

func (j *joiner) joins(t token) bool {
	if t.kind != tokenLine || len(j.text)+len(t.sep)+len(t.text) > maxJoin {
		return false
	}
	return j.open || lineEnds(t.sep) == 1
}

func (j *joiner) add(t token) {
	j.text = append(j.text, t.sep...)
	j.text = append(j.text, t.text...)
	if j.open {
		_, j.open = j.check(string(j.text))
	}
}

func lineEnds(sep string) int {
	sep = strings.ReplaceAll(sep, "\r\n", "\n")
	return len(sep)
}

// flushHeldLocked delivers the held URC as it is.
func (e *Engine) flushHeldLocked() {
	if !e.held.active {
		return
	}
	text := string(e.held.text)
	e.held.active = false
	e.queueLocked(Line{Text: text})
}

// armGapLocked starts the wait for a silence if anything depends on it: a held
// URC, or a prompt that may hang on the end of a line.
func (e *Engine) armGapLocked() {
	if e.failed || (!e.held.active && !e.lex.prompt) {
		return
	}
	if e.promptGap != nil {
		e.promptGap.Reset(e.o.Gap)
		return
	}
	e.promptGap = time.AfterFunc(e.o.Gap, e.silence)
}

// silence runs when Gap has passed since the timer was armed last.
func (e *Engine) silence() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed {
		return
	}
	if rest := e.o.Gap - time.Since(e.lastByte); rest > 0 {
		e.promptGap.Reset(rest)
		return
	}
	e.flushHeldLocked()
	e.lex.idle()
}
