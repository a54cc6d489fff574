package edge

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// parkPoll is how often a message that a full queue refuses is offered again
// while its connection is parked.
const parkPoll = 20 * time.Millisecond

// handlePublish takes one application message. Nothing is acknowledged here:
// the acknowledgement leaves when the message is safe.
func (c *conn) handlePublish(flags byte, body []byte) error {
	p := &c.pub
	if err := p.Decode(flags, body, c.version); err != nil {
		return err
	}
	if err := c.holdToRate(); err != nil {
		return err
	}
	c.srv.stats.received.Add(1)
	name, err := c.topicOf(p)
	if err != nil {
		return err
	}
	msg := &holdfast.Message{
		Topic: name, Payload: append([]byte(nil), p.Payload...), QoS: p.QoS, Retain: p.Retain,
		Origin: c.clientID, Received: time.Now(), Properties: p.Properties.ForMessage(),
	}
	allowed := c.mayPublish(msg.Topic)
	if !allowed {
		if c.srv.stats.droppedDenied.Add(1); !c.publishDenied {
			c.publishDenied = true
			c.srv.log.Warn("publish denied; more of this connection are counted only (dropped_denied)", "client_id", c.clientID, "topic", msg.Topic)
		}
	}
	circles := allowed && c.circles(msg)
	if p.QoS == 0 {
		if !allowed || circles {
			return nil
		}
		err := c.offer(publication{msg: msg}, func(error) {})
		if err == nil || errors.Is(err, holdfast.ErrClosed) {
			return err
		}
		// QoS 0 promises nothing, so that nothing is kept of it, counted. Who is
		// connected gets it all the same: the LAN never waits for the WAN, nor
		// for a disk that has failed.
		c.srv.stats.notKeptQoS0.Add(1)
		c.srv.deliverUnkept(msg, c)
		return nil
	}
	return c.acceptAcknowledged(p, msg, allowed, circles)
}

// circles reports whether this gateway has passed msg on already: the client is the
// bridge of another one, which sends it back.
func (c *conn) circles(msg *holdfast.Message) bool {
	if !msg.Passed(c.srv.opts.GatewayID) {
		return false
	}
	if c.srv.stats.droppedLoop.Add(1); !c.sentBack {
		c.sentBack = true
		c.srv.log.Warn("a client sends back what it has from this gateway; it goes nowhere, and more of this connection is counted only (dropped_loop)",
			"client_id", c.clientID, "topic", msg.Topic)
	}
	return true
}

// topicOf is the topic name of a PUBLISH, behind its alias if it has one.
func (c *conn) topicOf(p *packet.Publish) (string, error) {
	if len(p.Topic) > 0 && string(p.Topic) != c.lastTopic {
		c.lastTopic = string(p.Topic)
		if err := c.checkLevels(c.lastTopic); err != nil {
			return "", err
		}
	}
	name := c.lastTopic
	if len(p.Topic) == 0 {
		name = ""
	}
	if p.Properties == nil {
		return name, nil
	}
	if len(p.Properties.SubscriptionIdentifiers) > 0 {
		return "", &packet.Error{Code: packet.ProtocolError, Text: "a subscription identifier in the PUBLISH of a client [MQTT-3.3.4-6]"}
	}
	return c.heard.resolve(name, p.Properties.TopicAlias)
}

// checkLevels bounds how deep a topic name or filter may be.
func (c *conn) checkLevels(t string) error {
	if n := strings.Count(t, "/") + 1; n > c.srv.limits.MaxTopicLevels {
		return &packet.Error{Code: packet.QuotaExceeded,
			Text: fmt.Sprintf("a topic of %d levels is over limits.max_topic_levels (%d)", n, c.srv.limits.MaxTopicLevels)}
	}
	return nil
}

