package edge

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// readBuffer is what is read at once from a client that is known: many packets. The
// buffer is lent while there is something to read, so that clients without traffic
// cost none.
const readBuffer = 16 << 10

var readBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// rawSocket reads and writes a socket in ways that net.Conn does not offer. One
// goroutine reads, and who has the pen writes.
type rawSocket struct {
	conn syscall.RawConn

	// The functions are made once, to save allocations.
	try func(fd uintptr) bool
	out []byte
	n   int
	err error

	readable func(fd uintptr) bool
	lent     *[readBuffer]byte // nil: the connection's buffer is its own, if it has one
	readN    int
	readErr  error
}

// newRawSocket returns nil for what is no socket itself: TLS, WebSocket.
func newRawSocket(c *conn) *rawSocket {
	var sc syscall.Conn
	switch nc := c.nc.(type) {
	case *net.TCPConn:
		sc = nc
	case *net.UnixConn:
		sc = nc
	default:
		return nil
	}
	conn, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &rawSocket{conn: conn}
	s.try = func(fd uintptr) bool {
		for {
			if s.n, s.err = syscall.Write(int(fd), s.out); s.err != syscall.EINTR {
				return true
			}
		}
	}
	s.readable = func(fd uintptr) bool { return c.readSocket(int(fd)) }
	return s
}

// tryWrite writes as much as the socket has room for. It has the pen.
func (c *conn) tryWrite(b []byte) (n int, err error) {
	s := c.raw
	s.out, s.n, s.err = b, 0, nil
	err = s.conn.Write(s.try)
	s.out = nil
	if err == nil && s.err != syscall.EAGAIN {
		err = os.NewSyscallError("write", s.err)
	}
	return max(s.n, 0), err
}

// read waits for bytes and puts them behind those in buf. Only the reader calls it.
func (c *conn) read() (n int, err error) {
	s := c.raw
	if s == nil || c.sess == nil {
		return c.nc.Read(c.buf[c.w:])
	}
	if c.w == 0 && s.lent == nil {
		c.buf = nil
	}
	s.readN, s.readErr = 0, nil
	if err := s.conn.Read(s.readable); err != nil {
		return 0, err
	}
	switch {
	case s.readErr != nil:
		return 0, os.NewSyscallError("read", s.readErr)
	case s.readN == 0:
		return 0, io.EOF
	}
	return s.readN, nil
}

// readSocket reads once, and reports false if there is nothing yet. Then the lent
// buffer goes back; what is in it of a packet that is not whole gets one of its own.
func (c *conn) readSocket(fd int) bool {
	s := c.raw
	if c.buf == nil {
		s.lent = readBuffers.Get().(*[readBuffer]byte)
		c.buf = s.lent[:]
	}
	for {
		n, err := syscall.Read(fd, c.buf[c.w:])
		switch err {
		case nil:
			s.readN = n
			return true
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			c.giveBack()
			return false
		}
		s.readErr = err
		return true
	}
}

// giveBack ends the loan of the read buffer.
func (c *conn) giveBack() {
	s := c.raw
	if s == nil || s.lent == nil {
		return
	}
	kept := c.buf[:c.w]
	c.buf = nil
	if c.w > 0 {
		c.buf = make([]byte, max(firstBuffer, 2*c.w))
		copy(c.buf, kept)
	}
	c.endLoan()
}

// endLoan is for when nothing in the lent buffer is needed any more: what is in it
// from now on is another client's.
func (c *conn) endLoan() {
	c.pub.Topic, c.pub.Payload = nil, nil // they would keep the buffer in memory
	if returned != nil {
		returned(c.raw.lent)
	}
	readBuffers.Put(c.raw.lent)
	c.raw.lent = nil
}

// returned is called with each read buffer that comes back; only tests set it.
var returned func(*[readBuffer]byte)
