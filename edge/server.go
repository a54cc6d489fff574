// Package edge is the local MQTT broker: the sensors' side of the gateway.
//
// A message's life begins here. A connection reads it (conn_read.go), its session
// knows duplicates (session.go), the router finds who wants it (router.go), the
// Sink makes it safe in every durable destination, and only then does the
// connection acknowledge it (P1: acknowledged means safe). What happens behind
// the Sink - queues on disk, bridges - the broker neither knows nor waits for
// when it delivers to connected subscribers.
//
// Goroutines: one a listener; a reader for each connection, and a writer while it
// has something to write; one for wills that were refused, one for what clients
// that are away are owed (their delayed wills, the end of their sessions), one that
// moves what shared subscriptions have kept, one for the $SYS tree; all are awaited
// by Shutdown.
package edge

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"
)

// Limits bound what clients can make the broker hold. A zero field means the
// default given with it.
type Limits struct {
	// MaxPacketSize is the largest packet accepted, in bytes (256 KiB). A
	// larger one ends its connection.
	MaxPacketSize int
	// MaxConnections is how many clients may be connected at once (1,000).
	MaxConnections int
	// MaxConnectRate is how many connections of one address (of one network of 64
	// bits for IPv6) are taken in a second (0: any). More wait their turn, at most
	// ConnectTimeout; then they are refused.
	MaxConnectRate int
	// MaxPublishRate is how many messages of one client are taken in a second, of
	// which as many may come at once (0: any). Then it is read no further until it
	// is time for the next.
	MaxPublishRate int
	// MaxInflight is how many QoS 1 and 2 messages may be unacknowledged by
	// one subscriber (64; at most 65,535).
	MaxInflight int
	// ReceiveMaximum is how many QoS 1 and 2 messages an MQTT 5 client may have
	// sent that are not acknowledged (1,000; at most 65,535); one more ends its
	// connection (MQTT 5, 3.2.2.3.3).
	ReceiveMaximum int
	// MaxInboundQoS2 is how many QoS 2 messages of all clients may wait for PUBREL
	// (100,000), of which one client may have a tenth, or ReceiveMaximum if that is
	// more. One more ends the connection that it comes on; but 16 of a client are
	// always taken.
	MaxInboundQoS2 int
	// MaxKeepAlive is the longest keep alive of an MQTT 5 client, which is told
	// so, in whole seconds (none; at most 65,535 s).
	MaxKeepAlive time.Duration
	// MaxOutboundBytes bounds what waits in memory for one client that reads
	// slowly (1 MiB). Beyond it QoS 0 is dropped and counted; a clean session
	// with QoS 1 or 2 waiting is disconnected.
	MaxOutboundBytes int
	// MaxPendingBytes bounds what all clients have published and is not on
	// disk yet (8 MiB). At the bound connections are read no further.
	MaxPendingBytes int
	// ConnectTimeout is how long a connection may take to send CONNECT (10 s).
	ConnectTimeout time.Duration
	// RefuseWait is how long a message is parked when a queue refuses it;
	// after that its publisher is disconnected, so that it sends again (30 s).
	RefuseWait time.Duration
	// RivalWait is the longest that a connection waits for its CONNACK while
	// two devices take their client identifier from one another (5 s).
	RivalWait time.Duration
	// MaxClientIDLength in bytes (1,024).
	MaxClientIDLength int
	// MaxSessions is how many durable sessions are kept (5,000), each with its
	// queue on disk. A client that would need one more is refused with return
	// code 3: to end a session for it would lose what that one was promised.
	MaxSessions int
	// MaxSubscriptions of one client (1,000); more are refused with 0x80.
	MaxSubscriptions int
	// MaxShares is how many shared subscriptions there are (1,000), each with a
	// queue on disk; a client that would begin one more is refused it with 0x80,
	// MQTT 5: 0x97, as is one that has a tenth of them, or 16 if that is more.
	MaxShares int
	// MaxRetained is how many retained messages are kept (100,000). A message
	// that would be one more is delivered, not retained, and counted.
	MaxRetained int
	// MaxRetainedBytes bounds their size together (64 MiB); they are held in
	// memory. The rule is that of MaxRetained.
	MaxRetainedBytes int
	// MaxRetainedWaiting is how many retained messages all clients together may have
	// yet to be sent because they have subscribed (200,000, and never less than
	// MaxRetained). Beyond it the client is disconnected that has taken none for the
	// longest time.
	MaxRetainedWaiting int
	// MaxTopicLevels bounds the levels of a topic name or filter (201, what
	// mosquitto takes); more end the connection.
	MaxTopicLevels int
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.MaxPacketSize, 256<<10)
	def(&l.MaxConnections, 1000)
	def(&l.MaxInflight, 64)
	l.MaxInflight = min(l.MaxInflight, maxPacketID)
	def(&l.ReceiveMaximum, 1000)
	l.ReceiveMaximum = min(l.ReceiveMaximum, maxPacketID)
	l.MaxKeepAlive = min(max(l.MaxKeepAlive, 0), 65535*time.Second)
	def(&l.MaxOutboundBytes, 1<<20)
	def(&l.MaxPendingBytes, 8<<20)
	def(&l.MaxClientIDLength, 1024)
	def(&l.MaxSessions, 5000)
	def(&l.MaxSubscriptions, 1000)
	def(&l.MaxRetained, 100_000)
	def(&l.MaxRetainedBytes, 64<<20)
	def(&l.MaxTopicLevels, 201)
	def(&l.MaxInboundQoS2, 100_000)
	def(&l.MaxShares, 1000)
	def(&l.MaxRetainedWaiting, 200_000)
	l.MaxRetainedWaiting = max(l.MaxRetainedWaiting, l.MaxRetained)
	if l.ConnectTimeout <= 0 {
		l.ConnectTimeout = 10 * time.Second
	}
	if l.RivalWait <= 0 {
		l.RivalWait = 5 * time.Second
	}
	if l.RefuseWait <= 0 {
		l.RefuseWait = 30 * time.Second
	}
	return l
}

