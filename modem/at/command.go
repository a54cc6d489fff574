package at

import (
	"strings"
	"time"
)

// Command is one AT command with everything needed to know its answer.
type Command struct {
	// Text is the command without its line end: "AT+CSQ".
	Text string
	// Prefixes are the names of its information responses: "+CSQ". Only lines
	// with one of them belong to the answer; every other line is a URC.
	Prefixes []string
	// Bare makes lines without a name part of the answer as well (AT+CIMI,
	// ATI). Words that modules say by themselves, like RDY, never are.
	Bare bool
	// Match, if not nil, must also hold for a line to be part of the answer.
	// It tells the reply of a query from a URC with the same name.
	Match func(line string) bool
	// Finals are final results besides OK that mean success: "CONNECT".
	Finals []string
	// Failures are final results besides the ERRORs that mean failure:
	// "NO CARRIER".
	Failures []string
	// Payload is written after the prompt; nil if the command has no prompt.
	// A command that is answered without a prompt is fine as well.
	Payload []byte
	// Raw is the number of raw bytes that follow the end of this line of the
	// answer; nil if there are none. They are in Response.Data.
	Raw func(line string) int
	// Failed, if not nil, is called before anything else is written when nobody knows
	// what became of the command. A module that waits for its payload takes what comes
	// next for it: a result that is told from then on may be of something else.
	Failed func(error)
	// Timeout is for the whole command; 0 means Options.Timeout.
	Timeout time.Duration
}

// Response is the answer to a command that succeeded.
type Response struct {
	// Lines are the information responses, in order.
	Lines []string
	// Data are the raw bytes that Command.Raw has announced.
	Data []byte
	// Final is the final result, "OK" mostly.
	Final string
}

// First is the first line, or "".
func (r Response) First() string {
	if len(r.Lines) == 0 {
		return ""
	}
	return r.Lines[0]
}

// maxResponse bounds the bytes of an answer that are kept.
const maxResponse = 64 << 10

// flight is the command in flight. Its fields are guarded by Engine.mu.
type flight struct {
	cmd    Command
	lines  []string
	data   []byte
	bytes  int
	final  string
	err    error
	heard  uint64 // Stats.BytesIn when it was written
	over   bool
	paid   bool          // the payload was written
	cut    bool          // the module has restarted in the middle of it
	done   chan struct{} // closed when over, and the line end is whole
	prompt chan struct{} // closed when the prompt has come; nil after that

	ended   bool        // done is closed
	lineEnd *time.Timer // runs while the LF of the final result is missing
}

func newFlight(c Command) *flight {
	f := &flight{cmd: c, done: make(chan struct{})}
	if c.Payload != nil {
		f.prompt = make(chan struct{})
	}
	return f
}

// echo reports whether line is the module's echo of the command.
func (f *flight) echo(line string) bool {
	return strings.TrimRight(line, " ") == strings.TrimRight(f.cmd.Text, " ")
}

// finish ends the flight if line is a final result of it.
func (f *flight) finish(line string) bool {
	switch err, bad := finalError(line); {
	case bad:
		f.err = err
	case line == "OK" || hasWord(f.cmd.Finals, line):
	case hasWord(f.cmd.Failures, line):
		f.err = &finalFailure{line}
	default:
		return false
	}
	f.final = line
	f.over = true
	return true
}

// claims reports whether line is part of the answer.
func (f *flight) claims(line string) bool {
	named := Name(line) != ""
	ok := false
	for _, p := range f.cmd.Prefixes {
		if Has(line, p) {
			ok = true
			break
		}
	}
	if !ok && f.cmd.Bare && !named && !spontaneous(line) {
		ok = true
	}
	return ok && (f.cmd.Match == nil || f.cmd.Match(line))
}

// raw is the number of raw bytes behind a line that was claimed.
func (f *flight) raw(line string) int {
	if f.cmd.Raw == nil {
		return 0
	}
	return f.cmd.Raw(line)
}

func (f *flight) add(line string) {
	if f.bytes += len(line); f.bytes <= maxResponse {
		f.lines = append(f.lines, line)
	}
}

type finalFailure struct{ line string }

func (e *finalFailure) Error() string { return "the module answered " + e.line }

func hasWord(words []string, line string) bool {
	for _, w := range words {
		if line == w || strings.HasPrefix(line, w+" ") {
			return true
		}
	}
	return false
}

// spontaneous are the words without a name that modules say by themselves:
// at boot, and with X or V.250 call results.
func spontaneous(line string) bool {
	switch line {
	case "RDY", "RING", "NO CARRIER", "SMS READY", "SMS Ready", "CALL READY", "Call Ready",
		"POWERED DOWN", "NORMAL POWER DOWN", "APP RDY", "PB DONE", "KSDH":
		return true
	}
	return strings.HasPrefix(line, "^") || strings.HasPrefix(line, "+") || strings.HasPrefix(line, "RDY")
}

// isFinal reports whether line is a final result of any command.
func isFinal(line string) bool {
	if line == "OK" {
		return true
	}
	_, bad := finalError(line)
	return bad
}
