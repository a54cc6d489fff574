package edge

import (
	"fmt"

	"holdfast"
	"holdfast/edge/packet"
	"holdfast/edge/topic"
)

// maxFilterBytes bounds the filters of one session together: a stored session
// is one row, and must fit one.
const maxFilterBytes = 256 << 10

// handleSubscribe adds subscriptions. Messages flow from here on; SUBACK leaves
// when, for a durable session, the subscriptions and the retained messages that
// they ask for are on disk (P1).
func (c *conn) handleSubscribe(body []byte) error {
	var p packet.Subscribe
	if err := p.Decode(body, c.version); err != nil {
		return err
	}
	s := c.sess
	ack := packet.Suback{PacketID: p.PacketID}
	granted := make(map[string]holdfast.Subscription, 1) // those that ask for retained messages
	// SUBACK goes before the messages of the session that it brings. The
	// specification allows either order (3.8.4); clients are used to this one.
	c.mu.Lock()
	c.subscribing++
	c.mu.Unlock()
	var refused refusedFilters
	for _, sub := range p.Filters {
		if err := c.checkFilter(sub.Filter); err != nil {
			return fmt.Errorf("SUBSCRIBE: %w", err)
		}
		if code := c.maySubscribe(sub.Filter); code.Failed() {
			refused.add(sub.Filter, code)
			ack.Codes = append(ack.Codes, byte(code))
			continue
		}
		s.mu.Lock()
		replaces := s.setLocked(sub)
		s.mu.Unlock()
		c.srv.router.subscribe(s, sub)
		ack.Codes = append(ack.Codes, sub.QoS)
		if isShared(sub.Filter) {
			// No retained messages (MQTT 5, 4.8.2).
			c.srv.joinShare(s, sub.Filter, func(err error) { c.close(err) })
			continue
		}
		if sub.RetainHandling == 0 || sub.RetainHandling == 1 && !replaces {
			granted[sub.Filter] = sub // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
		} else {
			delete(granted, sub.Filter)
		}
	}
	c.logRefused(&refused)
	suback := func() {
		c.send(func(dst []byte) []byte {
			c.subscribing--
			if out, err := ack.Append(dst, c.version); err == nil {
				return out
			}
			return dst
		})
	}
	var found []wanted
	found = c.srv.retained.matching(granted)
	if s.durable {
		var err error
		if found, err = c.queueRetained(found, suback); err != nil {
			return err
		}
	} else {
		suback()
	}
	c.sendRetained(found)
	return nil
}

// retainedAtOnce is about how many bytes of retained messages are queued for a
// durable session in one change: more than can wait for the disk at a time may match.
const retainedAtOnce = 1 << 20

// queueRetained stores the session's subscriptions and queues the retained messages
// found for it; suback is called when all of it is on disk. It returns those that
// go out with QoS 0. What takes more than one change holds up this connection
// alone; a crash in between leaves the subscriptions and the first messages, and the
// client without SUBACK.
func (c *conn) queueRetained(found []wanted, suback func()) (rest []wanted, err error) {
	for first := true; ; first = false {
		more := false
		stored := make(chan struct{}, 1)
		found = c.srv.retained.appendTo(found, retainedAtOnce, &rest, func(kept []*holdfast.Message, others bool) {
			done := suback
			if more = others; more {
				done = func() { stored <- struct{}{} }
			}
			c.saveSubscriptions(first, kept, done)
		})
		if !more {
			return rest, nil
		}
		select {
		case <-stored:
		case <-c.closed:
			return nil, c.reason()
		}
	}
}

// checkFilter tells what is wrong with a topic filter; the connection cannot go
// on then [MQTT-4.7.1-1] [MQTT-4.7.1-2].
func (c *conn) checkFilter(filter string) error {
	valid := topic.ValidFilter
	if isShared(filter) {
		valid = checkShare
	}
	if err := valid(filter); err != nil {
		return &packet.Error{Code: packet.TopicFilterInvalid, Text: err.Error()}
	}
	return c.checkLevels(filter)
}

