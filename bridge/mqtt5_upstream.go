package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/edge/packet"
	"holdfast/edge/topic"
)

// maxAliases is the most topic aliases that are used, whatever the broker takes.
const maxAliases = 256

// mqtt5Upstream is one connection in MQTT 5. Three goroutines beside the link's:
// one reads, one keeps the connection alive, one tells when QoS 0 was written.
type mqtt5Upstream struct {
	link    *link
	receive Receive
	log     *slog.Logger
	will    bool
	noLocal bool // our own publishes do not come back

	// What the far broker has said in CONNACK.
	window    int
	aliases   int
	maxSize   int // of a packet; 0: any
	maxQoS    byte
	retains   bool
	keepAlive time.Duration

	written *fifo[func(error)] // done of QoS 0
	wg      sync.WaitGroup
	wrote   atomic.Int64 // when a packet was last sent, in nanoseconds since begun
	heard   atomic.Int64 // when one came
	begun   time.Time

	mu      sync.Mutex
	ended   bool
	id      uint16                 // the last packet identifier
	pending map[uint16]func(error) // publishes without PUBACK, at most window
	held    []heldPublish          // beyond it: the state of the bridge, where window is 1
	subs    map[uint16]chan []byte // codes of SUBACK
	alias   map[string]uint16
	inbound map[uint16]bool // QoS 2 identifiers that are not released; true: PUBREC was sent
}

type heldPublish struct {
	p    *packet.Publish
	done func(error)
}

func newMQTT5Upstream(l *link, receive Receive, log *slog.Logger) *mqtt5Upstream {
	return &mqtt5Upstream{
		link: l, receive: receive, log: log, begun: time.Now(),
		written: newFifo[func(error)](), pending: map[uint16]func(error){}, subs: map[uint16]chan []byte{},
		alias: map[string]uint16{}, inbound: map[uint16]bool{},
	}
}

