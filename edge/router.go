package edge

import (
	"maps"
	"slices"
	"sync"

	"holdfast"
	"holdfast/edge/packet"
	"holdfast/edge/topic"
)

// What is remembered: the subscribers of so many topics, of so many subscribers
// in all (32 bytes each), and of no longer topics, which nobody needs but one
// who wants to fill the memory.
const (
	matchCacheTopics       = 4096
	matchCacheDestinations = 256 << 10
	matchCacheTopicLength  = 256
)

// router knows who wants a topic. The answer for a topic is remembered until
// any subscription changes.
type router struct {
	mu     sync.RWMutex
	tree   topic.Tree[*session, options] // by filter and session; guarded by mu
	cache  map[string][]destination      // guarded by mu; its values are never changed
	cached int                           // destinations in cache; guarded by mu
	// shares are the shared subscriptions by filter, and byFilter by what is
	// behind "$share/NAME/". Guarded by mu.
	shares   map[string]*share
	byFilter topic.Tree[*share, struct{}]
	// left is called when a session has left a share, with mu: nobody joins
	// before it is done.
	left func(*share)
}

// options are those of one subscription (MQTT 5, 3.8.3.1).
type options struct {
	id                   uint32 // Subscription Identifier; 0 is none
	qos                  byte
	noLocal, asPublished bool
}

// destination is one subscriber of a topic. Overlapping subscriptions of one
// session make one copy, with the highest QoS of them and all of their
// identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-4].
type destination struct {
	sess        *session
	qos         byte
	asPublished bool // the RETAIN flag stays as it was published
	more        *more
	// share, if not nil, is a shared subscription instead of all that; resolve
	// puts one of its members here. They stand behind the others.
	share *share
}

// more is what few destinations have.
type more struct {
	ids []uint32
	// noLocal: what the session itself publishes goes to own, which leaves its
	// No Local subscriptions out; nil if those are all.
	noLocal bool
	own     *destination
}

// add takes one more subscription of the session into account.
func (d *destination) add(o options) {
	d.qos = max(d.qos, o.qos)
	d.asPublished = d.asPublished || o.asPublished
	if o.id != 0 || o.noLocal {
		if d.more == nil {
			d.more = new(more)
		}
		d.more.noLocal = d.more.noLocal || o.noLocal
		if o.id != 0 {
			d.more.ids = append(d.more.ids, o.id)
		}
	}
}

// of is d as it takes m; false if it does not, since m would go back to the
// bridge or the No Local subscriber that it came from [MQTT-3.8.3-3].
func (d destination) of(m *holdfast.Message) (destination, bool) {
	if m.Origin != d.sess.clientID {
		return d, true
	}
	switch {
	case d.sess.bridge.Load():
		return d, false
	case d.more == nil || !d.more.noLocal:
		return d, true
	case d.more.own == nil:
		return d, false
	}
	return *d.more.own, true
}

// retain is the RETAIN flag with which d gets m: 0, unless the subscriber has
// asked for it as it was published [MQTT-3.3.1-12] [MQTT-3.3.1-13].
func (d *destination) retain(m *holdfast.Message) bool {
	return m.Retain && (d.asPublished || d.sess.bridge.Load())
}

func (d *destination) ids() []uint32 {
	if d.more == nil {
		return nil
	}
	return d.more.ids
}

func (r *router) subscribe(s *session, sub holdfast.Subscription) {
	o := options{sub.Identifier, sub.QoS, sub.NoLocal, sub.RetainAsPublished}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changedLocked()
	if !isShared(sub.Filter) {
		r.tree.Add(sub.Filter, s, o)
		return
	}
	sh := r.shares[sub.Filter]
	if sh == nil {
		sh = &share{filter: sub.Filter}
		if r.shares == nil {
			r.shares = make(map[string]*share)
		}
		r.shares[sub.Filter] = sh
		_, rest, _ := topic.ParseShared(sub.Filter)
		r.byFilter.Add(rest, sh, struct{}{})
	}
	sh.mu.Lock()
	sh.setLocked(member{s, o})
	sh.mu.Unlock()
}

func (r *router) unsubscribe(s *session, filter string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removeLocked(s, filter)
	r.changedLocked()
}

// removeLocked removes a subscription.
func (r *router) removeLocked(s *session, filter string) {
	sh := r.shares[filter]
	if sh == nil {
		r.tree.Remove(filter, s)
		return
	}
	sh.mu.Lock()
	sh.removeLocked(s)
	empty := len(sh.members) == 0
	sh.mu.Unlock()
	if empty {
		delete(r.shares, filter)
		_, rest, _ := topic.ParseShared(filter)
		r.byFilter.Remove(rest, sh)
	}
	r.left(sh)
}

