package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// inboundMaximum is the most messages from the far broker that may wait for
// their acknowledgement (Receive Maximum, MQTT 5, 3.1.2.11.3).
const inboundMaximum = 500

// propertyRoom is how much larger a packet may be than MaxPacket says of its
// message.
const propertyRoom = 64 << 10

// MQTT5Connect returns a Connect that speaks MQTT 5. Faults of o are returned by
// each connect. With BridgeBit the far broker is asked not to send us our own
// publishes (No Local, MQTT 5, 3.8.3.1), which every broker does.
//
// The properties of a message are kept, with what is left of its expiry. Topic
// aliases are used as far as the broker takes them, and its Receive Maximum and
// Maximum Packet Size are kept. What comes over the seam is at-least-once; a
// publish of QoS 2 is sent with QoS 1.
func MQTT5Connect(o PahoOptions) Connect {
	wires := o.prepare()
	return func(ctx context.Context, receive Receive) (Upstream, error) {
		if err := o.Validate(); err != nil {
			return nil, err
		}
		up, err := o.connect5(ctx, wires, receive)
		if err != nil {
			return nil, err // not up: it would be an interface with nil in it
		}
		return up, nil
	}
}

func (o *PahoOptions) connect5(ctx context.Context, wires *wireMaker, receive Receive) (*mqtt5Upstream, error) {
	login, err := o.login5()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	wire, words, err := wires.open(ctx)
	if err != nil {
		return nil, err
	}
	u := newMQTT5Upstream(newLink(wire, o.MaxPacket+propertyRoom), receive, o.Logger)
	u.will, u.noLocal = o.Will != nil, o.BridgeBit
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
		u.start(ack, o.KeepAlive)
		return u, nil
	}
	u.link.leaving()
	u.link.end(errLinkClosed)
	wire.Close()
	<-u.link.flushed
	if err != nil {
		if said := words(err); said != nil {
			return nil, said
		}
		return nil, explainHandshake(err, wires.address(), o.ConnectTimeout)
	}
	return nil, refusedLogin{explainConnack5(packet.ReasonCode(ack.Code), o.ClientID, o.Username)}
}

func (o *PahoOptions) login5() ([]byte, error) {
	c := packet.Connect{
		Version: packet.V5, CleanStart: o.CleanSession, KeepAlive: uint16(o.KeepAlive / time.Second),
		ClientID: o.ClientID, Username: o.Username, HasUsername: o.Username != "",
		Properties: &packet.Properties{ReceiveMaximum: inboundMaximum, MaximumPacketSize: uint32(o.MaxPacket + propertyRoom)},
	}
	if !o.CleanSession {
		c.Properties.SessionExpiry, c.Properties.HasSessionExpiry = holdfast.NeverExpires, true
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
func (u *mqtt5Upstream) awaitConnack() (ack packet.Connack, err error) {
	h, body, err := u.readPacket()
	if err != nil {
		return ack, err
	}
	if h.Type != packet.CONNACK {
		return ack, errNotMQTT
	}
	if len(body) == 2 && body[1] == 1 { // of a broker that knows 3.x only
		ack.Code = byte(packet.UnsupportedProtocolVersion)
		return ack, nil
	}
	if err := ack.Decode(body, packet.V5); err != nil {
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

// readPacket reads one packet, whose body is memory of its own. It takes no more
// memory than the link's bound.
func (u *mqtt5Upstream) readPacket() (h packet.Header, body []byte, err error) {
	l := u.link
	var head [5]byte
	for n := 1; ; n++ {
		if head[n-1], err = l.r.ReadByte(); err != nil {
			return h, nil, err
		}
		size := 0
		if h, size, err = packet.ReadHeaderVersion(head[:n], packet.V5); err != nil {
			return h, nil, fmt.Errorf("%w: %w", errNotMQTT, err)
		}
		if size > 0 {
			break
		}
		if n == len(head) {
			return h, nil, errNotMQTT
		}
	}
	if h.Remaining > l.maxIn {
		return h, nil, fmt.Errorf("the broker sends a packet of %d bytes, which is larger than the %d that it was told to send", h.Remaining, l.maxIn)
	}
	body = make([]byte, h.Remaining)
	_, err = io.ReadFull(l.r, body)
	return h, body, err
}

// lostByRead puts into words why the reading has ended.
func (u *mqtt5Upstream) lostByRead(err error) error {
	var bad *packet.Error
	if errors.As(err, &bad) {
		u.log.Error("the far broker breaks the protocol", slog.Any("error", err))
	}
	return fmt.Errorf("receive from the broker: %w", err)
}