// maySubscribe says whether a filter is granted, by access and by the limit. A
// client of MQTT 3.x is told 0x80 in any case.
func (c *conn) maySubscribe(filter string) packet.ReasonCode {
	_, topics, _ := topic.ParseShared(filter)
	if !c.mayFilter(topics) {
		return packet.NotAuthorized
	}
	if isShared(filter) && c.srv.router.share(filter) == nil && (c.srv.router.sharedLen() >= c.srv.limits.MaxShares ||
		c.sess.sharesLen() >= max(c.srv.limits.MaxShares/10, fairShare)) {
		return packet.QuotaExceeded
	}
	c.sess.mu.Lock()
	_, replaces := c.sess.subs[filter]
	full := !replaces && (len(c.sess.subs) >= c.srv.limits.MaxSubscriptions || c.sess.subsBytes+len(filter) > maxFilterBytes)
	c.sess.mu.Unlock()
	if full {
		return packet.QuotaExceeded
	}
	return packet.Success
}

// refusedLogged is how many SUBSCRIBEs of one connection the log tells of that were
// refused something.
const refusedLogged = 10

// refusedFilters are those of one SUBSCRIBE by the reason, with the first of each.
type refusedFilters struct {
	denied, over           int
	firstDenied, firstOver string
}

func (r *refusedFilters) add(filter string, code packet.ReasonCode) {
	n, first := &r.over, &r.firstOver
	if code == packet.NotAuthorized {
		n, first = &r.denied, &r.firstDenied
	}
	if *n++; *n == 1 {
		*first = filter
	}
}

// logRefused tells the log, one line a reason and not for ever: clients try again.
func (c *conn) logRefused(r *refusedFilters) {
	if r.denied+r.over == 0 {
		return
	}
	if c.subscribesRefused++; c.subscribesRefused > refusedLogged {
		return
	}
	if r.denied > 0 {
		c.srv.log.Warn("subscription denied", "client_id", c.clientID, "filter", r.firstDenied, "count", r.denied)
	}
	if r.over > 0 {
		l := &c.srv.limits
		c.srv.log.Warn("subscription refused: the client has too many, its filters are too long, or there are too many shared subscriptions",
			"client_id", c.clientID, "filter", r.firstOver, "count", r.over,
			"max_subscriptions", l.MaxSubscriptions, "max_bytes", maxFilterBytes, "max_shared_subscriptions", l.MaxShares)
	}
	if c.subscribesRefused == refusedLogged {
		c.srv.log.Warn("no more refused subscriptions of this connection are logged", "client_id", c.clientID)
	}
}

// handleUnsubscribe removes subscriptions; UNSUBACK waits for the disk as
// SUBACK does.
func (c *conn) handleUnsubscribe(body []byte) error {
	var p packet.Unsubscribe
	if err := p.Decode(body, c.version); err != nil {
		return err
	}
	s := c.sess
	ack := packet.Unsuback{PacketID: p.PacketID}
	for _, f := range p.Filters {
		if err := c.checkFilter(f); err != nil {
			return fmt.Errorf("UNSUBSCRIBE: %w", err)
		}
		s.mu.Lock()
		existed := s.removeLocked(f)
		s.mu.Unlock()
		code := packet.NoSubscriptionExisted
		if existed {
			c.srv.router.unsubscribe(s, f)
			code = packet.Success
		}
		ack.Codes = append(ack.Codes, byte(code)) // [MQTT-3.11.3-1]
	}
	unsuback := func() {
		c.send(func(dst []byte) []byte {
			if out, err := ack.Append(dst, c.version); err == nil {
				return out
			}
			return dst
		})
	}
	if !s.durable {
		unsuback()
		return nil
	}
	c.saveSubscriptions(true, nil, unsuback)
	return nil
}

// saveSubscriptions stores the session's subscriptions, if save is true, with
// retained messages to be queued for it, and calls done when all of it is on disk.
func (c *conn) saveSubscriptions(save bool, kept []*holdfast.Message, done func()) {
	var state *holdfast.SessionState
	size := 0
	if save {
		c.sess.mu.Lock()
		state = c.sess.stateLocked()
		size = c.sess.subsBytes + 16*len(c.sess.subs)
		c.sess.mu.Unlock()
	}
	for _, m := range kept {
		size += m.Size()
	}
	c.srv.pending.add(size)
	c.srv.opts.Store.Change(&holdfast.SessionChange{ClientID: c.clientID, Save: state, Append: kept},
		func(err error) {
			c.srv.pending.sub(size)
			if err != nil {
				c.close(fmt.Errorf("store the subscriptions: %w", err))
				return
			}
			done()
		})
}
