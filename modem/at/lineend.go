package at

import "time"

// How long the LF behind the CR of a final result may be missing: the next command
// must not begin in the middle of a line end, which a module counts to its answer.
// Firmware that ends its lines with CR alone costs lineEnd with each command.
const (
	lineEnd     = 20 * time.Millisecond
	lineEndCRLF = 250 * time.Millisecond // where the module has sent one with LF
)

// endFlightLocked lets the command go that is over, once its line end is whole. The
// reader calls it after each piece of the stream.
func (e *Engine) endFlightLocked() {
	f := e.flight
	if f == nil || !f.over {
		return
	}
	if e.lex.cr && !f.cut {
		if f.lineEnd == nil {
			wait := lineEnd
			if e.lex.crlf {
				wait = lineEndCRLF
			}
			f.lineEnd = time.AfterFunc(wait, func() {
				e.mu.Lock()
				defer e.mu.Unlock()
				f.endLocked()
			})
		}
		return
	}
	f.endLocked()
}

// endLocked lets the command go, once.
func (f *flight) endLocked() {
	if f.lineEnd != nil {
		f.lineEnd.Stop()
	}
	if !f.ended {
		f.ended = true
		close(f.done)
	}
}
