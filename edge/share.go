package edge

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/edge/topic"
)

// share is one shared subscription (MQTT 5, 4.8.2): each message goes to one of
// its members, in turn to those that are connected. While none is, what is
// published with QoS 1 or 2 is kept in a queue of the share's own, if a member
// has a durable session, and goes to the first that connects.
type share struct {
	filter string // "$share/NAME/FILTER"

	mu      sync.Mutex
	members []member // guarded by mu
	next    int      // whose turn it is; guarded by mu
	// box is the share's queue; nil without durable members. Guarded by mu.
	box Outbox
}

type member struct {
	sess *session
	opts options
}

// sharePrefix begins the name under which the store knows the queue of a share.
// No client has such an identifier [MQTT-1.5.4-2].
const sharePrefix = "\x00share:"

// shareWait is how long a message of a share's queue waits for members that all
// have enough to do, or refuse it.
const shareWait = 50 * time.Millisecond

func (sh *share) id() string { return sharePrefix + sh.filter }

func isShared(filter string) bool { return strings.HasPrefix(filter, "$share/") }

// setLocked adds or replaces a member. sh.mu is held, as in all that ends in
// Locked here.
func (sh *share) setLocked(m member) {
	for i := range sh.members {
		if sh.members[i].sess == m.sess {
			sh.members[i] = m
			return
		}
	}
	sh.members = append(sh.members, m)
}

func (sh *share) removeLocked(s *session) {
	sh.members = slices.DeleteFunc(sh.members, func(m member) bool { return m.sess == s })
}

func (sh *share) durableLocked() bool {
	return slices.ContainsFunc(sh.members, func(m member) bool { return m.sess.durable })
}

// pick takes the member whose turn it is among those that are connected and may
// have the subscription, first
// among those that keep up; ready tells that it does. ok is false if none is
// connected.
func (sh *share) pick() (m member, ready, ok bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	at := -1
	_, topics, _ := topic.ParseShared(sh.filter)
	for i := range sh.members {
		n := (sh.next + i) % len(sh.members)
		c := sh.members[n].sess.conn.Load()
		if c == nil || !c.isStarted() || !c.mayFilter(topics) {
			continue
		}
		if sh.members[n].sess.outbox.Len()-int(c.withheld.count.Load()) < 2*c.window {
			at, ready = n, true
			break
		}
		if at < 0 {
			at = n
		}
	}
	if at < 0 {
		return m, false, false
	}
	sh.next = at + 1
	return sh.members[at], ready, true
}

// keeps reports whether a message that no member can have now is to be kept.
func (sh *share) keeps(m *holdfast.Message) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return m.QoS > 0 && sh.box != nil &&
		slices.ContainsFunc(sh.members, func(m member) bool { return m.sess.durable && m.opts.qos > 0 })
}

// destination is m as a subscriber of its own.
func (m member) destination() destination {
	d := destination{sess: m.sess}
	d.add(m.opts)
	return d
}

// resolve replaces the shares among dests, which stand at its end, by the member
// that is to have the message each; kept are those whose queue is to have it.
func resolve(dests []destination, m *holdfast.Message) (out []destination, kept []*share) {
	n := len(dests)
	for n > 0 && dests[n-1].share != nil {
		n--
	}
	if n == len(dests) {
		return dests, nil
	}
	out = slices.Clone(dests[:n])
	for _, d := range dests[n:] {
		if chosen, _, ok := d.share.pick(); ok {
			d := chosen.destination()
			// A session may be a subscriber by itself, too: these are two
			// subscriptions with a copy each (MQTT 5, 4.8.2).
			out = append(out, d)
		} else if d.share.keeps(m) {
			kept = append(kept, d.share)
		}
	}
	return out, kept
}

// joinShare gives the share of a durable session's subscription its queue,
// before the subscription is stored. failed is called if that cannot be stored:
// the next start would remove the queue with all that is in it.
func (s *Server) joinShare(ss *session, filter string, failed func(error)) {
	sh := s.router.share(filter)
	if sh == nil {
		return
	}
	// Stored with each member anew: the one before may have failed.
	if ss.durable && s.saveShare(sh, failed) {
		sh.mu.Lock()
		if sh.box == nil {
			s.openShareLocked(sh)
		}
		sh.mu.Unlock()
	}
	s.wakeShares()
}

// saveShare stores that there is a queue, and reports false if that was refused
// at once.
func (s *Server) saveShare(sh *share, failed func(error)) bool {
	var refused atomic.Bool
	s.opts.Store.Change(&holdfast.SessionChange{ClientID: sh.id(),
		Save: &holdfast.SessionState{ClientID: sh.id(), Expiry: holdfast.NeverExpires}}, func(err error) {
		if err != nil {
			refused.Store(true)
			failed(fmt.Errorf("store the queue of %s: %w", sh.filter, err))
		}
	})
	return !refused.Load()
}

