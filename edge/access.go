package edge

import (
	"net"
	"net/netip"

	"holdfast/edge/packet"
	"holdfast/edge/topic"
)

// Login is who a client says that it is.
type Login struct {
	ClientID, Username string
	// Password is nil when Access.Review asks: nobody keeps it.
	Password []byte
	Remote   string // the address of the client
	// Certified: Username is the common name of a certificate that was verified.
	Certified bool
}

// Anonymous says whom a broker without users lets in.
type Anonymous string

// The values of access.anonymous.
const (
	AnonymousNever    Anonymous = "never"
	AnonymousLoopback Anonymous = "loopback"
	AnonymousAlways   Anonymous = "always"
)

// remoteUnix is the address of a client on a unix socket.
const remoteUnix = "unix socket"

// lets a client in by where it comes from.
func (a Anonymous) lets(remote string) bool {
	switch a {
	case AnonymousAlways:
		return true
	case AnonymousLoopback:
		return remote == remoteUnix || addressOf(remote).IsLoopback()
	}
	return false
}

// Connect lets a client in by where it comes from, or with a certificate; name
// and password are not looked at. It may do everything.
func (a Anonymous) Connect(l *Login, _ <-chan struct{}) (Rights, error) { return a.Review(l, nil) }

// Review is the same again.
func (a Anonymous) Review(l *Login, _ Rights) (Rights, error) {
	if l.Certified || a.lets(l.Remote) {
		return nil, nil
	}
	return nil, &Refusal{Code: packet.NotAuthorized, Reason: "clients without a password may not connect from there; see access.anonymous"}
}

// addressOf is the IP address in a remote address; the zero one if it has none.
func addressOf(remote string) netip.Addr {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.ParseAddr(host)
	return addr.Unmap().WithZone("")
}

// Refusal is why a client may not connect.
type Refusal struct {
	// Code is all that the client is told: who guesses is not helped.
	Code packet.ReasonCode
	// Reason is for the log, with what to do.
	Reason string
}

func (r *Refusal) Error() string { return "access refused: " + r.Reason }

// Unwrap is what the client is told.
func (r *Refusal) Unwrap() error { return &packet.Error{Code: r.Code} }

// mayPublish reports whether the client may publish to a topic name.
func (c *conn) mayPublish(name string) bool {
	if isSys(name) {
		return false
	}
	r := c.rights.Load()
	return r == nil || (*r).Publish(name)
}

// mayReceive reports whether the client may be sent a message of a topic name,
// whatever has brought it: a session may be another user's, or older than a
// change of the configuration.
func (c *conn) mayReceive(name string) bool {
	r := c.rights.Load()
	if r == nil || (*r).Receive(name) {
		return true
	}
	c.srv.stats.droppedDenied.Add(1)
	return false
}

// mayFilter reports whether the client may subscribe to a filter.
func (c *conn) mayFilter(filter string) bool {
	r := c.rights.Load()
	return r == nil || (*r).Subscribe(filter)
}

func (c *conn) setRights(r Rights) {
	if r == nil {
		c.rights.Store(nil)
		return
	}
	c.rights.Store(&r)
}

// review asks again what the client may do. The error is why it may stay no
// longer.
func (c *conn) review() error {
	var was Rights
	if r := c.rights.Load(); r != nil {
		was = *r
	}
	rights, err := c.srv.opts.Access.Review(c.login.Load(), was)
	if err == nil {
		c.setRights(rights)
	}
	return err
}

// ReviewAccess is to be called when Access has changed. Clients that it would
// not let in any more are disconnected (MQTT 5: 0x87), as are those with a
// subscription that they may not have any more, which they lose when they come
// back. What the others may do changes at once; nothing else of them does.
func (s *Server) ReviewAccess() {
	s.accessChanges.Add(1)
	s.mu.Lock()
	conns := make(map[*conn]*session, len(s.conns))
	for c := range s.conns {
		conns[c] = nil
	}
	for _, ss := range s.sessions {
		if c := ss.conn.Load(); c != nil {
			conns[c] = ss
		}
	}
	s.mu.Unlock()
	for c, ss := range conns {
		if c.login.Load() == nil {
			continue // logIn asks once more
		}
		if err := c.review(); err != nil {
			c.close(err)
		} else if ss == nil {
			continue
		} else if filter, ok := c.forbidden(ss); ok {
			c.close(&Refusal{packet.NotAuthorized, "it has a subscription that it may not have any more: " + filter})
		}
	}
}

// forbidden returns a subscription of the session that the client may not have.
func (c *conn) forbidden(ss *session) (filter string, ok bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for f := range ss.subs {
		if _, topics, _ := topic.ParseShared(f); !c.mayFilter(topics) {
			return f, true
		}
	}
	return "", false
}

// dropForbidden ends the subscriptions of a session that is taken up again which
// the client may not have: they are another user's, or from before a change.
func (c *conn) dropForbidden(ss *session) (dropped bool) {
	for {
		filter, ok := c.forbidden(ss)
		if !ok {
			return dropped
		}
		c.srv.log.Warn("a subscription of the session is denied now", "client_id", c.clientID, "username", c.username, "filter", filter)
		ss.mu.Lock()
		ss.removeLocked(filter)
		ss.mu.Unlock()
		c.srv.router.unsubscribe(ss, filter)
		dropped = true
	}
}
