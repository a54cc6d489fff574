package bridge

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// client is one connection of our own MQTT client. Three goroutines beside the
// link's: one reads, one keeps the connection alive, one tells when QoS 0 was
// written.
type client struct {
	link    *link
	version packet.Version
	receive Receive
	log     *slog.Logger
	will    bool
	noEcho  bool // our own publishes do not come back
	kept    bool // the session outlives the connection
	exact   bool // ClientOptions.Exactly
	// inbox is set before decided is closed; nil if nobody takes QoS 2 exactly
	// once. Until then the reader waits with it.
	inbox   inbox
	decide  sync.Once
	decided chan struct{}

	// What the far broker has said in CONNACK.
	present   bool // it has kept the session
	window    int
	maxSize   int // of a packet; 0: any
	maxQoS    byte
	gateway   string // the id of the Holdfast that it belongs to; "": none
	retains   bool
	keepAlive time.Duration // the longest that nothing may be sent
	told      time.Duration // the same as the far broker was told; it may have wanted less
	adaptive  *Adaptive     // knows better; nil if not

	written *fifo[func(error)] // done of QoS 0
	wg      sync.WaitGroup
	wrote   atomic.Int64 // when a packet was last sent, in nanoseconds since begun
	heard   atomic.Int64 // when bytes came: a large packet may be longer on its way than a ping may take
	probe   atomic.Int64 // the silence before what was sent last and has no answer; 0: none
	begun   time.Time

	ackBody [64]byte // only the reader
	batch   batch

	mu      sync.Mutex
	ended   bool
	id      uint16                 // the last packet identifier
	pending map[uint16]*outgoing   // without PUBACK or PUBCOMP
	inside  int                    // of them that count for the window, and do not exceed it
	held    []heldPublish          // beyond it: the state of the bridge, where window is 1
	subs    map[uint16]chan []byte // codes of SUBACK
	aliases *aliases
	scratch scratch
	inbound map[uint16]bool // QoS 2 identifiers that are not released; true: PUBREC was sent
}

// outgoing is a publish that waits for its answer.
type outgoing struct {
	qos   byte
	done  func(error)
	stage stage
	// received is not nil if the bridge has to be told of PUBREC, and to ask for
	// PUBREL.
	received func(error)
	again    bool // it was sent before with the same identifier
	outside  bool // of an earlier connection: it has no place in the window
	// flight is who is answered instead of done, together with others.
	flight *flight
}

// stage is how far a publish of QoS 2 has come.
type stage byte

const (
	sent stage = iota
	received
	released // PUBREL was sent
)

// end tells that no answer comes any more.
func (u *client) end(o *outgoing, err error) {
	switch {
	case o.flight != nil:
		u.batch.tell([]answer{{o.flight, err}})
	case o.received != nil && o.stage == sent:
		o.received(err)
	case o.done != nil:
		o.done(err)
	}
}

type heldPublish struct {
	p   *packet.Publish
	out *outgoing
}

func newClient(l *link, v packet.Version, receive Receive, log *slog.Logger) *client {
	u := &client{
		link: l, version: v, receive: receive, log: log, begun: time.Now(),
		written: newFifo[func(error)](), pending: map[uint16]*outgoing{}, subs: map[uint16]chan []byte{},
		inbound: map[uint16]bool{}, decided: make(chan struct{}),
	}
	l.quiet = u.tellAnswers
	l.heard = func() { u.heard.Store(int64(time.Since(u.begun))) }
	return u
}

// start is called with the CONNACK of an accepted login.
func (u *client) start(ack packet.Connack, keepAlive time.Duration) {
	u.window, u.maxQoS, u.retains, u.keepAlive, u.told = 65535, 2, true, keepAlive, keepAlive
	u.present = ack.SessionPresent
	if p := ack.Properties; p != nil {
		if p.ReceiveMaximum > 0 {
			u.window = int(p.ReceiveMaximum)
		}
		u.aliases, u.maxSize = newAliases(int(p.TopicAliasMaximum)), int(min(p.MaximumPacketSize, packet.MaxRemaining))
		if p.HasMaximumQoS {
			u.maxQoS = p.MaximumQoS
		}
		u.retains = !p.RetainUnavailable
		if p.HasServerKeepAlive { // [MQTT-3.2.2-21]
			u.keepAlive = time.Duration(p.ServerKeepAlive) * time.Second
		}
	}
	u.heard.Store(int64(time.Since(u.begun)))
	u.wg.Add(3)
	go u.reader()
	go u.pinger()
	go u.teller()
}

// NoEcho reports that the far broker was asked for it (No Local), or has taken
// the bridge bit.
func (u *client) NoEcho() bool { return u.noEcho }

// SessionPresent reports that the far broker has kept the session of an earlier
// connection.
func (u *client) SessionPresent() bool { return u.present }

// HasWill reports that the far broker has a will of this connection.
func (u *client) HasWill() bool { return u.will }

// Properties reports that the properties of a message reach the far broker.
func (u *client) Properties() bool { return u.version == packet.V5 }

// MaxQoS is the highest quality of service that the far broker takes.
func (u *client) MaxQoS() byte { return u.maxQoS }

// Window is the broker's Receive Maximum; one place of it is left for the state
// of the bridge.
func (u *client) Window() int { return max(u.window-1, 1) }

