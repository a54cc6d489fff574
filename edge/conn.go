package edge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// flushWait bounds how long a connection that is being closed may take for its
// last bytes (a CONNACK that refuses, the acknowledgements before a DISCONNECT).
const flushWait = time.Second

const (
	// firstBuffer is the read buffer of a connection without traffic.
	firstBuffer = 2048
	// maxEarlyBytes bounds the read buffers of all connections before their
	// CONNECT together, as far as they are larger than that: who is not known
	// yet gets no memory that others need.
	maxEarlyBytes = 4 << 20
)

// conn is one client's connection. Its reader goroutine (serve) decodes and
// handles packets; its writer goroutine (writeLoop) is the only one that writes
// to the socket. Everybody else appends to out.
type conn struct {
	srv    *Server
	nc     net.Conn
	remote string

	// Set by the reader when it handles CONNECT, before anyone else sees the conn.
	version   packet.Version
	clientID  string
	username  string
	keepAlive time.Duration // the read deadline, 1.5 times what the client said; 0 is none
	bridge    bool
	expiry    uint32 // the Session Expiry Interval in seconds
	window    int    // how many QoS 1 and 2 messages the client takes at a time
	maxPacket int    // the client's Maximum Packet Size in bytes; 0 is none
	sess      *session

	// login is who was let in, without the password; nil before. rights are what
	// that client may do; nil is everything. ReviewAccess changes them, one at a
	// time.
	login     atomic.Pointer[Login]
	rights    atomic.Pointer[Rights]
	reviewing sync.Mutex

	// Only the reader uses these.
	buf       []byte // bytes read and not handled: buf[r:w]
	r, w      int
	pub       packet.Publish
	lastTopic string // of the last PUBLISH, to save an allocation
	heard     heardAliases

	publishDenied     bool // the log has that a publish was denied
	subscribesRefused int  // SUBSCRIBEs that were refused something

	publishing pace
	heldBefore bool          // publishing was too fast, and the log has it
	delay      time.Duration // how long the connection waits before it is read
	early      int           // what buf counts for in Server.early
	clean      bool          // DISCONNECT came: the will is not to be published
	will       *holdfast.Will
	staleWill  bool // a will of an earlier connection is on disk and is to be removed

	// held is an item that was taken from the outbox and cannot be sent yet;
	// without Msg there is none. Only the writer uses it, and detach after it.
	held holdfast.Item
	// withheld are items that the client may not have; see withhold. The same
	// goroutines use it, except for its atomic fields.
	withheld withheld
	// queueAliases are for what the writer takes from the session; only the
	// writer uses them. nil if the client takes none.
	queueAliases *toldAliases

	retained waitingRetained // see sendRetained

	mu          sync.Mutex
	out         []byte        // what the writer takes next; guarded by mu
	acks        ackQueue      // guarded by mu
	receiving   receiveWindow // guarded by mu
	liveAliases *toldAliases  // for what publishers append to out; guarded by mu
	started     bool          // CONNACK is in out: anything may follow; guarded by mu
	subscribing int           // SUBACKs that are to come before queued messages; guarded by mu
	closing     bool          // guarded by mu
	cause       error         // why; guarded by mu

	wake   chan struct{} // capacity 1: there is something to write
	closed chan struct{} // closed together with closing
	gone   chan struct{} // closed when the session was detached and the will published
}

func newConn(s *Server, nc net.Conn) *conn {
	remote := nc.RemoteAddr().String()
	if nc.RemoteAddr().Network() == "unix" {
		remote = remoteUnix // the other end has no name
	}
	return &conn{
		srv: s, nc: nc, remote: remote,
		buf:    make([]byte, firstBuffer),
		wake:   make(chan struct{}, 1),
		closed: make(chan struct{}),
		gone:   make(chan struct{}),
	}
}

// serve is the reader goroutine: it runs the connection from its first byte to
// its last trace.
func (c *conn) serve() {
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.writeLoop()
	}()
	if c.delay > 0 {
		_ = c.pause(c.delay) // readLoop finds out whether it was closed meanwhile
	}
	err := c.readLoop()
	c.close(err)
	<-written
	c.nc.Close()
	c.srv.retainedWaiting.Add(-int64(c.retained.drop()))
	c.leave()
	c.srv.mu.Lock()
	delete(c.srv.conns, c)
	c.srv.mu.Unlock()
	close(c.gone)
}

