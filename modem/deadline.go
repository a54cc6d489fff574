package modem

import (
	"sync"
	"time"
)

// deadline is one of the two of a net.Conn. The zero value is none.
type deadline struct {
	mu      sync.Mutex
	timer   *time.Timer
	passed  chan struct{} // closed when it has passed; made when first asked for
	changed chan struct{} // closed when it is set anew
}

// watch returns what is closed when the deadline passes, and what is closed
// when it is set anew: then watch must be called again.
func (d *deadline) watch() (passed, changed <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.initLocked()
	return d.passed, d.changed
}

func (d *deadline) initLocked() {
	if d.passed == nil {
		d.passed, d.changed = make(chan struct{}), make(chan struct{})
	}
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.initLocked()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	close(d.changed)
	d.passed, d.changed = make(chan struct{}), make(chan struct{})
	if t.IsZero() {
		return
	}
	passed := d.passed
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(passed) })
	} else {
		close(passed)
	}
}

// stop ends the timer, for a connection that is closed.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
