package edge

import (
	"fmt"

	"holdfast"
	"holdfast/edge/packet"
)

// fillTarget is about how many bytes of a session the writer gathers for one write.
const fillTarget = 64 << 10

// outbound is one QoS 1 or 2 message on its way to the client.
type outbound struct {
	id    holdfast.ItemID
	qos   byte
	state outboundState
}

type outboundState byte

const (
	outSent      outboundState = iota // PUBLISH was sent
	outReleasing                      // PUBREC has come, the disk does not know it yet
	outReleased                       // PUBREL was sent
	outUnknown                        // none: nothing of QoS 2 is in flight
)

// packetIDOf binds the packet identifier to the position in the session's
// queue. So a message keeps its identifier over reconnects and restarts, as
// [MQTT-4.4.0-1] asks, and nothing needs to be written before it is sent.
func packetIDOf(id holdfast.ItemID) uint16 {
	return uint16((id.Position()-1)%maxPacketID) + 1
}

// fillFromSession appends PUBLISH packets from the session's outbox to buf, as
// far as the client's window and fillTarget allow; what is in buf already does
// not count, or a flood of QoS 0 would keep them waiting for ever. Only who has
// the pen calls it, and only after start.
func (c *conn) fillFromSession(buf []byte) ([]byte, error) {
	s := c.sess
	buf = c.fillRetained(buf, len(buf)+fillTarget/2)
	c.releaseWithheld()
	for full := len(buf) + fillTarget; len(buf) < full && s.windowOpen(c.window); {
		it, ok := c.held, c.held.Msg != nil
		if !ok {
			if c.withheld.full() {
				return buf, nil
			}
			var err error
			if it, ok, err = s.outbox.TryNext(); err != nil {
				return buf, err
			}
		}
		if !ok {
			return buf, nil
		}
		if !s.wasReleased(it.ID) && !c.mayReceive(it.Msg.Topic) {
			c.held = holdfast.Item{}
			c.withhold(it)
			continue
		}
		pid := packetIDOf(it.ID)
		free, release := s.takeOff(pid, it)
		if !free {
			// The identifier is still in use by a message 65,535 positions
			// earlier; its acknowledgement wakes the writer. Releasing the item
			// would wake it at once, and again, for as long as that takes.
			c.held = it
			return buf, nil
		}
		c.held = holdfast.Item{}
		switch {
		case release:
			c.release(pid, it.ID)
		default:
			out, ok, err := c.appendItem(buf, it, pid)
			if err != nil {
				return buf, err
			}
			if buf = out; !ok {
				s.refused(pid)
				continue
			}
			c.srv.stats.sent.Add(1)
		}
	}
	return buf, nil
}

// appendItem appends an item as this client takes it; see appendPublish.
func (c *conn) appendItem(buf []byte, it holdfast.Item, pid uint16) ([]byte, bool, error) {
	var properties packet.Properties
	p := packet.Publish{
		Dup: it.Again, QoS: it.Msg.QoS, Retain: it.Msg.Retain,
		Topic: []byte(it.Msg.Topic), PacketID: pid, Payload: it.Msg.Payload,
	}
	if c.version == packet.V5 && it.Msg.Properties != nil {
		properties.FromMessage(it.Msg.Properties)
		properties.SubscriptionIdentifiers = it.Msg.Properties.SubscriptionIDs
		p.Properties = &properties
	}
	return c.appendPublish(buf, &p, it.Msg.Topic, fromSession)
}

func (s *session) windowOpen(limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.inflight) < limit
}

// takeOff notes that an item is in flight under pid. ok is false if pid is in
// use; release is true if the client had already sent PUBREC for the item on an
// earlier connection: only PUBREL may be sent then.
func (s *session) takeOff(pid uint16, it holdfast.Item) (ok, release bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inflight[pid] != nil {
		return false, false
	}
	o := &outbound{id: it.ID, qos: it.Msg.QoS}
	if s.releasedBefore[it.ID.Position()] {
		o.state, release = outReleasing, true
	}
	s.inflight[pid] = o
	return true, release
}

