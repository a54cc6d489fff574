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
	linkHighWater = 64 << 10               // buffered bytes at which no further publish is begun
	linkChunk     = 32 << 10               // bytes per write
	linkStall     = time.Minute            // a chunk that is not taken within this ends the link
	linkCloseTime = 250 * time.Millisecond // for what is buffered, DISCONNECT above all
	linkKeep      = 256 << 10              // a larger buffer is not kept
)

var (
	// errLinkClosed: this side has closed the link.
	errLinkClosed = errors.New("the connection is closed")
	// errNoPing: the client library has closed the link by itself, which it
	// does for this reason only.
	errNoPing = errors.New("the broker has not answered the keep-alive ping: the link is dead")
)

// link is the network connection as the client library sees it.
//
// A write is taken into a buffer, and one goroutine writes the buffer out: at
// once when it is idle, and all that has come in the meantime when it is not.
// So nothing is delayed, many packets go in one system call, and the library
// never waits for the network: the buffer is bounded by linkHighWater (see
// waitRoom) plus what the library itself has in hand.
//
// Reads are buffered, and every packet's header is looked at before the
// library sees it, because the library takes memory for whatever length the
// header claims (up to 256 MB), and panics on a SUBACK with more codes than
// there were filters.
type link struct {
	net.Conn // the wire
	maxIn    int

	// Only used by the reading goroutine, except connack, which is readable
	// once the login has ended.
	r       *bufio.Reader
	left    int  // bytes of the current packet still to be read
	first   bool // CONNACK is awaited
	connack struct {
		came bool
		code byte
	}
	oversize func(topicLen, size int) // a publish beyond maxIn was dropped

	lost    chan struct{} // closed when the link has ended, for whatever reason
	flushed chan struct{} // closed when the writing goroutine has ended

	mu      sync.Mutex
	cond    *sync.Cond
	buf     []byte
	spare   []byte
	taken   uint64 // bytes ever taken into buf
	written uint64 // of these, handed to the kernel
	closing bool   // nothing more is taken; what is buffered still goes
	ours    bool   // this package has asked for the end
	err     error  // nothing more is written
	why     error  // why the link has ended; set when lost is closed
	killer  *time.Timer
}

func newLink(wire net.Conn, maxIn int) *link {
	l := &link{
		Conn: wire, maxIn: maxIn,
		r: bufio.NewReaderSize(wire, 16<<10), first: true,
		lost: make(chan struct{}), flushed: make(chan struct{}),
	}
	l.cond = sync.NewCond(&l.mu)
	go l.write()
	return l
}

// Write takes p; it does not wait for the network.
func (l *link) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing || l.err != nil {
		return 0, l.why
	}
	l.buf = append(l.buf, p...)
	l.taken += uint64(len(p))
	l.cond.Broadcast()
	return len(p), nil
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
		for len(l.buf) == 0 && !l.closing && l.err == nil {
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

// waitRoom waits until a further publish may be begun; false if the link ended.
func (l *link) waitRoom() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && !l.closing && l.taken-l.written > linkHighWater {
		l.cond.Wait()
	}
	return l.err == nil && !l.closing
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
// The library calls it too: after its DISCONNECT, after an error that it got
// from the link, and when a ping was not answered.
func (l *link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing || l.err != nil {
		return nil
	}
	l.closing = true
	if l.ours {
		l.lostLocked(errLinkClosed)
	} else {
		l.lostLocked(errNoPing)
	}
	_ = l.Conn.SetReadDeadline(time.Unix(1, 0))
	_ = l.Conn.SetWriteDeadline(time.Now().Add(linkCloseTime))
	l.killer = time.AfterFunc(linkCloseTime, func() { l.Conn.Close() }) // for a wire without deadlines
	l.cond.Broadcast()
	return nil
}

// leaving says that this package, not the library, is about to end the link.
func (l *link) leaving() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ours = true
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

// SetDeadline bounds the login; writes have a bound of their own.
func (l *link) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing || l.err != nil {
		return nil
	}
	return l.Conn.SetReadDeadline(t)
}

// SetWriteDeadline does nothing: a write does not wait for the network.
func (l *link) SetWriteDeadline(time.Time) error { return nil }
