package edge

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

const maxPacketID = 65535

// session is what the broker knows of one client identifier (MQTT 3.1.1, 4.1).
// Its two packet identifier spaces are apart: inbound ids are the client's,
// outbound ids are ours, and the same number in both means nothing.
type session struct {
	clientID string
	// durable: it may outlive connections and, on disk, the process
	// (CleanSession 0, or a Session Expiry Interval).
	durable bool
	// bridge: the client is a bridge, whose own messages do not come back to
	// it. Each CONNECT says it anew, while publishers read it.
	bridge atomic.Bool
	// replacesDurable: a durable session of the same client was ended by this
	// one and is still to be removed from disk.
	replacesDurable bool
	// outbox has the QoS 1 and 2 messages for the client. Set before the
	// session's first connection starts.
	outbox Outbox
	// conn is the connection now attached; nil if there is none. Server.mu
	// guards changes, anyone may read.
	conn atomic.Pointer[conn]

	// endsAt is when the session ends if nobody takes it up, and will is to be
	// published at willAt, as by willBy, if nobody does; zero and nil without. savedDetached:
	// on disk the session has no connection. Guarded by Server.mu.
	endsAt, willAt time.Time
	will           *holdfast.Message
	willBy         *author
	savedDetached  bool

	mu sync.Mutex
	// username is the user whose session it is, who alone may take it up; "" as
	// long as only clients had it that needed no login. Guarded by mu.
	username string
	// expiry is the Session Expiry Interval in seconds (MQTT 5, 3.1.2.11.2).
	// Guarded by mu.
	expiry uint32
	// expiryUnsaved: DISCONNECT has changed it. Guarded by mu.
	expiryUnsaved bool
	subs          map[string]holdfast.Subscription // by filter; guarded by mu
	// subsBytes is the length of all filters in subs. Guarded by mu.
	subsBytes int
	// inbound are packet identifiers of the client: QoS 1 and 2 that are not
	// safe yet, and QoS 2 that wait for PUBREL. Guarded by mu.
	inbound map[uint16]*inbound
	// exactly is how many of them are of QoS 2. Guarded by mu. allExactly is that
	// of all sessions: Server.allExactly.
	exactly    int
	allExactly *atomic.Int64
	// inflight are our packet identifiers that the client has not settled.
	// Guarded by mu.
	inflight map[uint16]*outbound
	// releasedBefore are positions whose PUBREC came on an earlier connection.
	// Guarded by mu.
	releasedBefore map[uint64]bool
}

func (s *Server) newSession(clientID string, durable bool) *session {
	ss := newSession(clientID, durable)
	ss.allExactly = &s.allExactly
	return ss
}

func newSession(clientID string, durable bool) *session {
	return &session{
		clientID: clientID, durable: durable,
		subs:           make(map[string]holdfast.Subscription),
		inbound:        make(map[uint16]*inbound),
		inflight:       make(map[uint16]*outbound),
		releasedBefore: make(map[uint64]bool),
		allExactly:     new(atomic.Int64),
	}
}

func (s *session) attached() bool { return s.conn.Load() != nil }

// stateLocked is the part of the session that a SessionChange saves.
func (s *session) stateLocked() *holdfast.SessionState {
	st := &holdfast.SessionState{ClientID: s.clientID, Expiry: s.expiry, Username: s.username}
	for _, f := range slices.Sorted(maps.Keys(s.subs)) {
		st.Subscriptions = append(st.Subscriptions, s.subs[f])
	}
	return st
}

// setLocked adds or replaces a subscription.
func (s *session) setLocked(sub holdfast.Subscription) (replaces bool) {
	if _, replaces = s.subs[sub.Filter]; !replaces {
		s.subsBytes += len(sub.Filter)
	}
	s.subs[sub.Filter] = sub
	return replaces
}

func (s *session) removeLocked(filter string) (existed bool) {
	if _, existed = s.subs[filter]; existed {
		s.subsBytes -= len(filter)
		delete(s.subs, filter)
	}
	return existed
}

// sharesLen is how many shared subscriptions the session has.
func (s *session) sharesLen() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.subs {
		if isShared(f) {
			n++
		}
	}
	return n
}

// restoreSession brings a stored session back; it has no connection yet. One
// whose time is over ends here.
func (s *Server) restoreSession(st holdfast.SessionState, now time.Time) error {
	life := time.Duration(st.Expiry) * time.Second
	if st.Expiry != holdfast.NeverExpires && st.Away >= life {
		s.opts.Store.Change(&holdfast.SessionChange{ClientID: st.ClientID, Reset: true}, func(error) {})
		return nil
	}
	box, err := s.opts.Store.Outbox(st.ClientID)
	if err != nil {
		return fmt.Errorf("open the queue of session %q: %w", st.ClientID, err)
	}
	ss := s.newSession(st.ClientID, true)
	ss.outbox, ss.expiry, ss.savedDetached, ss.username = box, st.Expiry, st.Detached, st.Username
	if st.Expiry != holdfast.NeverExpires {
		ss.endsAt = now.Add(life - st.Away)
	}
	for _, id := range st.Inbound {
		ss.inbound[id] = &inbound{state: inReceived, qos: 2}
	}
	ss.exactly = len(ss.inbound)
	s.allExactly.Add(int64(ss.exactly))
	for _, pos := range st.Released {
		ss.releasedBefore[pos] = true
	}
	for _, sub := range st.Subscriptions {
		ss.setLocked(sub)
		s.router.subscribe(ss, sub)
	}
	s.sessions[st.ClientID] = ss
	if !ss.endsAt.IsZero() && !st.Detached {
		s.saveDetachedLocked(ss) // so that another crash does not begin anew
	}
	return nil
}