// acceptAcknowledged is handlePublish for QoS 1 and 2: an acknowledgement is
// owed, in the order of the PUBLISH packets.
func (c *conn) acceptAcknowledged(p *packet.Publish, msg *holdfast.Message, allowed, circles bool) error {
	s, id := c.sess, p.PacketID
	ack := packet.PUBACK
	if p.QoS == 2 {
		ack = packet.PUBREC
	}
	switch s.arrived(c, id, p.QoS, p.Dup, ack) {
	case joined:
		return nil
	case received:
		c.completeAck(c.reserveAck(ack, id), packet.Success)
		return nil
	}
	if p.QoS == 2 && c.holdsTooMuch() {
		return &packet.Error{Code: packet.QuotaExceeded, Text: "too many QoS 2 messages wait for PUBREL (limits.max_inbound_qos2)"}
	}
	slot := c.reserveAck(ack, id)
	if c.receivesTooMuch() {
		return &packet.Error{Code: packet.ReceiveMaximumExceeded,
			Text: fmt.Sprintf("more than %d unacknowledged QoS 1 and 2 messages (limits.receive_maximum)", c.srv.limits.ReceiveMaximum)}
	}
	entry := s.begin(id, p.QoS, c, slot)
	switch {
	case circles:
		s.settle(id, entry, packet.Success, nil)
		return nil
	case allowed:
	case c.version == packet.V5:
		s.reject(id, entry, packet.NotAuthorized)
		return nil
	default:
		// 3.1.1 has no negative acknowledgement (3.3.5): it is acknowledged
		// and goes nowhere, which the log and the counter say.
		s.settle(id, entry, packet.Success, nil)
		return nil
	}
	pub := publication{msg: msg}
	if p.QoS == 2 && s.durable {
		pub.inbound = &holdfast.Inbound{ClientID: c.clientID, PacketID: id}
	}
	if c.version == packet.V5 {
		pub.unheard = new(bool)
	}
	unheard := pub.unheard
	err := c.park(pub, func(err error) {
		code := packet.Success
		if unheard != nil && *unheard {
			code = packet.NoMatchingSubscribers // MQTT 5, 3.4.2.1
		}
		s.settle(id, entry, code, err)
	})
	switch {
	case err == nil:
		return nil
	case c.version == packet.V5 && quota(err):
		c.srv.stats.refusedFull.Add(1)
		s.reject(id, entry, packet.QuotaExceeded)
		return nil
	}
	s.settle(id, entry, packet.Success, err)
	return err
}

// quota reports whether a message was refused for good as far as anyone can
// tell: by a full queue whose rule that is, or for its size. MQTT 5 has a reason
// code for it, where a client of 3.x can but be disconnected.
func quota(err error) bool {
	return errors.Is(err, holdfast.ErrTooLarge) || errors.Is(err, holdfast.ErrFull) && !errors.Is(err, holdfast.ErrBusy)
}

// park offers a publication until it is taken: while a queue refuses it, this
// connection alone is read no further; after RefuseWait the client is
// disconnected, so that it sends the message again later. A client of MQTT 5 is
// told of a full queue at once.
func (c *conn) park(p publication, done func(error)) error {
	err := c.offer(p, done)
	if !errors.Is(err, holdfast.ErrFull) || c.version == packet.V5 && quota(err) {
		return err
	}
	c.endBatch()
	expired := time.NewTimer(c.srv.limits.RefuseWait)
	defer expired.Stop()
	poll := time.NewTicker(parkPoll)
	defer poll.Stop()
	for errors.Is(err, holdfast.ErrFull) && !(c.version == packet.V5 && quota(err)) {
		select {
		case <-poll.C:
			err = c.offer(p, done)
		case <-c.closed:
			return c.reason()
		case <-expired.C:
			c.srv.stats.refusedFull.Add(1)
			return fmt.Errorf("%w: parked for %v, now disconnecting so that the client sends again", err, c.srv.limits.RefuseWait)
		}
	}
	return err
}

// offer is one try: publish, with the bytes counted as pending until done.
func (c *conn) offer(p publication, done func(error)) error {
	p.by = c
	size := p.msg.Size()
	c.srv.pending.add(size)
	err := c.srv.publish(p, func(err error) {
		c.srv.pending.sub(size)
		done(err)
	})
	if err != nil {
		c.srv.pending.sub(size)
	}
	return err
}
