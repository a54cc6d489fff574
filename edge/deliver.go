package edge

import (
	"holdfast"
	"holdfast/edge/packet"
)

// publication is a message with what the broker knows of its way here.
type publication struct {
	msg     *holdfast.Message
	inbound *holdfast.Inbound // the QoS 2 packet identifier to be stored with it
	willOf  string            // the client whose stored will this is
	// unheard, if not nil, is set before done is called if nobody wants the message.
	unheard *bool
	by      *conn // whose reader publishes it; nil for nobody's
}

// publish brings a message to everyone who wants it. The order is the promise:
// the Sink first decides for all durable destinations; then connected
// subscribers get QoS 0 and 1 at once, without waiting for the disk; QoS 2 and
// done wait until it is safe. A non-nil error means refused: delivered and
// stored nowhere, done is not called.
func (s *Server) publish(p publication, done func(error)) error {
	var dests []destination
	var err error
	if p.msg.Retain {
		dests, err = s.acceptRetained(p, done)
	} else {
		dests, err = s.accept(p, p.msg, done)
	}
	if err != nil {
		return err
	}
	s.deliver(dests, p.msg, 0, p.by)
	if p.msg.QoS > 0 {
		s.deliver(dests, p.msg, 1, p.by)
	}
	return nil
}

// accept finds who wants a publication and offers it to the Sink as msg.
func (s *Server) accept(p publication, msg *holdfast.Message, done func(error)) ([]destination, error) {
	dests, kept := resolve(s.router.match(p.msg.Topic), p.msg)
	pub := &holdfast.Publication{Msg: msg, Inbound: p.inbound, WillOf: p.willOf}
	exactlyOnce := false
	for _, d := range dests {
		d, ok := d.of(p.msg)
		qos := min(d.qos, p.msg.QoS)
		switch {
		case !ok || qos == 0 || d.sess.denied(p.msg.Topic):
		case d.sess.durable:
			pub.Sessions = append(pub.Sessions, holdfast.Delivery{
				ClientID: d.sess.clientID, QoS: qos, Retain: d.retain(p.msg), SubscriptionIDs: d.ids()})
		case qos == 2:
			exactlyOnce = true
		}
	}
	for _, sh := range kept {
		pub.Sessions = append(pub.Sessions, holdfast.Delivery{ClientID: sh.id(), QoS: p.msg.QoS, Retain: p.msg.Retain})
	}
	safe := done
	if exactlyOnce {
		safe = func(err error) {
			if err == nil {
				s.deliver(dests, p.msg, 2, p.by)
			}
			done(err)
		}
	}
	if p.unheard != nil && len(dests) == 0 && len(kept) == 0 && !p.msg.Retain {
		safe = func(err error) {
			*p.unheard = pub.Unrouted
			done(err)
		}
	}
	return dests, s.opts.Sink.Accept(pub, safe)
}

// acceptRetained is accept for a message to be retained. It is remembered in the
// same order as the Sink has taken it, so that disk and memory agree. Whoever
// subscribes meanwhile is either among the destinations or finds it retained.
func (s *Server) acceptRetained(p publication, done func(error)) ([]destination, error) {
	s.retained.mu.Lock()
	defer s.retained.mu.Unlock()
	if !s.retained.fitsLocked(p.msg, s.limits.MaxRetained, s.limits.MaxRetainedBytes) {
		if s.stats.notRetained.Add(1)%100 == 1 {
			s.log.Warn("message not retained: limits.max_retained_messages or max_retained_bytes is met", "topic", p.msg.Topic)
		}
		dests, err := s.accept(p, withDelivery(p.msg, p.msg.QoS, false), done)
		if err == nil {
			s.retained.forgetLocked(p.msg.Topic, s.opts.Store)
		}
		return dests, err
	}
	dests, err := s.accept(p, p.msg, done)
	if err == nil {
		s.retained.setLocked(p.msg)
	}
	return dests, err
}

// deliverUnkept brings a message of QoS 0 that was refused to those who are connected.
// One to be retained is in memory only, and what was on disk of its topic goes: it is
// not the last word any more.
func (s *Server) deliverUnkept(m *holdfast.Message, by *conn) {
	if m.Retain {
		s.retained.mu.Lock()
		s.retained.forgetLocked(m.Topic, s.opts.Store)
		if s.retained.fitsLocked(m, s.limits.MaxRetained, s.limits.MaxRetainedBytes) {
			s.retained.setLocked(m)
		}
		s.retained.mu.Unlock()
	}
	dests, _ := resolve(s.router.match(m.Topic), m)
	s.deliver(dests, m, 0, by)
}

// deliver hands a message to the subscribers that are to get it with this QoS:
// QoS 0 to everyone connected, QoS 1 and 2 to clean sessions. Durable sessions
// take those from their queue. It never blocks. What it has brought is written at
// the end of what the reader of by handles.
func (s *Server) deliver(dests []destination, m *holdfast.Message, qos byte, by *conn) {
	switch {
	case len(dests) == 0:
		return
	case qos == 0:
		s.deliverQoS0(dests, m, by)
		return
	}
	for _, d := range dests {
		d, ok := d.of(m)
		c := d.sess.conn.Load()
		if c == nil || !ok || d.sess.durable || min(d.qos, m.QoS) != qos || c.denied(m.Topic) {
			continue
		}
		if c.push(withDelivery(m, qos, d.retain(m)).WithSubscriptionIDs(d.ids()), false, by) {
			c.wakeAfter(by)
		} else if c.close(errSlow) {
			s.stats.droppedSlow.Add(1)
		}
	}
}

func (s *Server) deliverQoS0(dests []destination, m *holdfast.Message, by *conn) {
	// Once for all of them, and on the stack unless the topic is long.
	var name [128]byte
	p := packet.Publish{Topic: append(name[:0], m.Topic...), Payload: m.Payload}
	var properties packet.Properties
	properties.FromMessage(m.Properties)
	for _, d := range dests {
		d, ok := d.of(m)
		c := d.sess.conn.Load()
		if c == nil || !ok || min(d.qos, m.QoS) != 0 {
			continue
		}
		p.Retain, p.Properties = d.retain(m), nil
		if properties.SubscriptionIdentifiers = d.ids(); m.Properties != nil || d.more != nil {
			p.Properties = &properties
		}
		c.sendPublishQoS0(&p, m.Topic, by)
	}
}

// withDelivery returns m with the QoS and RETAIN flag of one delivery.
func withDelivery(m *holdfast.Message, qos byte, retain bool) *holdfast.Message {
	if m.QoS == qos && m.Retain == retain {
		return m
	}
	out := *m
	out.QoS, out.Retain = qos, retain
	return &out
}