// wasReleased reports whether PUBREC has come for a message on an earlier connection.
func (s *session) wasReleased(id holdfast.ItemID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.releasedBefore[id.Position()]
}

// pubrec notes a PUBREC and returns in which state the message was before. One that
// refuses the message changes nothing.
func (s *session) pubrec(pid uint16, refuses bool) (holdfast.ItemID, outboundState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.inflight[pid]
	if err := o.answers(packet.PUBREC); err != nil || o == nil {
		return 0, outUnknown, err
	}
	was := o.state
	if was == outSent && !refuses {
		o.state = outReleasing
	}
	return o.id, was, nil
}

// release makes PUBREC durable and then sends PUBREL: after PUBREL the client
// forgets the identifier, so the message must never be sent again.
func (c *conn) release(pid uint16, id holdfast.ItemID) {
	pubrel := func(err error) {
		if err != nil {
			c.close(fmt.Errorf("store PUBREC: %w", err))
			return
		}
		c.sess.releaseDone(pid, id)
		c.sendAck(packet.PUBREL, pid, packet.Success)
	}
	if !c.sess.durable {
		pubrel(nil)
		return
	}
	c.srv.opts.Store.Change(&holdfast.SessionChange{ClientID: c.clientID, Released: []uint64{id.Position()}}, pubrel)
}

func (s *session) releaseDone(pid uint16, id holdfast.ItemID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.inflight[pid]; o != nil && o.id == id {
		o.state = outReleased
	}
}

// answers tells what is wrong with an acknowledgement that does not belong to the
// QoS of the message, or comes before its turn (MQTT 5, 4.3): a client that means
// another message by it can never settle this one. One for nothing in flight is no
// fault: the message may have been settled. s.mu is held.
func (o *outbound) answers(t packet.Type) error {
	switch {
	case o == nil, t == packet.PUBACK && o.qos == 1, t == packet.PUBREC && o.qos == 2,
		t == packet.PUBCOMP && o.qos == 2 && o.state != outSent:
		return nil
	}
	return &packet.Error{Code: packet.ProtocolError, Text: fmt.Sprintf("%v is no answer to a PUBLISH with QoS %d (MQTT 5, 4.3)", t, o.qos)}
}

// acknowledged settles a packet identifier with PUBACK or PUBCOMP.
func (s *session) acknowledged(t packet.Type, pid uint16) error {
	s.mu.Lock()
	o := s.inflight[pid]
	if err := o.answers(t); err != nil || o == nil || o.qos == 2 && o.state != outReleased {
		s.mu.Unlock()
		return err
	}
	delete(s.inflight, pid)
	delete(s.releasedBefore, o.id.Position())
	s.mu.Unlock()
	s.outbox.Ack(o.id)
	if c := s.conn.Load(); c != nil {
		c.relieve()
		c.signal() // the window has room again
	}
	return nil
}

// refused settles a message that the client will not have, or cannot: it refused
// it with PUBREC, or it is larger than the client takes.
func (s *session) refused(pid uint16) {
	s.mu.Lock()
	o := s.inflight[pid]
	if o == nil || o.state != outSent {
		s.mu.Unlock()
		return
	}
	delete(s.inflight, pid)
	s.mu.Unlock()
	s.outbox.Ack(o.id)
	if c := s.conn.Load(); c != nil {
		c.relieve()
		c.signal()
	}
}

// takeInflight empties the window, for the end of a connection, and remembers
// for which messages PUBREC has come.
func (s *session) takeInflight() []holdfast.ItemID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]holdfast.ItemID, 0, len(s.inflight))
	for _, o := range s.inflight {
		ids = append(ids, o.id)
		if o.state != outSent {
			s.releasedBefore[o.id.Position()] = true
		}
	}
	clear(s.inflight)
	return ids
}