// readLoop reads and handles packets until an error ends the connection.
func (c *conn) readLoop() error {
	c.nc.SetReadDeadline(time.Now().Add(c.srv.limits.ConnectTimeout))
	defer c.knownNow()
	for {
		handled, err := c.handleBuffered()
		if err != nil {
			return err
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
		n, err := c.nc.Read(c.buf[c.w:])
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
	defer c.signal()
	for ; ; handled = true {
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
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	case c.w == 0 && len(c.buf) > 64<<10:
		c.buf = make([]byte, firstBuffer)
	}
	if c.sess != nil {
		c.knownNow()
	}
	return nil
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

// writeLoop is the writer goroutine. It ends when the connection is closing and
// the last bytes are out, or cannot be written.
func (c *conn) writeLoop() {
	defer func() { c.nc.SetReadDeadline(time.Now()) }()
	var buf []byte
	for {
		c.mu.Lock()
		buf, c.out = c.out, buf[:0]
		closing, mayFill := c.closing, c.started && c.subscribing == 0
		c.mu.Unlock()
		if mayFill && !closing {
			var err error
			if buf, err = c.fillFromSession(buf); err != nil {
				c.close(fmt.Errorf("read the session's queue: %w", err))
			}
		}
		if len(buf) == 0 {
			if closing {
				return
			}
			select {
			case <-c.wake:
			case <-c.closed:
			}
			continue
		}
		n, err := c.nc.Write(buf)
		c.srv.stats.bytesSent.Add(uint64(n))
		if err != nil {
			c.close(fmt.Errorf("%w: write to the client: %w", errLost, err))
			return
		}
		if cap(buf) > 256<<10 {
			buf = nil
		}
	}
}

// signal wakes the writer; it never blocks.
func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// send appends the bytes that enc makes to what the writer takes next. It never
// blocks. A client that sends and does not read what we answer meets the bound
// here and is closed.
func (c *conn) send(enc func(dst []byte) []byte) {
	c.mu.Lock()
	if !c.closing {
		c.out = enc(c.out)
	}
	over := len(c.out) > 2*c.srv.limits.MaxOutboundBytes
	c.mu.Unlock()
	if over {
		c.close(errDeaf)
	}
	c.signal()
}

// start sends CONNACK, after which anything may be sent.
func (c *conn) start(connack packet.Connack) {
	c.mu.Lock()
	c.out = c.appendConnack(c.out, connack)
	c.started = true
	c.mu.Unlock()
	c.sess.outbox.Notify(c.signal)
	c.signal()
	c.srv.wakeShares()
}

// sendAck sends one of the four acknowledgements, out of the order that
// ackQueue keeps.
func (c *conn) sendAck(t packet.Type, id uint16, code packet.ReasonCode) {
	c.send(func(dst []byte) []byte {
		if t == packet.PUBCOMP {
			c.receiving.end(t, id)
		}
		a := packet.Ack{PacketID: id, Code: code}
		return a.Append(dst, t, c.version)
	})
}

// push queues a QoS 1 or 2 message for a clean session; false means that its
// client does not keep up. kept is for a message that the broker holds anyway.
func (c *conn) push(m *holdfast.Message, kept bool) bool {
	box, ok := c.sess.outbox.(*memoryOutbox)
	return !ok || box.push(m, kept)
}

// sendPublishQoS0 sends a QoS 0 message with this topic, or drops and counts it
// when the client reads too slowly.
func (c *conn) sendPublishQoS0(p *packet.Publish, topic string) {
	if c.denied(topic) {
		return
	}
	c.mu.Lock()
	if c.closing || !c.started || len(c.out)+p.Size(c.version) > c.srv.limits.MaxOutboundBytes {
		c.mu.Unlock()
		c.srv.stats.droppedQoS0.Add(1)
		return
	}
	out, ok, err := c.appendPublish(c.out, p, topic, c.liveAliases)
	if err == nil {
		c.out = out
	}
	c.mu.Unlock()
	if ok {
		c.srv.stats.sent.Add(1)
		c.signal()
	}
}

// close begins the end of the connection: no more reading, the last bytes, for a
// client of MQTT 5 with the reason, are flushed within flushWait. It reports whether it is the first to close, whose
// cause is kept. It never blocks.
func (c *conn) close(cause error) (first bool) {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return false
	}
	c.closing, c.cause = true, cause
	if c.started {
		c.out = c.appendDisconnect(c.out, cause)
	}
	close(c.closed)
	c.mu.Unlock()
	now := time.Now()
	if _, later := c.nc.(interface{ closesOnDeadline() }); !later {
		c.nc.SetReadDeadline(now)
	}
	c.nc.SetWriteDeadline(now.Add(flushWait))
	c.srv.pending.wake()
	return true
}

// abort is close without the flush.
func (c *conn) abort(cause error) {
	c.close(cause)
	c.nc.SetWriteDeadline(time.Now())
}

func (c *conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// isStarted reports whether messages may be sent to the client.
func (c *conn) isStarted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.started && !c.closing
}

func (c *conn) reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// leave detaches the session and publishes the will, now or later. It runs on the reader
// goroutine after the writer has ended.
func (c *conn) leave() {
	cause := c.reason()
	if c.sess == nil {
		c.srv.log.Info("connection ended before CONNECT was accepted", "remote", c.remote, "reason", cause)
		return
	}
	will := c.will
	if c.clean || errors.Is(cause, errShutdown) {
		will = nil
	}
	if will != nil && !c.mayPublish(will.Msg.Topic) {
		c.srv.log.Warn("will dropped: its client may not publish it any more", "client_id", c.clientID, "topic", will.Msg.Topic)
		will = nil
		c.srv.opts.Store.SetWill(c.clientID, nil, func(error) {})
	}
	if will = c.srv.detach(c, will); will != nil {
		c.srv.publishWill(c.clientID, will.Msg)
	}
	if c.clean {
		c.srv.log.Info("client disconnected", "client_id", c.clientID, "remote", c.remote)
		return
	}
	c.srv.log.Info("client lost", "client_id", c.clientID, "remote", c.remote, "reason", cause)
}
