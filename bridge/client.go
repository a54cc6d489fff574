package bridge

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// inboundMaximum is the most messages from the far broker that may wait for
// their acknowledgement (Receive Maximum, MQTT 5, 3.1.2.11.3).
const inboundMaximum = 500

// propertyRoom is how much larger a packet of MQTT 5 may be than MaxPacket says
// of its message.
const propertyRoom = 64 << 10

// errNotMQTT: what came is no packet that a broker would send here.
var errNotMQTT = errors.New("the other side does not speak MQTT here: check the port; a TLS or WebSocket port needs another scheme")

// errVersion marks a CONNACK that refuses the version of MQTT 3.1.1, or the
// bridge bit with it.
var errVersion = errors.New("protocol version")

// MQTT3Connect returns a Connect that speaks MQTT 3.1.1. Faults of o are returned
// by each connect. Of the properties of a message nothing is sent.
//
// What is published over the seam is at-least-once, except by PublishExactly. With
// CleanSession false a Publish of QoS 2 is sent with QoS 1: the far broker
// remembers packet identifiers of QoS 2, and could take a new message for the
// repetition of an old one.
func MQTT3Connect(o ClientOptions) Connect {
	wires := o.prepare()
	var plain atomic.Bool // the broker does not take the bridge bit
	return func(ctx context.Context, receive Receive) (Upstream, error) {
		if err := o.Validate(); err != nil {
			return nil, err
		}
		bit := o.BridgeBit && !plain.Load()
		u, err := o.connect(ctx, wires, receive, packet.V311, bit)
		if bit && (errors.Is(err, errVersion) || errors.Is(err, errNoConnack)) {
			if u, err = o.connect(ctx, wires, receive, packet.V311, false); err == nil {
				plain.Store(true)
				o.Logger.Info("the far broker does not take the bridge bit")
			}
		}
		if err != nil {
			return nil, err // not u: it would be an interface with nil in it
		}
		return u, nil
	}
}

// MQTT5Connect is MQTT3Connect with MQTT 5. With BridgeBit the far broker is
// asked not to send us our own publishes (No Local, MQTT 5, 3.8.3.1), which every
// broker does.
//
// The properties of a message are kept, with what is left of its expiry. Topic
// aliases are used as far as the broker takes them, and its Receive Maximum and
// Maximum Packet Size are kept.
func MQTT5Connect(o ClientOptions) Connect {
	wires := o.prepare()
	return func(ctx context.Context, receive Receive) (Upstream, error) {
		if err := o.Validate(); err != nil {
			return nil, err
		}
		u, err := o.connect(ctx, wires, receive, packet.V5, o.BridgeBit)
		if err != nil {
			return nil, err // not u: it would be an interface with nil in it
		}
		return u, nil
	}
}

// connect makes one connection. noEcho asks the far broker not to send us what
// we publish.
func (o *ClientOptions) connect(ctx context.Context, wires *wireMaker, receive Receive, v packet.Version, noEcho bool) (*client, error) {
	keepAlive := o.KeepAlive
	if o.Adaptive != nil {
		keepAlive = o.Adaptive.longest()
	}
	login, err := o.login(v, noEcho, keepAlive)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	wire, words, err := wires.open(ctx)
	if err != nil {
		return nil, err
	}
	maxIn := o.MaxPacket
	if v == packet.V5 {
		maxIn += propertyRoom
	}
	u := newClient(newLink(wire, maxIn), v, receive, o.Logger)
	u.will, u.noEcho, u.kept, u.adaptive = o.Will != nil, noEcho, !o.CleanSession, o.Adaptive
	u.exact = o.Exactly && u.kept
	giveUp := context.AfterFunc(ctx, func() {
		u.link.end(ctx.Err())
		wire.Close()
	})
	_, _ = u.link.Write(login)
	ack, err := u.awaitConnack()
	if !giveUp() {
		err = ctx.Err()
	}
	if err == nil && ack.Code == 0 {
		u.meet(ack.Properties, o.GatewayID)
		u.start(ack, keepAlive)
		return u, nil
	}
	u.link.end(errLinkClosed)
	wire.Close()
	<-u.link.flushed
	if err != nil {
		if said := words(err); said != nil {
			return nil, said
		}
		return nil, explainHandshake(err, wires.address(), o.ConnectTimeout)
	}
	if v == packet.V5 {
		return nil, refusedLogin{explainConnack5(packet.ReasonCode(ack.Code), o.ClientID, o.Username)}
	}
	err = refusedLogin{explainConnack(ack.Code, o.ClientID, o.Username)}
	if ack.Code == packet.RefusedVersion {
		err = fmt.Errorf("%w (%w)", err, errVersion)
	}
	return nil, err
}

// login is CONNECT.
func (o *ClientOptions) login(v packet.Version, noEcho bool, keepAlive time.Duration) ([]byte, error) {
	c := packet.Connect{
		Version: v, CleanStart: o.CleanSession, KeepAlive: uint16(keepAlive / time.Second),
		ClientID: o.ClientID, Username: o.Username, HasUsername: o.Username != "",
	}
	if v == packet.V5 {
		c.Properties = &packet.Properties{ReceiveMaximum: inboundMaximum, MaximumPacketSize: uint32(o.MaxPacket + propertyRoom)}
		if !o.CleanSession {
			c.Properties.SessionExpiry, c.Properties.HasSessionExpiry = holdfast.NeverExpires, true
		}
	} else {
		c.Bridge = noEcho
	}
	if o.Password != nil {
		password, err := o.Password()
		if err != nil {
			return nil, fmt.Errorf("read the password: %w", err)
		}
		c.Password, c.HasPassword = []byte(password), true
	}
	if w := o.Will; w != nil {
		c.Will = &packet.Will{Topic: w.Topic, Payload: w.Payload, QoS: w.QoS, Retain: w.Retain}
	}
	return c.Append(nil)
}

