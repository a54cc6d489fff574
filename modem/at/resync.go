package at

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Resync makes sure that the module answers AT, and that the answer is not one
// to an earlier command. The error wraps ErrUnsynced if it does not.
func (e *Engine) Resync(ctx context.Context) error {
	if err := e.takeTurn(ctx); err != nil {
		return err
	}
	defer e.giveTurn()
	return e.resync(ctx, e.o.SyncTries)
}

// Probe is a short Resync, with two tries: for a search.
func (e *Engine) Probe(ctx context.Context) error {
	if err := e.takeTurn(ctx); err != nil {
		return err
	}
	defer e.giveTurn()
	return e.resync(ctx, 2)
}

// resync discards everything that is still on its way, asks AT until there is
// an OK, and discards again: that OK may be the late one of the command that
// ran out of time, or of an earlier AT, with the true one behind it. A firmware
// answers in order, so after a silence nothing is on its way any more.
//
// A module that waits for data (prompt) would take AT as data: ESC cancels that
// (3GPP TS 27.005 3.5.1), at once if the command had a prompt, else from the
// second try on. One that counts its data takes ESC for data too, and sends on what
// it gets. If only the prompt was lost, the payload itself is the one thing that does
// no harm: it is written first, so that it is no command for a module that has not
// heard of this one. That is if the module has said anything since, noise at least: in
// silence it is the command that was lost.
func (e *Engine) resync(ctx context.Context, tries int) error {
	e.dirty = true
	e.mu.Lock()
	ghost := e.ghost
	pay := ghost != nil && ghost.cmd.Payload != nil && !ghost.paid && !ghost.cut && e.stats.BytesIn > ghost.heard
	e.dropRawLocked()
	e.mu.Unlock()
	if err := e.drain(ctx); err != nil {
		return err
	}
	escape := ghost != nil && ghost.cmd.Payload != nil
	if pay {
		ghost.paid = true
		if err := e.pay(ctx, noCommand(ghost.cmd.Payload)); err != nil {
			return err
		}
		if err := e.drain(ctx); err != nil {
			return err
		}
	}
	var last error
	for range tries {
		text := "AT"
		if escape {
			text = "\x1b\rAT"
		}
		escape = true
		_, err := e.run(ctx, Command{Text: text, Timeout: e.o.SyncWait})
		e.mu.Lock()
		e.ghost = ghost // that of the command, not that of AT
		e.mu.Unlock()
		if err == nil || IsRejection(err) {
			if drainErr := e.drain(ctx); drainErr != nil {
				return drainErr
			}
			if err != nil { // the late ERROR of the command
				last = err
				continue
			}
			e.mu.Lock()
			e.ghost = nil
			e.mu.Unlock()
			e.dirty = false
			return nil
		}
		if !errors.Is(err, ErrTimeout) {
			return err
		}
		last = err
	}
	return fmt.Errorf("%w (%d tries)", errors.Join(ErrUnsynced, last), tries)
}

// pay writes a payload whose prompt was not seen.
func (e *Engine) pay(ctx context.Context, payload []byte) error {
	timer := time.NewTimer(e.o.Timeout)
	defer timer.Stop()
	return e.send(ctx, timer, payload)
}

// noCommand is p, with its length, but without a line that a module could take for a
// command: one with AT in it, whatever stands before (V.250 5.2.1). Where p has one, the
// letter is lost; seldom, and better than what a payload could do to a module.
func noCommand(p []byte) []byte {
	p = slices.Clone(p)
	begin := 0 // of the line
	for i, c := range p {
		if c != '\r' && c != '\n' {
			continue
		}
		for line := p[begin:i]; len(line) > 1; line = line[1:] {
			if line[0]|0x20 == 'a' && line[1]|0x20 == 't' {
				line[0] = 0xff
			}
		}
		begin = i + 1
	}
	return p
}

// drain waits until nothing has come for Idle, at most ten times as long: a
// module that talks all the time must not stop the resync.
func (e *Engine) drain(ctx context.Context) error {
	end := time.Now().Add(10 * e.o.Idle)
	timer := time.NewTimer(e.o.Idle)
	defer timer.Stop()
	start := time.Now()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.done:
			return e.Err()
		}
		e.mu.Lock()
		last := e.lastByte
		e.mu.Unlock()
		if last.Before(start) {
			last = start
		}
		rest := e.o.Idle - time.Since(last)
		if rest <= 0 || !time.Now().Before(end) {
			return nil
		}
		timer.Reset(rest)
	}
}

// dropRawLocked gives up on a raw block that did not come whole.
func (e *Engine) dropRawLocked() {
	e.lex.dropRaw()
	e.rawFlight = nil
	if e.rawLine != nil {
		e.rawLine.Cut = true
		e.queueLocked(*e.rawLine)
		e.rawLine = nil
	}
}
