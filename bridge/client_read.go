package bridge

import (
	"errors"
	"fmt"
	"io"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// reader handles what comes until the link ends. Then every publish that has no
// answer is told so.
func (u *client) reader() {
	defer u.wg.Done()
	var err error
	for err == nil {
		var h packet.Header
		var body []byte
		if h, body, err = u.readPacket(); err == nil {
			if idle := u.probe.Swap(0); idle > 0 && u.adaptive != nil {
				u.adaptive.survived(time.Duration(idle))
			}
			err = u.handle(h, body)
		}
	}
	u.tellAnswers()
	u.link.end(u.lostByRead(err))
	u.learn()
	u.mu.Lock()
	u.ended = true
	pending, held := u.pending, u.held
	u.pending, u.held = nil, nil
	u.mu.Unlock()
	for _, h := range held {
		u.end(h.out, u.unknown())
	}
	for _, out := range pending {
		u.end(out, u.unknown())
	}
}

// learn notes what the end of the link says of silence.
func (u *client) learn() {
	if u.adaptive == nil {
		return
	}
	why, idle := u.link.reason(), time.Duration(u.probe.Load())
	u.mu.Lock()
	waiting := len(u.pending) > 0
	u.mu.Unlock()
	switch died, shut := diedSilently(why), errors.Is(why, io.EOF); {
	case died && idle > 0:
		u.adaptive.died(idle)
	case shut && idle > 0: // as the answer to what was to end the silence
		u.adaptive.closed(idle)
	case (died || shut) && !waiting: // in the middle of it
		u.adaptive.closed(time.Since(u.begun) - time.Duration(max(u.wrote.Load(), u.heard.Load())))
	}
}

// handle takes one packet. An error ends the connection.
func (u *client) handle(h packet.Header, body []byte) error {
	if h.Type == packet.PUBLISH || h.Type == packet.PUBREL {
		u.tellAnswers() // whoever takes these may keep us waiting
	}
	switch h.Type {
	case packet.PUBLISH:
		return u.arrived(h, body)
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		var a packet.Ack
		if err := a.Decode(body, u.version); err != nil {
			return err
		}
		switch h.Type {
		case packet.PUBREC:
			return u.received(a)
		case packet.PUBREL:
			if u.exact {
				u.releasedExactly(a.PacketID)
				return nil
			}
			u.released(a.PacketID)
			return nil
		}
		return u.answered(h.Type, a)
	case packet.SUBACK:
		var s packet.Suback
		if err := s.Decode(body, u.version); err != nil {
			return err
		}
		u.mu.Lock()
		codes := u.subs[s.PacketID]
		delete(u.subs, s.PacketID)
		u.mu.Unlock()
		if codes == nil || len(s.Codes) != 1 {
			return errors.New("the broker answers a subscription that was not asked for")
		}
		codes <- s.Codes
		return nil
	case packet.PINGRESP:
		return nil
	case packet.DISCONNECT:
		if u.version != packet.V5 {
			break
		}
		var d packet.Disconnect
		if err := d.Decode(body, packet.V5); err != nil {
			return err
		}
		return explainDisconnect(d.Code)
	}
	return fmt.Errorf("the broker sends a %v, which is not for clients", h.Type)
}

// explainDisconnect says why the far broker has ended the connection (MQTT 5,
// 3.14.2.1).
func explainDisconnect(code packet.ReasonCode) error {
	switch code {
	case packet.SessionTakenOver:
		return errors.New("another client has logged in with the same client identifier: give each its own client_id")
	case packet.NotAuthorized:
		return errors.New("the broker does not permit what was sent: check what it lets this user publish, also the state_topic")
	case packet.QuotaExceeded, packet.MessageRateTooHigh, packet.ReceiveMaximumExceeded:
		return fmt.Errorf("the broker does not take so many messages (%v): set rate or window in [bridge.queue]", code)
	case packet.PacketTooLarge:
		return errors.New("the broker does not take so large a message")
	}
	return fmt.Errorf("the broker has ended the connection: %v (0x%02x)", code, byte(code))
}

// answered is what ends a publish: PUBACK, or PUBCOMP for QoS 2.
func (u *client) answered(t packet.Type, a packet.Ack) error {
	u.mu.Lock()
	out := u.pending[a.PacketID]
	want := out != nil && (out.qos == 2) == (t == packet.PUBCOMP) && (out.qos < 2 || out.stage == released)
	if want {
		u.endedLocked(a.PacketID)
	}
	wait := len(u.held) > 0
	u.mu.Unlock()
	if !want {
		return fmt.Errorf("the broker acknowledges %d, which was not sent", a.PacketID)
	}
	if wait {
		defer u.release()
	}
	var why error // nil for PUBCOMP with whatever code: it has nothing more to do with it
	if t == packet.PUBACK {
		why = explainAck(a.Code)
	}
	u.answer(out, why)
	return nil
}

// endedLocked frees a packet identifier, and its place in the window.
func (u *client) endedLocked(id uint16) {
	if !u.pending[id].outside {
		u.inside--
	}
	delete(u.pending, id)
}

// received is a PUBREC: PUBREL is sent, or the publish has ended if it is a
// refusal [MQTT-4.3.3-4].
func (u *client) received(a packet.Ack) error {
	u.mu.Lock()
	out := u.pending[a.PacketID]
	if out == nil || out.qos != 2 {
		u.mu.Unlock()
		return fmt.Errorf("the broker acknowledges %d, which was not sent", a.PacketID)
	}
	first, tell := out.stage == sent, out.received
	if a.Code == packet.PacketIdentifierInUse && out.again {
		a.Code = packet.Success // by this message: some brokers answer a repetition so
	}
	switch {
	case a.Code.Failed() && first:
		u.endedLocked(a.PacketID)
		u.mu.Unlock()
		defer u.release()
		if tell == nil {
			u.answer(out, explainAck(a.Code))
		} else {
			tell(explainAck(a.Code))
		}
		return nil
	case first && tell != nil:
		out.stage = received
		u.mu.Unlock()
		tell(nil)
		return nil
	case first || out.stage == released:
		out.stage = released
		u.sendAckLocked(packet.PUBREL, a.PacketID)
	}
	u.mu.Unlock()
	return nil
}

// explainAck is what the answer to a publish means for it (MQTT 5, 3.4.2.1).
func explainAck(code packet.ReasonCode) error {
	switch code {
	case packet.NotAuthorized, packet.TopicNameInvalid, packet.PayloadFormatInvalid, packet.PacketTooLarge:
		return fmt.Errorf("%w: the broker says %v (0x%02x)", holdfast.ErrRefused, code, byte(code))
	case packet.QuotaExceeded:
		return fmt.Errorf("%w: the broker takes no more now: %v (0x%02x): look at its limits, or set rate in [bridge.queue]", errFull, code, byte(code))
	}
	if code == packet.PacketIdentifierInUse {
		return fmt.Errorf("%w: %v (0x%02x)", errInUse, code, byte(code))
	}
	if code.Failed() { // it may take it another time
		return fmt.Errorf("%w: the broker says %v (0x%02x)", errLater, code, byte(code))
	}
	return nil
}

// release sends what waited for a place in the window.
func (u *client) release() {
	u.mu.Lock()
	var failed []func()
	for !u.ended && len(u.held) > 0 && u.inside < u.window {
		h := u.held[0]
		u.held = u.held[1:]
		if err := u.publishLocked(h.p, h.out); err != nil {
			failed = append(failed, func() { u.end(h.out, err) })
		}
	}
	u.mu.Unlock()
	u.Flush()
	for _, f := range failed {
		f()
	}
}

// arrived is a PUBLISH. It is acknowledged when the receiver says so.
func (u *client) arrived(h packet.Header, body []byte) error {
	var p packet.Publish
	if err := p.Decode(h.Flags, body, u.version); err != nil {
		return err
	}
	if len(p.Topic) == 0 || p.Properties != nil && p.Properties.TopicAlias > 0 {
		return errors.New("the broker uses a topic alias, for which it was given none [MQTT-3.1.2-26]")
	}
	m := &holdfast.Message{Topic: string(p.Topic), Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, Properties: p.Properties.ForMessage()}
	if u.gateway != "" {
		m = m.Via(u.gateway)
	}
	ack := func() {}
	switch p.QoS {
	case 1:
		ack = func() { u.acknowledge(packet.PUBACK, p.PacketID) }
	case 2:
		if u.exact {
			u.arrivedExactly(p.PacketID, m, p.Dup)
			return nil
		}
		u.mu.Lock()
		sent, again := u.inbound[p.PacketID]
		if !again {
			u.inbound[p.PacketID] = false
		}
		tooMany := u.version == packet.V5 && len(u.inbound) > inboundMaximum
		u.mu.Unlock()
		if tooMany {
			return errors.New("the broker sends more messages at once than it was told to [MQTT-3.3.4-9]")
		}
		if again { // it has come already [MQTT-4.3.3-10]
			if sent {
				u.acknowledge(packet.PUBREC, p.PacketID)
			}
			return nil
		}
		ack = func() { u.acknowledge(packet.PUBREC, p.PacketID) }
	}
	u.receive(m, p.Dup, ack)
	return nil
}

func (u *client) acknowledge(t packet.Type, id uint16) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return
	}
	if _, open := u.inbound[id]; open && t == packet.PUBREC {
		u.inbound[id] = true
	}
	u.sendAckLocked(t, id)
}

func (u *client) sendAckLocked(t packet.Type, id uint16) {
	a := packet.Ack{PacketID: id}
	u.sendLocked(a.Append(nil, t, u.version), false)
}

// released is a PUBREL.
func (u *client) released(id uint16) {
	u.mu.Lock()
	delete(u.inbound, id)
	u.mu.Unlock()
	u.acknowledge(packet.PUBCOMP, id)
}