// start is called with the CONNACK of an accepted login.
func (u *mqtt5Upstream) start(ack packet.Connack, keepAlive time.Duration) {
	u.window, u.maxQoS, u.retains, u.keepAlive = 65535, 1, true, keepAlive
	if p := ack.Properties; p != nil {
		if p.ReceiveMaximum > 0 {
			u.window = int(p.ReceiveMaximum)
		}
		u.aliases, u.maxSize = min(int(p.TopicAliasMaximum), maxAliases), int(min(p.MaximumPacketSize, packet.MaxRemaining))
		if p.HasMaximumQoS {
			u.maxQoS = min(p.MaximumQoS, 1)
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

// NoEcho reports that the far broker was asked for it (No Local).
func (u *mqtt5Upstream) NoEcho() bool { return u.noLocal }

// HasWill reports that the far broker has a will of this connection.
func (u *mqtt5Upstream) HasWill() bool { return u.will }

// Properties reports that the properties of a message reach the far broker.
func (u *mqtt5Upstream) Properties() bool { return true }

// MaxQoS is the highest quality of service that the far broker takes, 0 or 1.
func (u *mqtt5Upstream) MaxQoS() byte { return u.maxQoS }

// Window is the broker's Receive Maximum; one place of it is left for the state
// of the bridge.
func (u *mqtt5Upstream) Window() int { return max(u.window-1, 1) }

func (u *mqtt5Upstream) Done() <-chan struct{} { return u.link.lost }

func (u *mqtt5Upstream) Err() error { return u.link.reason() }

func (u *mqtt5Upstream) unknown() error {
	return fmt.Errorf("%w: %w", holdfast.ErrUnknown, u.link.reason())
}

// sendLocked writes a packet; the link does not wait for the network.
func (u *mqtt5Upstream) sendLocked(b []byte) {
	u.wrote.Store(int64(time.Since(u.begun)))
	_, _ = u.link.Write(b) // an error is that of the link, which ends
}

// idLocked is a packet identifier that is not in use; 0 if all are.
func (u *mqtt5Upstream) idLocked() uint16 {
	for range 65535 {
		if u.id++; u.id == 0 {
			u.id = 1
		}
		if u.pending[u.id] == nil && u.subs[u.id] == nil {
			return u.id
		}
	}
	return 0
}

// Publish is described at Upstream.
func (u *mqtt5Upstream) Publish(msg *holdfast.Message, _ bool, done func(error)) {
	if err := topic.ValidName(msg.Topic); err != nil {
		done(fmt.Errorf("%w: %w", holdfast.ErrRefused, err))
		return
	}
	p := packet.Publish{QoS: min(msg.QoS, u.maxQoS), Retain: msg.Retain && u.retains, Topic: []byte(msg.Topic), Payload: msg.Payload}
	if msg.Properties != nil {
		p.Properties = new(packet.Properties)
		p.Properties.FromMessage(msg.Properties)
		p.Properties.Message.SubscriptionIDs = nil // [MQTT-3.3.4-6]
	}
	if err := u.publish(&p, done); err != nil {
		done(err)
	}
}

func (u *mqtt5Upstream) publish(p *packet.Publish, done func(error)) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return u.unknown()
	}
	if p.QoS > 0 && len(u.pending) >= u.window { // [MQTT-3.3.4-9]
		u.held = append(u.held, heldPublish{p, done})
		return nil
	}
	return u.publishLocked(p, done)
}

func (u *mqtt5Upstream) publishLocked(p *packet.Publish, done func(error)) error {
	if p.QoS > 0 {
		if p.PacketID = u.idLocked(); p.PacketID == 0 {
			return errors.New("all packet identifiers are in use") // beyond every window
		}
	}
	b, err := p.Append(nil, packet.V5)
	if err != nil {
		return fmt.Errorf("%w: %w", holdfast.ErrRefused, err)
	}
	if u.maxSize > 0 && len(b) > u.maxSize { // without an alias: the size must not depend on what went before
		return fmt.Errorf("%w: %d bytes, the far broker takes %d", holdfast.ErrTooLarge, len(b), u.maxSize)
	}
	if u.aliasLocked(p) {
		if shorter, err := p.Append(nil, packet.V5); err == nil && (u.maxSize == 0 || len(shorter) <= u.maxSize) {
			b = shorter
		} else {
			delete(u.alias, string(p.Topic)) // the broker never heard of it
		}
	}
	if p.QoS > 0 {
		u.pending[p.PacketID] = done
	}
	u.sendLocked(b)
	if p.QoS == 0 && !u.written.push(done) { // the link has ended, and the teller with it
		return u.unknown()
	}
	return nil
}

// aliasLocked puts the alias of its topic into p, if there is one or room for one
// (MQTT 5, 3.3.2.3.4). The first topics get them, which are those that come often.
func (u *mqtt5Upstream) aliasLocked(p *packet.Publish) bool {
	a, known := u.alias[string(p.Topic)]
	if !known {
		if len(u.alias) >= u.aliases {
			return false
		}
		a = uint16(len(u.alias) + 1)
		u.alias[string(p.Topic)] = a
	}
	if p.Properties == nil {
		p.Properties = new(packet.Properties)
	}
	p.Properties.TopicAlias = a
	if known {
		p.Topic = nil
	}
	return true
}

// Subscribe is described at Upstream.
func (u *mqtt5Upstream) Subscribe(ctx context.Context, filter string, qos byte) error {
	codes := make(chan []byte, 1)
	u.mu.Lock()
	id := u.idLocked()
	s := packet.Subscribe{PacketID: id, Filters: []holdfast.Subscription{
		{Filter: filter, QoS: qos, NoLocal: u.noLocal, RetainAsPublished: true},
	}}
	b, err := s.Append(nil, packet.V5)
	if err == nil {
		u.subs[id] = codes
		u.sendLocked(b)
	}
	u.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%w: %w", holdfast.ErrRefused, err)
	}
	select {
	case got := <-codes:
		code := packet.ReasonCode(got[0])
		if code.Failed() {
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
func (u *mqtt5Upstream) teller() {
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
func (u *mqtt5Upstream) pinger() {
	defer u.wg.Done()
	if u.keepAlive == 0 {
		return
	}
	patience := max(u.keepAlive/2, 10*time.Second)
	asked := time.Duration(-1) // when the ping without an answer was sent
	for {
		now := time.Since(u.begun)
		if asked >= 0 && time.Duration(u.heard.Load()) >= asked {
			asked = -1
		}
		rest := u.keepAlive - (now - time.Duration(min(u.wrote.Load(), u.heard.Load())))
		switch {
		case asked >= 0 && now-asked >= patience:
			u.link.end(errNoPing)
			return
		case asked >= 0:
			rest = asked + patience - now
		case rest <= 0:
			u.mu.Lock()
			u.sendLocked(packet.AppendPingreq(nil))
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

// Close sends the acknowledgements that are due and DISCONNECT if it can, and
// waits.
func (u *mqtt5Upstream) Close() error {
	u.mu.Lock()
	if !u.ended {
		if b, err := new(packet.Disconnect).Append(nil, packet.V5); err == nil {
			u.sendLocked(b)
		}
	}
	u.ended = true
	u.mu.Unlock()
	u.link.leaving()
	_ = u.link.Close()
	<-u.link.flushed
	u.wg.Wait()
	return nil
}
