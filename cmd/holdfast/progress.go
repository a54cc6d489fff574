package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// progress tells how far a long command is: on a terminal as a bar that is drawn
// again and again, elsewhere as a line now and then.
type progress struct {
	w        io.Writer
	what     string
	terminal bool
	total    int64
	last     time.Time
	drawn    bool
}

const (
	drawEvery = 100 * time.Millisecond
	lineEvery = 5 * time.Second
)

// newProgress begins one; total 0 is unknown.
func newProgress(w io.Writer, what string, total int64) *progress {
	p := &progress{w: w, what: what, terminal: isTerminal(w), total: total, last: time.Now()}
	return p
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// at tells that n of the total are done, if it is time to.
func (p *progress) at(n int64) {
	every := lineEvery
	if p.terminal {
		every = drawEvery
	}
	if time.Since(p.last) >= every {
		p.draw(n)
	}
}

// end tells the last state: on a terminal, or if anything was told before.
func (p *progress) end(n int64) {
	if p.drawn {
		p.draw(n)
	}
	if p.drawn && p.terminal {
		fmt.Fprintln(p.w)
	}
}

func (p *progress) draw(n int64) {
	p.last, p.drawn = time.Now(), true
	text := fmt.Sprintf("%s %d", p.what, n)
	if p.total > 0 {
		part := min(float64(n)/float64(p.total), 1)
		text = fmt.Sprintf("%s %d of %d, %.0f %%", p.what, n, p.total, 100*part)
		if p.terminal {
			const width = 30
			done := int(part * width)
			text = fmt.Sprintf("[%s%s] %s", strings.Repeat("#", done), strings.Repeat(" ", width-done), text)
		}
	}
	if p.terminal {
		fmt.Fprintf(p.w, "\r%s\x1b[K", text)
		return
	}
	fmt.Fprintln(p.w, text)
}
