package sim

import (
	"context"
	"net"
	"sync"
	"time"
)

// sendBuffer is the TCP send buffer of the module: what a write can put there
// succeeds, radio or not.
const sendBuffer = 4 * 1460

// airConn is one TCP connection of the module over the air. In an outage its
// bytes wait on both ends, as they do in TCP, and go on when it is over.
type airConn struct {
	net.Conn
	air *air
	st  *stats

	closed    chan struct{}
	closing   sync.Once
	dead      chan struct{} // closed: nothing passes any more, for ever
	forgotten sync.Once

	mu   sync.Mutex
	buf  []byte
	busy bool // pump is writing what it took from buf
	err  error
	wake chan struct{} // capacity 1: buf is not empty
	room chan struct{} // capacity 1: buf has become shorter
}

// dial connects as the module does: in an outage it hangs until that is over
// or ctx ends. The caller must run pump and close the connection.
func (m *Module) dial(ctx context.Context, addr string) (*airConn, error) {
	for {
		up, changed := m.air.state()
		if up {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c, err := m.opt.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	a := &airConn{
		Conn: c, air: m.air, st: &m.stats,
		closed: make(chan struct{}), dead: make(chan struct{}),
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
	m.air.mu.Lock()
	m.air.conns[a] = struct{}{}
	m.air.mu.Unlock()
	m.spawn(a.pump)
	return a, nil
}

// pass waits until bytes may pass.
func (c *airConn) pass() error {
	for {
		up, changed := c.air.state()
		dead := c.dead
		select {
		case <-dead:
			up, changed = false, nil
		default:
		}
		if up {
			return nil
		}
		if changed == nil {
			dead = nil
		}
		select {
		case <-changed:
		case <-dead:
		case <-c.closed:
			return net.ErrClosed
		}
	}
}

// Read gives nothing while there is no radio, not even the end.
func (c *airConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if e := c.pass(); e != nil {
		return 0, e
	}
	c.st.count(func(s *Stats) { s.Down += int64(n) })
	return n, err
}

// Write returns when b is in the send buffer.
func (c *airConn) Write(b []byte) (int, error) {
	for {
		c.mu.Lock()
		err, fits := c.err, len(c.buf) == 0 || len(c.buf)+len(b) <= sendBuffer
		if err == nil && fits {
			c.buf = append(c.buf, b...)
		}
		c.mu.Unlock()
		switch {
		case err != nil:
			return 0, err
		case fits:
			signal(c.wake)
			return len(b), nil
		}
		select {
		case <-c.room:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
}

// pump carries the send buffer over the air until the connection is closed.
func (c *airConn) pump() {
	for {
		select {
		case <-c.wake:
		case <-c.closed:
			return
		}
		if c.pass() != nil {
			return
		}
		c.mu.Lock()
		b := c.buf
		c.buf, c.busy = nil, true
		c.mu.Unlock()
		n, err := c.Conn.Write(b)
		c.st.count(func(s *Stats) { s.Up += int64(n) })
		c.mu.Lock()
		c.busy = false
		if err != nil {
			c.err = err
		}
		c.mu.Unlock()
		signal(c.room)
	}
}

// drain waits until the send buffer is empty, or for d.
func (c *airConn) drain(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		c.mu.Lock()
		empty, err := len(c.buf) == 0 && !c.busy, c.err
		c.mu.Unlock()
		if empty || err != nil {
			return err == nil
		}
		select {
		case <-c.room:
		case <-c.closed:
			return false
		case <-t.C:
			return false
		}
	}
}

// Close may be called more than once.
func (c *airConn) Close() error {
	var err error
	c.closing.Do(func() {
		close(c.closed)
		c.air.mu.Lock()
		delete(c.air.conns, c)
		c.air.mu.Unlock()
		err = c.Conn.Close()
	})
	return err
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
