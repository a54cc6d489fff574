package edge

import (
	"maps"
	"slices"
	"sync"

	"holdfast"
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