// Options are what a Server is made of. The first four must be set.
type Options struct {
	Sink   Sink
	Store  Store
	Access Access
	Logger *slog.Logger
	Limits Limits
	// SysInterval is how often the $SYS tree is brought up to date; 0: there is
	// none. Version is told in it; "" is not.
	SysInterval time.Duration
	Version     string
	// GatewayID is told to clients of MQTT 5 (holdfast.PropertyGateway), and what a
	// client publishes that has passed that gateway already is acknowledged and goes
	// nowhere; "" does neither.
	GatewayID string
}

// Server is a broker. Its methods may be called by any goroutine.
type Server struct {
	opts   Options
	limits Limits
	log    *slog.Logger

	started time.Time

	router   router
	retained retained
	pending  pressure
	wills    wills
	stats    counters
	rivals   rivals
	arrivals arrivals

	mu       sync.Mutex
	sessions map[string]*session   // by client identifier; guarded by mu
	conns    map[*conn]struct{}    // guarded by mu
	lns      map[net.Listener]bool // guarded by mu
	serving  bool                  // what Serve starts once runs; guarded by mu
	closed   bool                  // guarded by mu
	quit     chan struct{}         // closed with closed
	// absentWake has capacity 1: watchAbsent is to look again.
	absentWake chan struct{}
	// shareWake has capacity 1: moveShares is to look again.
	shareWake chan struct{}
	// accessChanges counts the calls of ReviewAccess.
	accessChanges atomic.Uint64
	// allExactly counts the QoS 2 messages of clients that wait for PUBREL.
	allExactly atomic.Int64
	// retainedWaiting counts the retained messages that clients have yet to be
	// sent because they have subscribed.
	retainedWaiting atomic.Int64
	// foreignSys: the log has that a bridge brought something below $SYS.
	foreignSys atomic.Bool
	// noGivingWay is until when no publisher gives way (crowd.go), from started on.
	noGivingWay atomic.Int64
	// early counts the bytes of read buffers of clients before their CONNECT.
	early atomic.Int64
	wg    sync.WaitGroup // listeners and connections; Add only under mu
}