func (u *client) Done() <-chan struct{} { return u.link.lost }

func (u *client) Err() error { return u.link.reason() }

func (u *client) unknown() error {
	return fmt.Errorf("%w: %w", holdfast.ErrUnknown, u.link.reason())
}

// sendLocked writes a packet; the link does not wait for the network. With more, it
// may wait for the next packet or Flush.
func (u *client) sendLocked(b []byte, more bool) {
	now := int64(time.Since(u.begun))
	if idle := now - max(u.wrote.Load(), u.heard.Load()); idle >= int64(probeIdle) {
		u.probe.CompareAndSwap(0, idle)
	}
	u.wrote.Store(now)
	_, _ = u.link.take(b, more) // an error is that of the link, which ends
}

// idLocked is a packet identifier that is not in use; 0 if all are.
func (u *client) idLocked() uint16 {
	for range 65535 {
		if u.id++; u.id == 0 {
			u.id = 1
		}
		if u.exact && u.id <= exactIDs {
			u.id = exactIDs + 1
		}
		if u.pending[u.id] == nil && u.subs[u.id] == nil {
			return u.id
		}
	}
	return 0
}

// Subscribe is described at Upstream.
func (u *client) Subscribe(ctx context.Context, filter string, qos byte) error {
	u.Begin(nil)
	codes := make(chan []byte, 1)
	u.mu.Lock()
	id := u.idLocked()
	s := packet.Subscribe{PacketID: id, Filters: []holdfast.Subscription{
		{Filter: filter, QoS: qos, NoLocal: u.noEcho, RetainAsPublished: true}, // the latter two for MQTT 5
	}}
	b, err := s.Append(nil, u.version)
	if err == nil {
		u.subs[id] = codes
		u.sendLocked(b, false)
	}
	u.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%w: %w", holdfast.ErrRefused, err)
	}
	select {
	case got := <-codes:
		code := packet.ReasonCode(got[0])
		if code.Failed() { // in MQTT 3.1.1 it is 0x80
			return fmt.Errorf("%w: the broker does not permit the subscription to %q: %v (0x%02x): check what it lets this user and client identifier read", holdfast.ErrRefused, filter, code, got[0])
		}
		if got[0] < qos {
			u.log.Warn("the far broker grants a lower quality of service", slog.String("filter", filter), slog.Int("qos", int(got[0])))
		}
		return nil
	case <-u.link.lost:
		return fmt.Errorf("the connection was lost before the subscription was granted: %w", u.link.reason())
	case <-ctx.Done():
		return fmt.Errorf("the broker has not answered the subscription: %w", context.Cause(ctx))
	}
}

// teller calls done of QoS 0 when the bytes are with the kernel.
func (u *client) teller() {
	defer u.wg.Done()
	for {
		done, ok := u.written.pop(u.link.lost)
		if !ok {
			break
		}
		if !u.link.waitWritten() {
			done(u.unknown())
			continue
		}
		done(nil)
	}
	for _, done := range u.written.drop() {
		done(u.unknown())
	}
}

// pinger sends PINGREQ when nothing was sent for the keep alive [MQTT-3.1.2-20],
// or nothing was heard for it, as with QoS 0 on a dead link, and ends a link on which nothing comes back.
func (u *client) pinger() {
	defer u.wg.Done()
	if u.keepAlive == 0 && u.adaptive == nil {
		return
	}
	patience := max(u.keepAlive/2, 10*time.Second)
	if u.adaptive != nil {
		patience = adaptiveWait
	}
	asked := time.Duration(-1) // when the ping without an answer was sent
	for {
		now := time.Since(u.begun)
		if asked >= 0 && time.Duration(u.heard.Load()) >= asked {
			asked = -1
		}
		rest := u.silence() - (now - time.Duration(min(u.wrote.Load(), u.heard.Load())))
		switch {
		case asked >= 0 && now-asked >= patience:
			u.link.end(errNoPing)
			return
		case asked >= 0:
			rest = asked + patience - now
		case u.outgrown():
			u.link.end(errLonger)
			return
		case rest <= 0:
			u.mu.Lock()
			u.sendLocked(packet.AppendPingreq(nil), false)
			u.mu.Unlock()
			asked, rest = now, patience
		}
		t := time.NewTimer(rest)
		select {
		case <-t.C:
		case <-u.link.lost:
			t.Stop()
			return
		}
	}
}

// silence is how long the link may be silent.
func (u *client) silence() time.Duration {
	if u.adaptive == nil {
		return u.keepAlive
	}
	d := u.adaptive.interval()
	if u.keepAlive > 0 {
		d = min(d, u.keepAlive)
	}
	return d
}

// outgrown reports whether another connection could be silent for much longer.
func (u *client) outgrown() bool {
	return u.adaptive != nil && u.told == u.keepAlive && u.adaptive.longest() >= 2*u.told
}

// Close sends the acknowledgements that are due and DISCONNECT if it can, and
// waits.
func (u *client) Close() error {
	u.mu.Lock()
	if !u.ended {
		if b, err := new(packet.Disconnect).Append(nil, u.version); err == nil {
			u.sendLocked(b, false)
		}
	}
	u.ended = true
	u.mu.Unlock()
	_ = u.link.Close()
	<-u.link.flushed
	u.wg.Wait()
	return nil
}
