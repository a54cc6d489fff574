package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"holdfast"
	"holdfast/edge/topic"
)

// maxRemaining is the most bytes of a packet after its header (MQTT 3.1.1, 2.2.3).
const maxRemaining = 268_435_455

// pahoUpstream is one connection. Four goroutines of its own, beside the
// library's: one gives publishes to the library, one waits for their tokens in
// order, one acknowledges commands, one cleans up when the link is lost.
type pahoUpstream struct {
	client  mqtt.Client
	link    *link
	receive Receive
	log     *slog.Logger
	kept    bool // the session outlives the connection
	bit     bool // the bridge bit is set
	will    bool // the far broker has a will

	sends  *fifo[publish]
	tokens *fifo[publish]
	acks   *fifo[mqtt.Message]

	done    chan struct{} // closed when the link is lost
	settled chan struct{} // closed when the acker has ended
	stopped chan struct{} // closed when the library has stopped: no token completes any more
	wg      sync.WaitGroup
}

// publish is one on its way.
type publish struct {
	msg   *holdfast.Message
	done  func(error)
	token mqtt.Token
}

func newPahoUpstream(l *link, receive Receive, kept, bit bool, log *slog.Logger) *pahoUpstream {
	l.oversize = func(topicLen, size int) {
		log.Error("a message from the far broker is larger than what is taken: it is dropped", slog.Int("bytes", size), slog.Int("topic_bytes", topicLen))
	}
	return &pahoUpstream{
		link: l, receive: receive, kept: kept, bit: bit, log: log,
		sends: newFifo[publish](), tokens: newFifo[publish](), acks: newFifo[mqtt.Message](),
		done: make(chan struct{}), settled: make(chan struct{}), stopped: make(chan struct{}),
	}
}

// start is called when the library has logged in.
func (u *pahoUpstream) start() {
	u.wg.Add(4)
	go u.sender()
	go u.waiter()
	go u.acker()
	go u.cleaner()
}

// NoEcho reports that the far broker has taken the bridge bit.
func (u *pahoUpstream) NoEcho() bool { return u.bit }

// HasWill reports that the far broker has a will of this connection.
func (u *pahoUpstream) HasWill() bool { return u.will }

// Window is 0: packet identifiers are the only bound.
func (u *pahoUpstream) Window() int { return 0 }

func (u *pahoUpstream) Done() <-chan struct{} { return u.done }

func (u *pahoUpstream) Err() error { return u.link.reason() }

// Publish is described at Upstream. again cannot be told to the far broker
// through this library.
func (u *pahoUpstream) Publish(msg *holdfast.Message, again bool, done func(error)) {
	if err := topic.ValidName(msg.Topic); err != nil {
		done(fmt.Errorf("%w: %w", holdfast.ErrRefused, err))
		return
	}
	if n := len(msg.Topic) + len(msg.Payload) + 4; n > maxRemaining {
		done(fmt.Errorf("%w: %d bytes, MQTT carries %d", holdfast.ErrTooLarge, n, maxRemaining))
		return
	}
	if !u.sends.push(publish{msg: msg, done: done}) {
		done(u.unknown())
	}
}

func (u *pahoUpstream) unknown() error {
	return fmt.Errorf("%w: %w", holdfast.ErrUnknown, u.link.reason())
}

// sender gives publishes to the library one by one. It waits for the network
// itself, so that the library never has to.
func (u *pahoUpstream) sender() {
	defer u.wg.Done()
	defer u.tokens.close()
	for {
		p, ok := u.sends.pop(u.done)
		if !ok || !u.link.waitRoom() {
			if ok {
				p.done(u.unknown())
			}
			for _, p := range u.sends.drop() {
				p.done(u.unknown())
			}
			return
		}
		qos := p.msg.QoS
		if u.kept && qos == 2 {
			qos = 1 // see PahoConnect
		}
		p.token = u.client.Publish(p.msg.Topic, qos, p.msg.Retain, p.msg.Payload)
		u.tokens.push(p)
	}
}