// awaitConnack reads the answer to CONNECT.
func (u *client) awaitConnack() (ack packet.Connack, err error) {
	h, body, err := u.readPacket()
	if err != nil {
		return ack, err
	}
	if h.Type != packet.CONNACK {
		return ack, errNotMQTT
	}
	if u.version == packet.V5 && len(body) == 2 && body[1] == 1 { // of a broker that knows 3.x only
		ack.Code = byte(packet.UnsupportedProtocolVersion)
		return ack, nil
	}
	if err := ack.Decode(body, u.version); err != nil {
		return ack, fmt.Errorf("%w: %w", errNotMQTT, err)
	}
	return ack, nil
}

// explainConnack5 says why a login was refused (MQTT 5, 3.2.2.2).
func explainConnack5(code packet.ReasonCode, clientID, username string) error {
	switch code {
	case packet.UnsupportedProtocolVersion:
		return errors.New("the broker does not speak MQTT 5: write protocol = \"3.1.1\"")
	case packet.ClientIdentifierNotValid:
		return explainConnack(2, clientID, username)
	case packet.ServerUnavailable, packet.ServerBusy:
		return explainConnack(3, clientID, username)
	case packet.BadUserNameOrPassword:
		return explainConnack(4, clientID, username)
	case packet.NotAuthorized, packet.Banned:
		return explainConnack(5, clientID, username)
	case packet.QoSNotSupported, packet.RetainNotSupported: // of the will; nothing else in a login has them
		return fmt.Errorf("the broker does not take the will that tells the state of the bridge: %v (0x%02x): write state_topic = \"\"", code, byte(code))
	}
	return fmt.Errorf("the broker refuses the connection: %v (0x%02x): see its log", code, byte(code))
}

// readPacket reads one packet. Its body is memory of its own, but for an
// acknowledgement, whose body is good until the next one. It takes no more memory than
// the link's bound.
func (u *client) readPacket() (h packet.Header, body []byte, err error) {
	for {
		if h, err = u.readHeader(); err != nil {
			return h, nil, err
		}
		if h.Remaining <= u.link.maxIn {
			switch h.Type {
			case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
				if h.Remaining <= len(u.ackBody) {
					body = u.ackBody[:h.Remaining]
				}
			}
			if body == nil {
				body = make([]byte, h.Remaining)
			}
			_, err = io.ReadFull(u.link.r, body)
			return h, body, err
		}
		if u.version == packet.V5 || h.Type != packet.PUBLISH {
			return h, nil, fmt.Errorf("the broker sends a packet of %d bytes, which is larger than the %d that it was told to send", h.Remaining, u.link.maxIn)
		}
		if err := u.skipPublish(h); err != nil {
			return h, nil, err
		}
	}
}

func (u *client) readHeader() (h packet.Header, err error) {
	var head [5]byte
	for n := 1; ; n++ {
		if head[n-1], err = u.link.r.ReadByte(); err != nil {
			return h, err
		}
		size := 0
		if h, size, err = packet.ReadHeaderVersion(head[:n], u.version); err != nil {
			return h, fmt.Errorf("%w: %w", errNotMQTT, err)
		}
		if size > 0 {
			return h, nil
		}
		if n == len(head) {
			return h, errNotMQTT
		}
	}
}

// skipPublish drops a message that is too large to be held, and acknowledges it:
// otherwise it would come again at every connection, before all others. A broker
// of MQTT 5 is told the bound instead.
func (u *client) skipPublish(h packet.Header) error {
	r := u.link.r
	var b [2]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	qos, topicLen := h.Flags>>1&3, int(binary.BigEndian.Uint16(b[:]))
	rest := h.Remaining - len(b) - topicLen
	if qos > 0 {
		rest -= len(b)
	}
	if rest < 0 {
		return fmt.Errorf("%w (a topic beyond its packet)", errNotMQTT)
	}
	if _, err := r.Discard(topicLen); err != nil {
		return err
	}
	if qos > 0 {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return err
		}
	}
	if _, err := r.Discard(rest); err != nil {
		return err
	}
	u.log.Error("a message from the far broker is larger than what is taken: it is dropped", slog.Int("bytes", h.Remaining), slog.Int("topic_bytes", topicLen))
	if qos > 0 {
		u.acknowledge(packet.PUBACK+packet.Type(qos-1), binary.BigEndian.Uint16(b[:])) // PUBACK or PUBREC
	}
	return nil
}

// lostByRead puts into words why the reading has ended.
func (u *client) lostByRead(err error) error {
	var bad *packet.Error
	switch {
	case errors.As(err, &bad):
		u.log.Error("the far broker breaks the protocol", slog.Any("error", err))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // the latter from TLS without a good-bye
		return fmt.Errorf("the broker has closed the connection: %w", io.EOF)
	}
	return fmt.Errorf("receive from the broker: %w", err)
}
