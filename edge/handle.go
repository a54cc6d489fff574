package edge

import (
	"errors"
	"fmt"

	"holdfast/edge/packet"
)

var (
	// errDisconnected ends the read loop after a DISCONNECT packet.
	errDisconnected = errors.New("the client disconnected")
	// errLost is wrapped by what says that the network has ended a connection.
	errLost = errors.New("connection lost")
)

// handle is called by the reader for each packet. body is valid until it
// returns. An error ends the connection, and is what the log says of it.
func (c *conn) handle(h packet.Header, body []byte) error {
	if c.sess == nil {
		if h.Type != packet.CONNECT {
			return fmt.Errorf("the first packet is %v, not CONNECT [MQTT-3.1.0-1]", h.Type)
		}
		return c.apart(c.handleConnect, body)
	}
	switch h.Type {
	case packet.CONNECT:
		return &packet.Error{Code: packet.ProtocolError, Text: "a second CONNECT on one connection [MQTT-3.1.0-2]"}
	case packet.PUBLISH:
		return c.handlePublish(h.Flags, body)
	case packet.PUBACK:
		return c.handlePuback(body)
	case packet.PUBREC:
		return c.handlePubrec(body)
	case packet.PUBREL:
		return c.handlePubrel(body)
	case packet.PUBCOMP:
		return c.handlePubcomp(body)
	case packet.SUBSCRIBE:
		return c.apart(c.handleSubscribe, body)
	case packet.UNSUBSCRIBE:
		return c.apart(c.handleUnsubscribe, body)
	case packet.PINGREQ:
		if len(body) != 0 {
			return errors.New("malformed packet: PINGREQ has no body (3.12)")
		}
		c.send(packet.AppendPingresp)
		return nil
	case packet.DISCONNECT:
		return c.handleDisconnect(body)
	case packet.AUTH:
		return &packet.Error{Code: packet.ProtocolError, Text: "AUTH without an authentication method in CONNECT (MQTT 5, 4.12)"}
	}
	return &packet.Error{Code: packet.ProtocolError, Text: h.Type.String() + " is not for a client to send"}
}

// apart handles a packet that may wait for the disk or for another connection. It
// does so on a goroutine of its own: the reader, which lives as long as its
// connection, would keep the stack of the deepest call that it has ever made.
func (c *conn) apart(handle func(body []byte) error, body []byte) error {
	c.endBatch()
	done := make(chan error, 1)
	go func() { done <- handle(body) }()
	return <-done
}