// share is the shared subscription with that filter; nil if nobody has it.
func (r *router) share(filter string) *share {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.shares[filter]
}

func (r *router) allShares() []*share {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.shares))
}

// forget removes all subscriptions of a session.
func (r *router) forget(s *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for filter := range s.subs {
		r.removeLocked(s, filter)
	}
	if len(s.subs) > 0 { // most clients only publish
		r.changedLocked()
	}
}

func (r *router) changedLocked() {
	clear(r.cache)
	r.cached = 0
}

func (r *router) len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := r.tree.Len()
	for _, sh := range r.shares {
		sh.mu.Lock()
		n += len(sh.members)
		sh.mu.Unlock()
	}
	return n
}

// sharedLen is the number of shared subscriptions, whoever is in them.
func (r *router) sharedLen() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.shares)
}

// match returns the subscribers of a topic. The slice must not be changed.
func (r *router) match(name string) []destination {
	r.mu.RLock()
	dests, ok := r.cache[name]
	r.mu.RUnlock()
	if ok {
		return dests
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	dests = r.findLocked(name)
	r.rememberLocked(name, dests)
	return dests
}

func (r *router) findLocked(name string) (dests []destination) {
	at := make(map[*session]int)
	noLocal := false
	r.tree.Match(name, func(s *session, o options) {
		i, ok := at[s]
		if !ok {
			i = len(dests)
			at[s] = i
			dests = append(dests, destination{sess: s})
		}
		dests[i].add(o)
		noLocal = noLocal || o.noLocal
	})
	if noLocal {
		r.tree.Match(name, func(s *session, o options) {
			d := &dests[at[s]]
			if o.noLocal || d.more == nil || !d.more.noLocal {
				return
			}
			if d.more.own == nil {
				d.more.own = &destination{sess: s}
			}
			d.more.own.add(o)
		})
	}
	r.byFilter.Match(name, func(sh *share, _ struct{}) { dests = append(dests, destination{share: sh}) })
	return dests
}

// rememberLocked makes room by forgetting an eighth, whichever: if all were
// forgotten, more topics than there is room for would never be found again.
func (r *router) rememberLocked(name string, dests []destination) {
	if len(name) > matchCacheTopicLength || len(dests) > matchCacheDestinations/8 {
		return
	}
	r.cached -= len(r.cache[name]) // another publisher was quicker
	delete(r.cache, name)
	if len(r.cache) >= matchCacheTopics || r.cached+len(dests) > matchCacheDestinations {
		for other, old := range r.cache {
			if len(r.cache) <= matchCacheTopics/8*7 && r.cached+len(dests) <= matchCacheDestinations/8*7 {
				break
			}
			delete(r.cache, other)
			r.cached -= len(old)
		}
	}
	if r.cache == nil {
		r.cache = make(map[string][]destination)
	}
	r.cache[name] = dests
	r.cached += len(dests)
}

// publication is a message with what the broker knows of its way here.
type publication struct {
	msg     *holdfast.Message
	inbound *holdfast.Inbound // the QoS 2 packet identifier to be stored with it
	willOf  string            // the client whose stored will this is
	// unheard, if not nil, is set before done is called if nobody wants the message.
	unheard *bool
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
	s.deliver(dests, p.msg, 0)
	if p.msg.QoS > 0 {
		s.deliver(dests, p.msg, 1)
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
				s.deliver(dests, p.msg, 2)
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
		return s.accept(p, withDelivery(p.msg, p.msg.QoS, false), done)
	}
	dests, err := s.accept(p, p.msg, done)
	if err == nil {
		s.retained.setLocked(p.msg)
	}
	return dests, err
}

// deliver hands a message to the subscribers that are to get it with this QoS:
// QoS 0 to everyone connected, QoS 1 and 2 to clean sessions. Durable sessions
// take those from their queue. It never blocks.
func (s *Server) deliver(dests []destination, m *holdfast.Message, qos byte) {
	switch {
	case len(dests) == 0:
		return
	case qos == 0:
		s.deliverQoS0(dests, m)
		return
	}
	for _, d := range dests {
		d, ok := d.of(m)
		c := d.sess.conn.Load()
		if c == nil || !ok || d.sess.durable || min(d.qos, m.QoS) != qos || c.denied(m.Topic) {
			continue
		}
		if !c.push(withDelivery(m, qos, d.retain(m)).WithSubscriptionIDs(d.ids()), false) && c.close(errSlow) {
			s.stats.droppedSlow.Add(1)
		}
	}
}

func (s *Server) deliverQoS0(dests []destination, m *holdfast.Message) {
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
		c.sendPublishQoS0(&p, m.Topic)
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
