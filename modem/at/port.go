package at

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

type writeRequest struct {
	p    []byte
	done chan error // buffered
}

// send hands p to the writer goroutine and waits until it is written, so that
// a port that takes no bytes stalls a goroutine and not the command's time-out.
func (e *Engine) send(ctx context.Context, timer *time.Timer, p []byte) error {
	req := writeRequest{p: p, done: make(chan error, 1)}
	select {
	case e.writes <- req:
	case <-timer.C:
		return ErrTimeout
	case <-ctx.Done():
		return ctx.Err()
	case <-e.done:
		return e.Err()
	}
	select {
	case err := <-req.done:
		return err
	case <-timer.C:
		return ErrTimeout
	case <-ctx.Done():
		return ctx.Err()
	case <-e.done:
		return e.Err()
	}
}

// write is the writer goroutine.
func (e *Engine) write() {
	for {
		select {
		case <-e.done:
			return
		case req := <-e.writes:
			n, err := e.port.Write(req.p)
			if err == nil && n < len(req.p) {
				err = io.ErrShortWrite
			}
			e.mu.Lock()
			e.stats.BytesOut += uint64(n)
			e.mu.Unlock()
			if err != nil {
				err = fmt.Errorf("writing to the AT port: %w", err)
				e.fail(err)
			}
			req.done <- err
		}
	}
}

const (
	maxSample = 64
	// A port whose time-out is shorter than this and that returns (0, nil) is
	// slowed down, so that a broken one does not burn a processor.
	minReadWait = time.Millisecond
)

// read is the reader goroutine: nobody else reads from the port.
func (e *Engine) read() {
	buf := make([]byte, 4096)
	for {
		start := time.Now()
		n, err := e.port.Read(buf)
		if n > 0 {
			e.mu.Lock()
			e.stats.BytesIn += uint64(n)
			e.lastByte = time.Now()
			e.keepSampleLocked(buf[:n])
			e.lex.write(buf[:n])
			e.endFlightLocked()
			e.armGapLocked()
			e.mu.Unlock()
		}
		if err != nil {
			e.fail(readError(err))
			return
		}
		if n == 0 && time.Since(start) < minReadWait {
			select {
			case <-e.done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
		select {
		case <-e.done:
			return
		default:
		}
	}
}

func readError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the AT port hung up: %w", err)
	}
	return fmt.Errorf("reading from the AT port: %w", err)
}

func (e *Engine) keepSampleLocked(p []byte) {
	if len(p) >= maxSample {
		p = p[len(p)-maxSample:]
	}
	e.sample = append(e.sample, p...)
	if over := len(e.sample) - maxSample; over > 0 {
		e.sample = append(e.sample[:0], e.sample[over:]...)
	}
}

// Sample are the newest bytes that the port has given, at most 64. They are
// for telling what is at the other end of a port that does not answer AT; they
// may contain anything and must not be logged as they are.
func (e *Engine) Sample() []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]byte(nil), e.sample...)
}

// fail ends the engine, once. The port is closed, so that a reader or writer
// inside of it comes back.
func (e *Engine) fail(err error) {
	e.mu.Lock()
	if e.failed {
		e.mu.Unlock()
		return
	}
	e.failed = true
	e.err = err
	e.flushHeldLocked()
	if e.promptGap != nil {
		e.promptGap.Stop()
	}
	close(e.done)
	e.wake.Broadcast()
	e.mu.Unlock()
	if cerr := e.port.Close(); cerr != nil {
		e.o.Logger.Debug("closing the AT port", "error", cerr)
	}
}
