package edge

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"holdfast"
)

const maxPacketID = 65535

// session is what the broker knows of one client identifier (MQTT 3.1.1, 4.1).
// Its two packet identifier spaces are apart: inbound ids are the client's,
// outbound ids are ours, and the same number in both means nothing.
type session struct {
	clientID string
	durable  bool // CleanSession 0: it outlives connections and, on disk, the process
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

	mu   sync.Mutex
	subs map[string]holdfast.Subscription // by filter; guarded by mu
	// subsBytes is the length of all filters in subs. Guarded by mu.
	subsBytes int
	// inbound are packet identifiers of the client: QoS 1 and 2 that are not
	// safe yet, and QoS 2 that wait for PUBREL. Guarded by mu.
	inbound map[uint16]*inbound
	// inflight are our packet identifiers that the client has not settled.
	// Guarded by mu.
	inflight map[uint16]*outbound
	// releasedBefore are positions whose PUBREC came on an earlier connection.
	// Guarded by mu.
	releasedBefore map[uint64]bool
}

func newSession(clientID string, durable bool) *session {
	return &session{
		clientID: clientID, durable: durable,
		subs:           make(map[string]holdfast.Subscription),
		inbound:        make(map[uint16]*inbound),
		inflight:       make(map[uint16]*outbound),
		releasedBefore: make(map[uint64]bool),
	}
}

func (s *session) attached() bool { return s.conn.Load() != nil }

// stateLocked is the part of the session that a SessionChange saves.
func (s *session) stateLocked() *holdfast.SessionState {
	st := &holdfast.SessionState{ClientID: s.clientID, Expiry: holdfast.NeverExpires}
	for _, f := range slices.Sorted(maps.Keys(s.subs)) {
		st.Subscriptions = append(st.Subscriptions, s.subs[f])
	}
	return st
}

// setLocked adds or replaces a subscription.
func (s *session) setLocked(sub holdfast.Subscription) {
	if _, replaces := s.subs[sub.Filter]; !replaces {
		s.subsBytes += len(sub.Filter)
	}
	s.subs[sub.Filter] = sub
}

func (s *session) removeLocked(filter string) {
	if _, ok := s.subs[filter]; ok {
		s.subsBytes -= len(filter)
		delete(s.subs, filter)
	}
}

// restoreSession brings a stored session back; it has no connection yet.
func (s *Server) restoreSession(st holdfast.SessionState) error {
	box, err := s.opts.Store.Outbox(st.ClientID)
	if err != nil {
		return fmt.Errorf("open the queue of session %q: %w", st.ClientID, err)
	}
	ss := newSession(st.ClientID, true)
	ss.outbox = box
	for _, id := range st.Inbound {
		ss.inbound[id] = &inbound{state: inReceived, qos: 2}
	}
	for _, pos := range st.Released {
		ss.releasedBefore[pos] = true
	}
	for _, sub := range st.Subscriptions {
		ss.setLocked(sub)
		s.router.subscribe(ss, sub)
	}
	s.sessions[st.ClientID] = ss
	return nil
}

// attach gives c the session of its client identifier and ends whatever other
// connection has it [MQTT-3.1.4-2]. It returns when the other connection has
// left its session behind, its will published.
func (s *Server) attach(c *conn, clean bool) (ss *session, present bool, err error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, false, errShutdown
		}
		old := s.sessions[c.clientID]
		if old != nil {
			if other := old.conn.Load(); other != nil {
				s.mu.Unlock()
				other.abort(errTakeover)
				<-other.gone
				continue
			}
		}
		switch {
		case old != nil && !clean:
			ss, present = old, true
		default:
			if !clean && s.durableLocked() >= s.limits.MaxSessions {
				s.mu.Unlock()
				return nil, false, fmt.Errorf("limits.max_sessions (%d) is met: raise it, or end sessions that nobody uses by connecting with their client identifier and clean session 1", s.limits.MaxSessions)
			}
			ss = newSession(c.clientID, !clean)
			if old != nil {
				ss.replacesDurable = true
				s.router.forget(old)
			}
			s.sessions[c.clientID] = ss
		}
		ss.bridge.Store(c.bridge)
		ss.conn.Store(c)
		// A will that still waits would speak after its client has come back.
		c.staleWill = s.wills.take(c.clientID)
		s.mu.Unlock()
		if c.staleWill {
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
// connection's goroutines no longer use the session.
func (s *Server) detach(c *conn) {
	ss := c.sess
	s.mu.Lock()
	defer s.mu.Unlock()
	ss.conn.Store(nil)
	if !ss.durable {
		s.router.forget(ss)
		delete(s.sessions, ss.clientID)
		return
	}
	if ss.outbox == nil {
		// The session was never stored: CONNECT failed on the disk.
		s.router.forget(ss)
		delete(s.sessions, ss.clientID)
		return
	}
	ss.outbox.Notify(nil)
	ids := ss.takeInflight()
	if c.held.Msg != nil {
		ids = append(ids, c.held.ID)
	}
	ss.outbox.Release(ids...)
}

// openOutbox gives the session its queue, before its connection starts and
// after the store knows the session.
func (s *Server) openOutbox(ss *session) error {
	if ss.outbox != nil {
		return nil
	}
	if !ss.durable {
		ss.outbox = newMemoryOutbox(s.limits.MaxOutboundBytes)
		return nil
	}
	box, err := s.opts.Store.Outbox(ss.clientID)
	if err != nil {
		return fmt.Errorf("open the queue of session %q: %w", ss.clientID, err)
	}
	ss.outbox = box
	return nil
}
