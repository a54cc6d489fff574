package at

import "time"

// lineEnd is how long the LF behind the CR of a final result may be missing. The
// next command must not begin in the middle of a line end, which a module counts
// to its answer; firmware that ends its lines with CR alone costs this much more.
const lineEnd = 20 * time.Millisecond

// endFlightLocked lets the command go that is over, once its line end is whole. The
// reader calls it after each piece of the stream.
func (e *Engine) endFlightLocked() {
	f := e.flight
	if f == nil || !f.over {
		return
	}
	if e.lex.cr && !f.cut {
		if f.lineEnd == nil {
			f.lineEnd = time.AfterFunc(lineEnd, func() {
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