func (s *Server) openShareLocked(sh *share) {
	box, err := s.opts.Store.Outbox(sh.id())
	if err != nil {
		s.log.Warn("the queue of a shared subscription cannot be opened: nothing is kept for it", "filter", sh.filter, "error", err)
		return
	}
	sh.box = box
	box.Notify(s.wakeShares)
}

// leaveShare takes the queue away from a share whose last durable member has
// left. The router calls it, with its lock.
func (s *Server) leaveShare(sh *share) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.box == nil || sh.durableLocked() {
		return
	}
	sh.box.Notify(nil)
	sh.box = nil
	s.opts.Store.Change(&holdfast.SessionChange{ClientID: sh.id(), Reset: true}, func(error) {})
}

// restoreShares gives the shares of the restored sessions their queues. Those
// in stored that no session has any more are removed.
func (s *Server) restoreShares(stored []string) {
	for _, id := range stored {
		if sh := s.router.share(strings.TrimPrefix(id, sharePrefix)); sh == nil {
			s.opts.Store.Change(&holdfast.SessionChange{ClientID: id, Reset: true}, func(error) {})
		}
	}
	failed := func(err error) {
		s.log.Warn("nothing is kept for a shared subscription until a member subscribes again", "error", err)
	}
	for _, sh := range s.router.allShares() {
		sh.mu.Lock()
		if sh.durableLocked() && (slices.Contains(stored, sh.id()) || s.saveShare(sh, failed)) {
			s.openShareLocked(sh)
		}
		sh.mu.Unlock()
	}
}

func (s *Server) wakeShares() {
	select {
	case s.shareWake <- struct{}{}:
	default:
	}
}

// moveShares hands what shares have kept to members that connect, until Shutdown.
func (s *Server) moveShares() {
	s.wakeShares()
	for {
		select {
		case <-s.quit:
			return
		case <-s.shareWake:
		}
		again := false
		for _, sh := range s.router.allShares() {
			again = s.moveShare(sh) || again
		}
		if !again {
			continue
		}
		// What was refused has come back at once, and woke us.
		select {
		case <-s.quit:
			return
		case <-time.After(shareWait):
		}
		s.wakeShares()
	}
}

// moveShare moves as much as the members of one share take now; again tells that
// it is worth another try soon.
func (s *Server) moveShare(sh *share) (again bool) {
	sh.mu.Lock()
	box := sh.box
	sh.mu.Unlock()
	for box != nil && box.Len() > 0 {
		m, ready, ok := sh.pick()
		if !ok {
			return false
		}
		if !ready {
			return true
		}
		it, ok, err := box.TryNext()
		if err != nil || !ok {
			return err != nil
		}
		if !s.handOver(m, box, it) {
			return true
		}
	}
	return false
}

// handOver gives one message of a share's queue to a member. It leaves the queue
// when it is safe in that of the member, or when a member with a clean session
// has acknowledged it; if that ends before, another one gets it. A crash between
// the two queues leaves it in both: it may come twice then. false tells that the
// member did not take it.
func (s *Server) handOver(m member, box Outbox, it holdfast.Item) bool {
	d := m.destination()
	qos := min(it.Msg.QoS, m.opts.qos)
	msg := withDelivery(it.Msg, qos, d.retain(it.Msg))
	if msg.Properties != nil && msg.Properties.HasExpiry {
		c := *msg
		c.Received = time.Now() // from here what is left is counted again
		msg = &c
	}
	var refused atomic.Bool
	ended := func(delivered bool) {
		if delivered {
			box.Ack(it.ID)
			return
		}
		refused.Store(true)
		box.Release(it.ID)
		s.wakeShares()
	}
	c := m.sess.conn.Load()
	switch {
	case c == nil:
		ended(false)
	case qos == 0:
		s.deliverQoS0([]destination{d}, msg, nil)
		ended(true)
	case m.sess.durable:
		s.opts.Store.Change(&holdfast.SessionChange{ClientID: m.sess.clientID,
			Append: []*holdfast.Message{msg.WithSubscriptionIDs(d.ids())}, Moved: true}, func(err error) { ended(err == nil) })
	default:
		own, ok := m.sess.outbox.(*memoryOutbox)
		if !ok || !own.pushFor(msg.WithSubscriptionIDs(d.ids()), ended) {
			ended(false)
		}
	}
	return !refused.Load()
}

// checkShare tells what is wrong with the filter of a shared subscription.
func checkShare(filter string) error {
	_, rest, err := topic.ParseShared(filter)
	if err == nil {
		err = topic.ValidFilter(rest)
	}
	return err
}
