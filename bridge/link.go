package bridge

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"
)

// The bounds of a link.
const (
	linkChunk     = 32 << 10               // bytes per write
	linkStall     = time.Minute            // a chunk that is not taken within this ends the link
	linkCloseTime = 250 * time.Millisecond // for what is buffered, DISCONNECT above all
	linkKeep      = 256 << 10              // a larger buffer is not kept
)

var (
	// errLinkClosed: this side has closed the link.
	errLinkClosed = errors.New("the connection is closed")
	// errNoPing: the link is half open.
	errNoPing = errors.New("the broker has not answered the keep-alive ping: the link is dead")
)

// link is the network connection of a client.
//
// A write is taken into a buffer, and one goroutine writes the buffer out: at
// once when it is idle, and all that has come in the meantime when it is not.
// So nothing is delayed, many packets go in one system call, and nobody waits
// for the network. The buffer is bounded by what may be on its way, which is the
// matter of who publishes.
type link struct {
	net.Conn // the wire
	maxIn    int

	r     *bufio.Reader // only used by the reading goroutine
	quiet func()        // called by it before it waits for bytes
	heard func()        // called by it when they have come

	lost    chan struct{} // closed when the link has ended, for whatever reason
	flushed chan struct{} // closed when the writing goroutine has ended

	mu      sync.Mutex
	cond    *sync.Cond
	buf     []byte
	spare   []byte
	idle    bool   // the writing goroutine waits for bytes that may go
	taken   uint64 // bytes ever taken into buf
	written uint64 // of these, handed to the kernel
	closing bool   // nothing more is taken; what is buffered still goes
	err     error  // nothing more is written
	why     error  // why the link has ended; set when lost is closed
	killer  *time.Timer
}

func newLink(wire net.Conn, maxIn int) *link {
	l := &link{
		Conn: wire, maxIn: maxIn,
		lost: make(chan struct{}), flushed: make(chan struct{}),
		quiet: func() {}, heard: func() {},
	}
	l.r = bufio.NewReaderSize(l, 16<<10)
	l.cond = sync.NewCond(&l.mu)
	go l.write()
	return l
}

// Read reads from the wire.
func (l *link) Read(p []byte) (int, error) {
	l.quiet()
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.heard()
	}
	return n, err
}

// Write takes p; it does not wait for the network.
func (l *link) Write(p []byte) (int, error) { return l.take(p, false) }

// take is Write. With more, p may stay in the buffer until the next Write or Flush.
func (l *link) take(p []byte, more bool) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing || l.err != nil {
		return 0, l.why
	}
	l.buf = append(l.buf, p...)
	l.taken += uint64(len(p))
	if !more || len(l.buf) >= linkChunk/2 {
		l.wakeLocked()
	}
	return len(p), nil
}

// Flush lets go what is in the buffer.
func (l *link) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wakeLocked()
}

func (l *link) wakeLocked() {
	if l.idle && len(l.buf) > 0 {
		l.idle = false
		l.cond.Broadcast()
	}
}

// write is the goroutine that writes the buffer out.
func (l *link) write() {
	defer func() {
		l.Conn.Close()
		l.mu.Lock()
		if l.killer != nil {
			l.killer.Stop()
		}
		if l.err == nil {
			l.err = errLinkClosed
		}
		l.cond.Broadcast()
		l.mu.Unlock()
		close(l.flushed)
	}()
	for {
		l.mu.Lock()
		for l.idle = len(l.buf) == 0; l.idle && !l.closing && l.err == nil; {
			l.cond.Wait()
		}
		if l.err != nil || len(l.buf) == 0 {
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		runtime.Gosched() // let who is about to write do so: one call for all
		l.mu.Lock()
		out := l.buf
		l.buf, l.spare = l.spare[:0], nil
		l.mu.Unlock()

		err := l.writeOut(out)

		if err != nil {
			l.end(fmt.Errorf("send to the broker: %w", err))
			return
		}
		l.mu.Lock()
		if cap(out) <= linkKeep {
			l.spare = out
		}
		l.written += uint64(len(out))
		l.cond.Broadcast()
		l.mu.Unlock()
	}
}

func (l *link) writeOut(p []byte) error {
	for len(p) > 0 {
		l.mu.Lock()
		limit := linkStall
		if l.closing {
			limit = linkCloseTime
		}
		_ = l.Conn.SetWriteDeadline(time.Now().Add(limit)) // a wire without deadlines is closed by close
		l.mu.Unlock()
		n := min(len(p), linkChunk)
		if _, err := l.Conn.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// waitWritten waits until all that was taken so far is with the kernel; false
// if the link ended before.
func (l *link) waitWritten() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for mark := l.taken; l.written < mark; l.cond.Wait() {
		if l.err != nil {
			return false
		}
	}
	return true
}

// Close ends the link after what is buffered was written, within linkCloseTime.
func (l *link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing || l.err != nil {
		return nil
	}
	l.closing = true
	l.lostLocked(errLinkClosed)
	_ = l.Conn.SetReadDeadline(time.Unix(1, 0))
	_ = l.Conn.SetWriteDeadline(time.Now().Add(linkCloseTime))
	l.killer = time.AfterFunc(linkCloseTime, func() { l.Conn.Close() }) // for a wire without deadlines
	l.cond.Broadcast()
	return nil
}

// end is the end of the link by an error: nothing more is written.
func (l *link) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lostLocked(err)
	if !l.closing && l.err == nil { // else the rest of the buffer still goes
		l.err = err
		l.cond.Broadcast()
	}
}

func (l *link) lostLocked(why error) {
	if l.why == nil {
		l.why = why
		close(l.lost)
	}
}

// reason says why the link has ended; nil while it has not.
func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}