// attach gives c the session of its client identifier and ends whatever other
// connection has it [MQTT-3.1.4-2]. It returns when the other connection has
// left its session behind, its will published. clean asks for a new session;
// that is durable if c.expiry is not 0.
func (s *Server) attach(c *conn, clean bool) (ss *session, present bool, err error) {
	for held := false; ; {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, false, errShutdown
		}
		old := s.sessions[c.clientID]
		if old != nil {
			if err := c.mayTakeUp(old); err != nil {
				s.mu.Unlock()
				return nil, false, err
			}
			if other := old.conn.Load(); other != nil {
				s.mu.Unlock()
				if !held {
					held = true
					if err := c.holdRival(s.rivals.takenOver(c.clientID), other); err != nil {
						return nil, false, err
					}
					continue // it may have gone meanwhile
				}
				other.close(errTakeover) // which a client of MQTT 5 is told [MQTT-3.1.4-3]
				select {
				case <-other.gone:
				case <-c.closed:
					return nil, false, c.reason()
				}
				continue
			}
		}
		switch {
		case old != nil && !clean:
			ss, present = old, true
		default:
			if c.expiry > 0 && (old == nil || !old.durable) && s.durableLocked() >= s.limits.MaxSessions {
				s.mu.Unlock()
				return nil, false, &packet.Error{Code: packet.QuotaExceeded, Text: fmt.Sprintf("limits.max_sessions (%d) is met: raise it, or end sessions that nobody uses by connecting with their client identifier and clean session 1", s.limits.MaxSessions)}
			}
			ss = s.newSession(c.clientID, c.expiry > 0)
			if old != nil {
				ss.replacesDurable = true
				s.router.forget(old)
				old.endInbound()
				if old.will != nil { // the session ends before its delay [MQTT-3.1.3-9]
					s.publishWill(c.clientID, old.will, old.willBy)
				}
			}
			s.sessions[c.clientID] = ss
		}
		ss.bridge.Store(c.bridge)
		ss.conn.Store(c)
		// A will that still waits would speak after its client has come back.
		refused := s.wills.take(c.clientID)
		c.staleWill = ss.returnLocked() || refused
		s.mu.Unlock()
		if refused {
			s.log.Warn("will dropped: it was refused until its client came back", "client_id", c.clientID)
		}
		return ss, present, nil
	}
}

// durableLocked counts the durable sessions. It is asked for a new one only.
func (s *Server) durableLocked() (n int) {
	for _, ss := range s.sessions {
		if ss.durable {
			n++
		}
	}
	return n
}

// detach takes the session from c. What was in flight goes back to the outbox,
// to be sent again on the next connection; a clean session ends here. The
// connection's goroutines no longer use the session. It returns the will if that
// is to be published now.
func (s *Server) detach(c *conn, will *holdfast.Will) *holdfast.Will {
	ss := c.sess
	s.mu.Lock()
	defer s.mu.Unlock()
	ss.conn.Store(nil)
	// A durable session without an outbox was never stored: CONNECT failed on
	// the disk.
	if !ss.durable || ss.outbox == nil {
		s.router.forget(ss)
		ss.endInbound()
		delete(s.sessions, ss.clientID)
		if box, ok := ss.outbox.(*memoryOutbox); ok {
			box.end()
		}
		return will
	}
	ss.outbox.Notify(nil)
	ids := ss.takeInflight()
	if c.held.Msg != nil {
		ids = append(ids, c.held.ID)
	}
	ss.outbox.Release(append(ids, c.withheld.ids...)...)
	return s.leaveLocked(ss, will, c.author())
}

// openOutbox gives the session its queue, before its connection starts and
// after the store knows the session.
func (s *Server) openOutbox(ss *session) error {
	if ss.outbox != nil {
		return nil
	}
	if !ss.durable {
		box := newMemoryOutbox(s.limits.MaxOutboundBytes)
		box.expired = &s.stats.droppedExpired
		ss.outbox = box
		return nil
	}
	box, err := s.opts.Store.Outbox(ss.clientID)
	if err != nil {
		return fmt.Errorf("open the queue of session %q: %w", ss.clientID, err)
	}
	ss.outbox = box
	return nil
}
