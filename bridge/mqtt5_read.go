package bridge

import (
	"errors"
	"fmt"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// reader handles what comes until the link ends. Then every publish that has no
// answer is told so.
func (u *mqtt5Upstream) reader() {
	defer u.wg.Done()
	var err error
	for err == nil {
		var h packet.Header
		var body []byte
		if h, body, err = u.readPacket(); err == nil {
			u.heard.Store(int64(time.Since(u.begun)))
			err = u.handle(h, body)
		}
	}
	u.link.end(u.lostByRead(err))
	u.mu.Lock()
	u.ended = true
	pending, held := u.pending, u.held
	u.pending, u.held = nil, nil
	u.mu.Unlock()
	for _, h := range held {
		h.done(u.unknown())
	}
	for _, done := range pending {
		done(u.unknown())
	}
}

// handle takes one packet. An error ends the connection.
func (u *mqtt5Upstream) handle(h packet.Header, body []byte) error {
	switch h.Type {
	case packet.PUBLISH:
		return u.arrived(h, body)
	case packet.PUBACK, packet.PUBREL:
		var a packet.Ack
		if err := a.Decode(body, packet.V5); err != nil {
			return err
		}
		if h.Type == packet.PUBREL {
			u.released(a.PacketID)
			return nil
		}
		return u.answered(a)
	case packet.SUBACK:
		var s packet.Suback
		if err := s.Decode(body, packet.V5); err != nil {
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

// answered is a PUBACK.
func (u *mqtt5Upstream) answered(a packet.Ack) error {
	u.mu.Lock()
	done := u.pending[a.PacketID]
	delete(u.pending, a.PacketID)
	u.mu.Unlock()
	defer u.release()
	if done == nil {
		return fmt.Errorf("the broker acknowledges %d, which was not sent", a.PacketID)
	}
	switch a.Code {
	case packet.NotAuthorized, packet.TopicNameInvalid, packet.PayloadFormatInvalid, packet.PacketTooLarge:
		done(fmt.Errorf("%w: the broker says %v (0x%02x)", holdfast.ErrRefused, a.Code, byte(a.Code)))
	default:
		switch {
		case a.Code == packet.QuotaExceeded:
			done(fmt.Errorf("%w: the broker takes no more now: %v (0x%02x): look at its limits, or set rate in [bridge.queue]", errFull, a.Code, byte(a.Code)))
		case a.Code.Failed(): // it may take it another time
			done(fmt.Errorf("%w: the broker says %v (0x%02x)", errLater, a.Code, byte(a.Code)))
		default:
			done(nil)
		}
	}
	return nil
}

// release sends what waited for a place in the window.
func (u *mqtt5Upstream) release() {
	u.mu.Lock()
	var failed []func()
	for !u.ended && len(u.held) > 0 && len(u.pending) < u.window {
		h := u.held[0]
		u.held = u.held[1:]
		if err := u.publishLocked(h.p, h.done); err != nil {
			failed = append(failed, func() { h.done(err) })
		}
	}
	u.mu.Unlock()
	for _, f := range failed {
		f()
	}
}

// arrived is a PUBLISH. It is acknowledged when the receiver says so.
func (u *mqtt5Upstream) arrived(h packet.Header, body []byte) error {
	var p packet.Publish
	if err := p.Decode(h.Flags, body, packet.V5); err != nil {
		return err
	}
	if len(p.Topic) == 0 || p.Properties != nil && p.Properties.TopicAlias > 0 {
		return errors.New("the broker uses a topic alias, for which it was given none [MQTT-3.1.2-26]")
	}
	m := &holdfast.Message{Topic: string(p.Topic), Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, Properties: p.Properties.ForMessage()}
	ack := func() {}
	switch p.QoS {
	case 1:
		ack = func() { u.acknowledge(packet.PUBACK, p.PacketID) }
	case 2:
		u.mu.Lock()
		sent, again := u.inbound[p.PacketID]
		if !again {
			u.inbound[p.PacketID] = false
		}
		tooMany := len(u.inbound) > inboundMaximum
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

func (u *mqtt5Upstream) acknowledge(t packet.Type, id uint16) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return
	}
	if _, open := u.inbound[id]; open && t == packet.PUBREC {
		u.inbound[id] = true
	}
	a := packet.Ack{PacketID: id}
	u.sendLocked(a.Append(nil, t, packet.V5))
}

// released is a PUBREL.
func (u *mqtt5Upstream) released(id uint16) {
	u.mu.Lock()
	delete(u.inbound, id)
	u.mu.Unlock()
	u.acknowledge(packet.PUBCOMP, id)
}
