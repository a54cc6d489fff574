package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

const (
	// firstBuffer is the read buffer of a connection without traffic.
	firstBuffer = 2048
	// maxEarlyBytes bounds the read buffers of all connections before their
	// CONNECT together, as far as they are larger than that: who is not known
	// yet gets no memory that others need.
	maxEarlyBytes = 4 << 20
)

// readLoop reads and handles packets until an error ends the connection.
func (c *conn) readLoop() error {
	c.nc.SetReadDeadline(time.Now().Add(c.srv.limits.ConnectTimeout))
	defer c.knownNow()
	defer c.giveBack()
	for {
		handled, err := c.handleBuffered()
		if err != nil {
			return err
		}
		if handled && c.withheld.count.Load() > 0 {
			c.signal() // they may be due to go back
		}
		waited := c.srv.pending.wait(c.isClosing)
		if err := c.makeRoom(); err != nil {
			return err
		}
		// A whole packet renews the keep alive, single bytes do not
		// [MQTT-3.1.2-22]; nor is time counted in which nothing was read.
		if c.sess != nil && (handled || waited) {
			deadline := time.Time{}
			if c.keepAlive > 0 {
				deadline = time.Now().Add(c.keepAlive)
			}
			c.nc.SetReadDeadline(deadline)
		}
		if c.isClosing() {
			return c.reason()
		}
		n, err := c.read()
		c.w += n
		c.srv.stats.bytesReceived.Add(uint64(n))
		if n == 0 && err != nil {
			return c.readError(err)
		}
	}
}

// handleBuffered handles every whole packet in the buffer, and tells whether
// there was one.
func (c *conn) handleBuffered() (handled bool, err error) {
	defer c.endBatch()
	for ; ; handled = true {
		c.beginBatch()
		h, n, err := packet.ReadHeaderVersion(c.buf[c.r:c.w], c.version)
		if err != nil {
			return handled, err
		}
		if n == 0 {
			return handled, nil
		}
		if n+h.Remaining > c.srv.limits.MaxPacketSize {
			return handled, fmt.Errorf("%w: a packet of %d bytes is over limits.max_packet_size (%d)",
				holdfast.ErrTooLarge, n+h.Remaining, c.srv.limits.MaxPacketSize)
		}
		if c.w-c.r < n+h.Remaining {
			return handled, nil
		}
		body := c.buf[c.r+n : c.r+n+h.Remaining]
		c.r += n + h.Remaining
		if err := c.handle(h, body); err != nil {
			return handled, err
		}
		c.giveWay()
	}
}

// makeRoom moves the rest of the buffer to its front and grows it when it is
// full. It grows with the bytes that came, not with the length that a header
// announces: nobody gets memory for a promise.
func (c *conn) makeRoom() error {
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	switch {
	case c.w == len(c.buf):
		if c.sess == nil {
			c.early += len(c.buf)
			if c.srv.early.Add(int64(len(c.buf))) > maxEarlyBytes {
				return errors.New("too many clients are in the middle of a large CONNECT")
			}
		}
		c.grow()
	case c.w == 0 && c.raw == nil && len(c.buf) > 64<<10:
		c.buf = make([]byte, firstBuffer)
	}
	if c.sess != nil {
		c.knownNow()
	}
	return nil
}

// grow makes the buffer twice as large, for a packet that is larger.
func (c *conn) grow() {
	larger := make([]byte, 2*len(c.buf))
	copy(larger, c.buf[:c.w])
	c.buf = larger
	if c.raw != nil && c.raw.lent != nil {
		c.endLoan()
	}
}

// knownNow ends the time in which the connection's buffer counts as early.
func (c *conn) knownNow() {
	c.srv.early.Add(-int64(c.early))
	c.early = 0
}

// readError puts what ended reading into words.
func (c *conn) readError(err error) error {
	deadline := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.Canceled) // the latter is WebSocket's
	switch {
	case c.isClosing():
		return c.reason()
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: the client closed it without DISCONNECT", errLost)
	case deadline && c.sess == nil:
		return fmt.Errorf("no CONNECT within %v", c.srv.limits.ConnectTimeout)
	case deadline:
		return &packet.Error{Code: packet.KeepAliveTimeout, Text: fmt.Sprintf("no packet for %v (1.5 times the keep alive)", c.keepAlive)}
	}
	return fmt.Errorf("%w: %w", errLost, err)
}