// waiter calls done for each publish, in the order in which they were sent,
// which is the order in which a broker acknowledges them [MQTT-4.6.0-2]; where
// it does not, an answer waits for those before it.
func (u *pahoUpstream) waiter() {
	defer u.wg.Done()
	for {
		p, ok := u.tokens.pop(nil)
		if !ok {
			return
		}
		select {
		case <-p.token.Done():
		case <-u.stopped:
		}
		p.done(u.outcome(p))
	}
}

// outcome is nil only if the far broker has acknowledged p on this connection:
// without a store, nothing else completes a token of QoS 1 or 2 without an
// error. For QoS 0 the bytes must be with the kernel.
func (u *pahoUpstream) outcome(p publish) error {
	select {
	case <-p.token.Done():
	default:
		return u.unknown()
	}
	if err := p.token.Error(); err != nil {
		return fmt.Errorf("%w: %w", holdfast.ErrUnknown, err)
	}
	if p.msg.QoS == 0 && !u.link.waitWritten() {
		return u.unknown()
	}
	return nil
}

// arrive is called by the library for each message, one at a time, also before
// Connect has returned. While it runs the library handles no acknowledgement.
func (u *pahoUpstream) arrive(_ mqtt.Client, m mqtt.Message) {
	ack := func() {}
	if m.Qos() > 0 {
		ack = func() { u.acks.push(m) }
	}
	u.receive(&holdfast.Message{
		Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(), Retain: m.Retained(),
	}, m.Duplicate(), ack)
}

// acker sends PUBACK and PUBREC: the library's Ack may wait, the seam's must not.
func (u *pahoUpstream) acker() {
	defer u.wg.Done()
	defer close(u.settled)
	for {
		m, ok := u.acks.pop(u.done)
		if !ok {
			u.acks.drop()
			return
		}
		m.Ack()
	}
}

// cleaner waits for the end of the link and then for that of the library.
func (u *pahoUpstream) cleaner() {
	defer u.wg.Done()
	<-u.link.lost
	close(u.done)
	u.client.Disconnect(libraryEnd) // returns as soon as all has stopped
	<-u.link.flushed
	close(u.stopped)
}

// Subscribe is described at Upstream.
func (u *pahoUpstream) Subscribe(ctx context.Context, filter string, qos byte) error {
	token := u.client.Subscribe(filter, qos, nil)
	select {
	case <-token.Done():
	case <-u.done:
		return fmt.Errorf("the connection was lost before the subscription was granted: %w", u.link.reason())
	case <-ctx.Done():
		return fmt.Errorf("the broker has not answered the subscription: %w", context.Cause(ctx))
	}
	if err := token.Error(); err != nil {
		if why := u.link.reason(); why != nil {
			err = why
		}
		return fmt.Errorf("the connection was lost before the subscription was granted: %w", err)
	}
	granted, ok := token.(*mqtt.SubscribeToken).Result()[filter]
	switch {
	case !ok:
		return errors.New("the broker has granted no quality of service for the subscription")
	case granted >= 0x80:
		return fmt.Errorf("%w: the broker does not permit the subscription to %q (0x%02x): check what it lets this user and client identifier read", holdfast.ErrRefused, filter, granted)
	case granted < qos:
		u.log.Warn("the far broker grants a lower quality of service", slog.String("filter", filter), slog.Int("qos", int(granted)))
	}
	return nil
}

// Close sends the acknowledgements that are due and DISCONNECT if it can, and
// waits.
func (u *pahoUpstream) Close() error {
	u.link.leaving()
	u.acks.close()
	<-u.settled // without delay: the library does not wait for the network
	u.client.Disconnect(quiesce)
	_ = u.link.Close()
	u.wg.Wait()
	return nil
}

// noStore is a store of the library that keeps nothing: what is not
// acknowledged is in the bridge's queue.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}
