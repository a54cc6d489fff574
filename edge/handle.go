package edge

import (
	"errors"
	"fmt"

	"holdfast/edge/packet"
)

// errDisconnected ends the read loop after a DISCONNECT packet.
var errDisconnected = errors.New("the client disconnected")

// handle is called by the reader for each packet. body is valid until it
// returns. An error ends the connection, and is what the log says of it.
func (c *conn) handle(h packet.Header, body []byte) error {
	if c.sess == nil {
		if h.Type != packet.CONNECT {
			return fmt.Errorf("the first packet is %v, not CONNECT [MQTT-3.1.0-1]", h.Type)
		}
		return c.handleConnect(body)
	}
	switch h.Type {
	case packet.CONNECT:
		return errors.New("a second CONNECT on one connection [MQTT-3.1.0-2]")
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
		return c.handleSubscribe(body)
	case packet.UNSUBSCRIBE:
		return c.handleUnsubscribe(body)
	case packet.PINGREQ:
		if len(body) != 0 {
			return errors.New("malformed packet: PINGREQ has no body (3.12)")
		}
		c.send(packet.AppendPingresp)
		return nil
	case packet.DISCONNECT:
		if err := new(packet.Disconnect).Decode(body, c.version); err != nil {
			return err
		}
		return c.handleDisconnect()
	}
	return fmt.Errorf("%v is not for a client to send", h.Type)
}

// handleDisconnect ends the connection as the client wishes: its will is
// deleted without being published [MQTT-3.14.4-3].
func (c *conn) handleDisconnect() error {
	c.clean = true
	if c.will != nil {
		// A crash before this is on disk publishes the will of a client that
		// had said goodbye, which the specification allows (3.1.2.5).
		c.srv.opts.Store.SetWill(c.clientID, nil, func(error) {})
	}
	return errDisconnected
}