// NewServer restores sessions and retained messages from the store and
// publishes the wills that were outstanding when the process ended, except for
// those whose delay goes on. This is
// done before any client can connect: a will that came after its client had
// come back would overwrite the newer state (MQTT 3.1.1, 3.1.2.5 allows the
// delay).
func NewServer(o Options) (*Server, error) {
	s := &Server{
		opts:     o,
		limits:   o.Limits.withDefaults(),
		log:      o.Logger,
		started:  time.Now(),
		sessions: make(map[string]*session),
		conns:    make(map[*conn]struct{}),
		lns:      make(map[net.Listener]bool),
		quit:     make(chan struct{}),

		absentWake: make(chan struct{}, 1),
		shareWake:  make(chan struct{}, 1),
	}
	s.pending.init(int64(s.limits.MaxPendingBytes))
	s.wills.init()
	s.router.left = s.leaveShare
	kept, err := o.Store.Retained()
	if err != nil {
		return nil, fmt.Errorf("read retained messages: %w", err)
	}
	for _, m := range kept {
		if isSys(m.Topic) { // of a client that could do that once
			o.Store.ForgetRetained(m.Topic)
			continue
		}
		s.retained.restore(m)
	}
	states, err := o.Store.Sessions()
	if err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	now := time.Now()
	away := make(map[string]time.Duration, len(states))
	var shares []string
	for _, st := range states {
		if strings.HasPrefix(st.ClientID, sharePrefix) {
			shares = append(shares, st.ClientID)
			continue
		}
		away[st.ClientID] = st.Away
		if err := s.restoreSession(st, now); err != nil {
			return nil, err
		}
	}
	s.restoreShares(shares)
	wills, err := o.Store.Wills()
	if err != nil {
		return nil, fmt.Errorf("read wills: %w", err)
	}
	for id, will := range wills {
		ss, waited := s.sessions[id], away[id]
		if ss != nil && time.Duration(will.Delay)*time.Second > waited {
			ss.delayWill(will, nil, now, waited)
			continue
		}
		s.publishWill(id, will.Msg, nil)
	}
	return s, nil
}

// Serve accepts connections on ln until ln fails or Shutdown is called, which
// closes ln; it then returns nil. One goroutine a listener.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return holdfast.ErrClosed
	}
	s.lns[ln] = true
	s.wg.Add(1)
	if !s.serving {
		s.serving = true
		for _, run := range []func(){s.retryWills, s.watchAbsent, s.moveShares, s.tellSys} {
			s.wg.Add(1)
			go func() {
				defer s.wg.Done()
				run()
			}()
		}
	}
	s.mu.Unlock()
	defer s.wg.Done()
	return s.acceptLoop(ln)
}

// Publish takes a message from inside the gateway (a bridge, the gateway's own
// state) as if a client had published it. done is called exactly once, on any
// goroutine: with nil when the message is safe in every durable destination.
// One in the $SYS tree, which is the broker's own, goes nowhere, counted: to refuse
// it would bring it again for ever.
func (s *Server) Publish(msg *holdfast.Message, done func(error)) {
	s.PublishInbound(msg, nil, done)
}

// PublishInbound is Publish of a message that came with QoS 2: its packet
// identifier is stored with it.
func (s *Server) PublishInbound(msg *holdfast.Message, in *holdfast.Inbound, done func(error)) {
	if isSys(msg.Topic) {
		if s.stats.droppedDenied.Add(1); s.foreignSys.CompareAndSwap(false, true) {
			s.log.Warn("messages below $SYS from a bridge are dropped, and counted in dropped_denied: give their route another prefix", "topic", msg.Topic)
		}
		done(nil)
		return
	}
	if msg.Received.IsZero() {
		m := *msg
		m.Received = time.Now()
		msg = &m
	}
	if err := s.publish(publication{msg: msg, inbound: in}, done); err != nil {
		done(err)
	}
}

// Shutdown closes listeners and connections and waits for their goroutines.
// Wills of clients that are still connected stay stored and are published at
// the next start. It returns ctx.Err() if ctx ends before all has stopped.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.quit)
	}
	for ln := range s.lns {
		ln.Close()
	}
	for c := range s.conns {
		c.close(errShutdown)
	}
	s.mu.Unlock()

	stopped := make(chan struct{})
	go func() { s.wg.Wait(); close(stopped) }()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		c.abort(errShutdown)
	}
	s.mu.Unlock()
	<-stopped
	return ctx.Err()
}
