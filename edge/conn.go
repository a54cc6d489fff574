package edge

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// flushWait bounds how long a connection that is being closed may take for its
// last bytes (a CONNACK that refuses, the acknowledgements before a DISCONNECT).
const flushWait = time.Second

// conn is one client's connection. Its reader goroutine (serve) decodes and
// handles packets. Everybody appends to out what is for the client; whoever has the
// pen writes it to the socket: a reader what can be written without waiting, else
// the writer goroutine (write), which is there only while there is something.
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
	expiry    uint32       // the Session Expiry Interval in seconds
	window    int          // how many QoS 1 and 2 messages the client takes at a time
	maxPacket int          // the client's Maximum Packet Size in bytes; 0 is none
	aliases   *toldAliases // nil if the client takes none; what is in it is guarded by mu
	sess      *session

	// login is who was let in, without the password; nil before. rights are what
	// that client may do; nil is everything. ReviewAccess changes them, one at a
	// time.
	login     atomic.Pointer[Login]
	rights    atomic.Pointer[Rights]
	reviewing sync.Mutex

	batch batch // what its reader is handling
	crowd crowd // see giveWay

	// Only the reader uses these.
	buf       []byte // bytes read and not handled: buf[r:w]
	r, w      int
	pub       packet.Publish
	lastTopic string // of the last PUBLISH, to save an allocation
	heard     heardAliases

	publishDenied     bool // the log has that a publish was denied
	sentBack          bool // a message of it has been here before; only the reader
	subscribesRefused int  // SUBSCRIBEs that were refused something

	publishing pace
	heldBefore bool          // publishing was too fast, and the log has it
	delay      time.Duration // how long the connection waits before it is read
	early      int           // what buf counts for in Server.early
	clean      bool          // DISCONNECT came: the will is not to be published
	will       *holdfast.Will
	staleWill  bool // a will of an earlier connection is on disk and is to be removed

	// held is an item that was taken from the outbox and cannot be sent yet;
	// without Msg there is none. Only who has the pen uses it, and detach at last.
	held holdfast.Item
	// withheld are items that the client may not have; see withhold. It is used in
	// the same way, except for its atomic fields.
	withheld withheld
	// taken is what is being written, and written how much of it is. later: there is
	// more to come from the disk. The same goroutines use them.
	taken   []byte
	written int
	later   bool
	raw     *rawSocket // nil: it cannot be written to without waiting

	retained waitingRetained // see sendRetained

	pen     chan struct{}  // capacity 1: whoever has taken it writes
	writers sync.WaitGroup // Add only with the pen
	dirty   atomic.Bool    // there may be something to write
	fill    atomic.Bool    // the session may have something to send
	owed    atomic.Bool    // it is in a batch, whose end flushes it

	mu          sync.Mutex
	out         []byte        // what is to be written next; guarded by mu
	acks        ackQueue      // guarded by mu
	receiving   receiveWindow // guarded by mu
	started     bool          // CONNACK is in out: anything may follow; guarded by mu
	subscribing int           // SUBACKs that are to come before queued messages; guarded by mu
	closing     bool          // guarded by mu
	cause       error         // why; guarded by mu

	closed chan struct{} // closed together with closing
	gone   chan struct{} // closed when the session was detached and the will published
}

func newConn(s *Server, nc net.Conn) *conn {
	remote := nc.RemoteAddr().String()
	if nc.RemoteAddr().Network() == "unix" {
		remote = remoteUnix // the other end has no name
	}
	c := &conn{
		srv: s, nc: nc, remote: remote,
		buf:    make([]byte, firstBuffer),
		pen:    make(chan struct{}, 1),
		closed: make(chan struct{}),
		gone:   make(chan struct{}),
	}
	c.raw = newRawSocket(c)
	c.pen <- struct{}{}
	return c
}

// serve is the reader goroutine: it runs the connection from its first byte to
// its last trace.
func (c *conn) serve() {
	if c.delay > 0 {
		_ = c.pause(c.delay) // readLoop finds out whether it was closed meanwhile
	}
	err := c.readLoop()
	c.close(err)
	c.writeLast()
	c.nc.Close()
	c.srv.retainedWaiting.Add(-int64(c.retained.drop()))
	c.leave()
	c.srv.mu.Lock()
	delete(c.srv.conns, c)
	c.srv.mu.Unlock()
	close(c.gone)
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
	c.wake()
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
	if will = c.srv.detach(c, will); will != nil {
		c.srv.publishWill(c.clientID, will.Msg, c.author())
	}
	if c.clean {
		c.srv.log.Info("client disconnected", "client_id", c.clientID, "remote", c.remote)
		return
	}
	c.srv.log.Info("client lost", "client_id", c.clientID, "remote", c.remote, "reason", cause)
}
