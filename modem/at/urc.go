package at

import (
	"context"
	"slices"
	"time"
)

// Line is one line that no command has claimed: an unsolicited result code, an
// asynchronous result, or noise.
type Line struct {
	Text string
	// Data is the raw block that belongs to the line, if Options.Raw said so.
	Data []byte
	// Cut says that the line was longer than the bound and is not whole.
	Cut bool
	// Lost is the number of lines that were dropped before this one, because
	// the queue of URCs was full. State built from URCs is stale then.
	Lost int
}

const (
	maxQueue      = 512
	maxQueueBytes = 1 << 20
)

// takeLocked is called by the lexer for every token, with mu held.
func (e *Engine) takeLocked(t token) {
	switch t.kind {
	case tokenPrompt:
		e.flushHeldLocked()
		e.lex.expectPrompt(false)
		if f := e.flight; f != nil && f.prompt != nil {
			close(f.prompt)
			f.prompt = nil
		}
		return
	case tokenRaw:
		if f := e.rawFlight; f != nil {
			f.data = append(f.data, t.text...)
			e.rawFlight = nil
			return
		}
		if e.rawLine != nil {
			e.rawLine.Data = []byte(t.text)
			e.rawLine.Cut = e.rawLine.Cut || t.cut
			e.queueLocked(*e.rawLine)
			e.rawLine = nil
		}
		return
	}
	if e.held.active {
		echo := !e.held.open && e.flight != nil && e.flight.echo(t.text)
		if !echo && e.held.joins(t) {
			e.held.add(t)
			return
		}
		e.flushHeldLocked()
	}
	if t.cut {
		e.stats.Cut++
		e.queueLocked(Line{Text: t.text, Cut: true})
		return
	}
	if e.claimLocked(t.text) {
		return
	}
	if f := e.flight; f != nil && !f.over && e.o.Boot != nil && e.o.Boot(t.text) {
		f.over, f.cut = true, true
	}
	if e.o.Open != nil {
		if may, open := e.o.Open(t.text); may {
			e.held.start(t.text, open, e.o.Open)
			return
		}
	}
	if e.o.Raw != nil {
		if n := e.o.Raw(t.text); n > 0 {
			e.lex.expectRaw(n)
			e.rawLine = &Line{Text: t.text}
			return
		}
	}
	e.queueLocked(Line{Text: t.text})
}

// claimLocked reports whether the line belongs to the command in flight, or to
// the one that ran out of time.
func (e *Engine) claimLocked(line string) bool {
	if f := e.flight; f != nil && !f.over {
		if f.echo(line) || f.finish(line) {
			return true
		}
		if f.claims(line) {
			f.add(line)
			e.rawLocked(f, line)
			return true
		}
	}
	if isFinal(line) {
		e.stats.Strays++
		return true
	}
	if g := e.ghost; g != nil && (g.echo(line) || g.claims(line)) {
		e.stats.Strays++
		e.rawLocked(g, line)
		return true
	}
	return false
}

// rawLocked arranges for the raw bytes behind a line of an answer.
func (e *Engine) rawLocked(f *flight, line string) {
	if n := f.raw(line); n > 0 {
		e.lex.expectRaw(n)
		e.rawFlight = f
	}
}

func (e *Engine) queueLocked(l Line) {
	if len(e.queue) >= maxQueue || e.queued+len(l.Text)+len(l.Data) > maxQueueBytes {
		e.lost++
		e.stats.Lost++
		return
	}
	l.Lost, e.lost = e.lost, 0
	e.queue = append(e.queue, l)
	e.queued += len(l.Text) + len(l.Data)
	e.wake.Signal()
}

// dispatch is the dispatch goroutine. Lines that came before the port failed
// are still delivered.
func (e *Engine) dispatch() {
	for {
		e.mu.Lock()
		for len(e.queue) == 0 && !e.failed {
			e.wake.Wait()
		}
		if len(e.queue) == 0 {
			e.mu.Unlock()
			return
		}
		l := e.queue[0]
		e.queue = slices.Delete(e.queue, 0, 1)
		e.queued -= len(l.Text) + len(l.Data)
		waiters := slices.Clone(e.waiters)
		e.mu.Unlock()
		if !offer(waiters, l) {
			e.o.URC(l)
		}
	}
}

func offer(waiters []*Waiter, l Line) bool {
	for _, w := range waiters {
		if !w.match(l) {
			continue
		}
		select {
		case w.c <- l:
			return true
		default: // it has more than it can want; somebody else's then
		}
	}
	return false
}

// Waiter waits for the asynchronous result of a command, which comes some time
// after OK, or before it. A line that a waiter takes is not seen by
// Options.URC.
type Waiter struct {
	e     *Engine
	match func(Line) bool
	c     chan Line
}

// Expect registers a waiter for the lines that match. It must be called before
// the command is written, and Stop must be called in the end. match runs on
// the dispatch goroutine and must not block.
func (e *Engine) Expect(match func(Line) bool) *Waiter {
	w := &Waiter{e: e, match: match, c: make(chan Line, 8)}
	e.mu.Lock()
	e.waiters = append(e.waiters, w)
	e.mu.Unlock()
	return w
}

// Stop takes the waiter out.
func (w *Waiter) Stop() {
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	if i := slices.Index(w.e.waiters, w); i >= 0 {
		w.e.waiters = slices.Delete(w.e.waiters, i, i+1)
	}
}

// Wait returns the next line that matched, or ErrTimeout after d, or the error
// of ctx or of the port. A line that has come wins over all of them.
func (w *Waiter) Wait(ctx context.Context, d time.Duration) (Line, error) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var err error
	select {
	case l := <-w.c:
		return l, nil
	case <-timer.C:
		err = ErrTimeout
	case <-ctx.Done():
		err = ctx.Err()
	case <-w.e.done:
		err = w.e.Err()
	}
	select {
	case l := <-w.c:
		return l, nil
	default:
		return Line{}, err
	}
}
