package edge

import (
	"fmt"

	"holdfast"
	"holdfast/edge/packet"
)

// handlePuback ends a QoS 1 delivery to this client.
func (c *conn) handlePuback(body []byte) error {
	var a packet.Ack
	if err := a.Decode(body, c.version); err != nil {
		return err
	}
	return c.sess.acknowledged(packet.PUBACK, a.PacketID)
}

// handlePubrec: the client has the QoS 2 message. PUBREL is sent when that is on
// disk, and again for a PUBREC that is repeated or answers nothing we know: in
// either case the client waits for it. A client that refuses the message (MQTT 5
// only) has no more to do with it [MQTT-4.3.3-4].
func (c *conn) handlePubrec(body []byte) error {
	var a packet.Ack
	if err := a.Decode(body, c.version); err != nil {
		return err
	}
	id, state, err := c.sess.pubrec(a.PacketID, a.Code.Failed())
	switch {
	case err != nil:
		return err
	case a.Code.Failed():
		c.sess.refused(a.PacketID)
	case state == outSent:
		c.release(a.PacketID, id)
	case state == outReleased:
		c.sendAck(packet.PUBREL, a.PacketID, packet.Success)
	case state == outUnknown:
		c.sendAck(packet.PUBREL, a.PacketID, packet.PacketIdentifierNotFound)
	}
	return nil
}

// handlePubcomp ends a QoS 2 delivery to this client.
func (c *conn) handlePubcomp(body []byte) error {
	var a packet.Ack
	if err := a.Decode(body, c.version); err != nil {
		return err
	}
	return c.sess.acknowledged(packet.PUBCOMP, a.PacketID)
}

// handlePubrel ends a QoS 2 message from this client. PUBCOMP is sent when the
// packet identifier is forgotten on disk: the client may use it for a new
// message at once, which a stale row would take for a duplicate.
func (c *conn) handlePubrel(body []byte) error {
	var a packet.Ack
	if err := a.Decode(body, c.version); err != nil {
		return err
	}
	s := c.sess
	code := packet.Success
	pubcomp := func(err error) {
		if err != nil {
			c.close(fmt.Errorf("store PUBREL: %w", err))
			return
		}
		s.forgotten(a.PacketID)
		c.sendAck(packet.PUBCOMP, a.PacketID, code)
	}
	known := s.forget(a.PacketID)
	if !known {
		code = packet.PacketIdentifierNotFound
	}
	if !known || !s.durable {
		pubcomp(nil)
		return nil
	}
	c.srv.opts.Store.Change(&holdfast.SessionChange{ClientID: c.clientID, ForgetInbound: []uint16{a.PacketID}}, pubcomp)
	return nil
}
