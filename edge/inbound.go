package edge

import "holdfast/edge/packet"

// inbound is one packet identifier that the client is using.
type inbound struct {
	state inboundState
	qos   byte
	// conn and slot say whose acknowledgement is owed while state is inPending.
	conn *conn
	slot uint64
}

type inboundState byte

const (
	inPending    inboundState = iota // accepted, not safe yet
	inReceived                       // QoS 2: safe, PUBREC may be sent, PUBREL awaited
	inForgetting                     // QoS 2: PUBREL has come, the disk does not know it yet
)

// arrival is what a PUBLISH with a packet identifier means.
type arrival byte

const (
	fresh    arrival = iota // a new message
	joined                  // the same as one that is not safe yet: nothing to do
	received                // a QoS 2 message that is safe: acknowledge it again
)

// arrived classifies a PUBLISH. A repeated one whose first copy is still
// pending joins it, also from a new connection of the same session, which then
// gets the acknowledgement; on the same connection there is one acknowledgement
// for both, since a second could settle a later message that reuses the id.
func (s *session) arrived(c *conn, id uint16, qos byte, dup bool, ack packet.Type) arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.inbound[id]
	switch {
	case e == nil || e.qos != qos:
		return fresh
	case e.state != inPending:
		return received
	case qos == 1 && !dup:
		return fresh
	case e.conn != c:
		e.conn, e.slot = c, c.reserveAck(ack, id)
	}
	return joined
}

// begin notes that a message with this packet identifier is being made safe.
func (s *session) begin(id uint16, qos byte, c *conn, slot uint64) *inbound {
	e := &inbound{state: inPending, qos: qos, conn: c, slot: slot}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.inbound[id]; old == nil || old.state == inPending {
		s.endInboundLocked(id)
		s.inbound[id] = e
		if qos == 2 {
			s.exactly++
			s.allExactly.Add(1)
		}
	}
	return e
}

// endInboundLocked frees a packet identifier.
func (s *session) endInboundLocked(id uint16) {
	if e := s.inbound[id]; e != nil && e.qos == 2 {
		s.exactly--
		s.allExactly.Add(-1)
	}
	delete(s.inbound, id)
}

// endInbound frees all of them, when the session ends.
func (s *session) endInbound() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allExactly.Add(-int64(s.exactly))
	s.exactly = 0
	clear(s.inbound)
}

// fairShare is what a client may have of something that all have together, even
// when others have taken all of it: a few must not lock out the rest.
const fairShare = 16

// holdsTooMuch reports whether another QoS 2 message of the client would be one
// too many without a PUBREL: of its own, or of all clients.
func (c *conn) holdsTooMuch() bool {
	l := &c.srv.limits
	c.sess.mu.Lock()
	defer c.sess.mu.Unlock()
	return c.sess.exactly >= max(l.MaxInboundQoS2/10, l.ReceiveMaximum) ||
		c.sess.exactly >= fairShare && c.srv.allExactly.Load() >= int64(l.MaxInboundQoS2)
}

// settle ends a begin: the message is safe (nil), which code tells, or nobody can promise that;
// then the connection is closed without an acknowledgement, so that the client
// sends again. It runs on the committer's goroutine and does not block.
func (s *session) settle(id uint16, e *inbound, code packet.ReasonCode, err error) {
	s.mu.Lock()
	c, slot := e.conn, e.slot
	if s.inbound[id] == e {
		if err == nil && e.qos == 2 {
			e.state, e.conn = inReceived, nil
		} else {
			s.endInboundLocked(id)
		}
	}
	s.mu.Unlock()
	if err != nil {
		c.close(err)
		return
	}
	c.completeAck(slot, code)
}

// reject ends a begin with a refusal, which MQTT 5 has a reason code for: the
// packet identifier is free again (MQTT 5, 4.3.3), and nothing was kept.
func (s *session) reject(id uint16, e *inbound, code packet.ReasonCode) {
	s.mu.Lock()
	c, slot := e.conn, e.slot
	if s.inbound[id] == e {
		s.endInboundLocked(id)
	}
	s.mu.Unlock()
	c.completeAck(slot, code)
}

// forget begins to forget a QoS 2 packet identifier; known tells whether there
// was anything to forget.
func (s *session) forget(id uint16) (known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.inbound[id]
	if e == nil || e.qos != 2 || e.state == inPending {
		return false
	}
	e.state = inForgetting
	return true
}

// forgotten ends forget: the disk has forgotten the packet identifier too.
func (s *session) forgotten(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.inbound[id]; e != nil && e.state == inForgetting {
		s.endInboundLocked(id)
	}
}
