package edge

import (
	"fmt"
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
// whatever has brought it: its subscription may be older than a change of the
// configuration.
func (c *conn) mayReceive(name string) bool {
	r := c.rights.Load()
	return r == nil || (*r).Receive(name)
}

// denied is the opposite, counted: the message does not go to the client.
func (c *conn) denied(name string) bool {
	if c.mayReceive(name) {
		return false
	}
	c.srv.stats.droppedDenied.Add(1)
	return true
}

// denied reports whether a new message is not for the session, since its user is
// connected and may not receive it, counted. What of a user that is away is kept,
// and looked at when it comes.
func (s *session) denied(name string) bool {
	c := s.conn.Load()
	if c == nil || c.mayReceive(name) || c.isClosing() {
		return false
	}
	if r := c.rights.Load(); r != nil && *r == (noRights{}) {
		return false // it is as good as away
	}
	return c.denied(name)
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

// review asks again what the client may do, and returns what it might before. The
// error is why it may stay no longer.
func (c *conn) review() (before Rights, err error) {
	c.reviewing.Lock() // or an older answer might come last
	defer c.reviewing.Unlock()
	if r := c.rights.Load(); r != nil {
		before = *r
	}
	rights, err := c.srv.opts.Access.Review(c.login.Load(), before)
	if err != nil {
		c.setRights(noRights{}) // what it has sent already, and its will, are not taken any more
		return before, err
	}
	c.setRights(rights)
	c.withheld.again.Store(true)
	c.signal()
	return before, nil
}

// noRights are those of a client that is about to be disconnected.
type noRights struct{}

func (noRights) Publish(string) bool   { return false }
func (noRights) Receive(string) bool   { return false }
func (noRights) Subscribe(string) bool { return false }

// ReviewAccess is to be called when Access has changed. Clients that it would
// not let in any more are disconnected (MQTT 5: 0x87), as are those with a
// subscription that they may not have any more: what it brings is not for them
// as long as that is so. What the others may do changes at once; nothing else of
// them does. No subscription ends by it and nothing that is queued is lost.
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
		before, err := c.review()
		if err != nil {
			c.close(err)
		} else if ss == nil {
			continue
		} else if filter, ok := c.newlyForbidden(ss, before); ok {
			c.close(&Refusal{packet.NotAuthorized, "it has a subscription that it may not have any more: " + filter})
		}
	}
	s.wakeShares()
}

// newlyForbidden returns a subscription of the session that the client may not
// have any more, and might with the rights that it had before.
func (c *conn) newlyForbidden(ss *session, before Rights) (filter string, ok bool) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for f := range ss.subs {
		if _, topics, _ := topic.ParseShared(f); !c.mayFilter(topics) && (before == nil || before.Subscribe(topics)) {
			return f, true
		}
	}
	return "", false
}

// user is who the client has proved to be; "" for one that may do everything
// without that.
func (c *conn) user() string {
	l := c.login.Load()
	if l == nil || c.rights.Load() == nil {
		return ""
	}
	return l.Username
}

// mayTakeUp refuses a durable session that belongs to another user: a client
// identifier is no proof. It leaves alone whoever is connected with it.
func (c *conn) mayTakeUp(ss *session) error {
	ss.mu.Lock()
	owner := ss.username
	ss.mu.Unlock()
	user := c.user()
	if !ss.durable || owner == "" || user == "" || owner == user {
		return nil
	}
	c.srv.stats.refusedLogins.Add(1)
	return &Refusal{packet.ClientIdentifierNotValid, fmt.Sprintf(
		"user %q may not take up the session %q, which is that of user %q: give the device another client identifier, or end the session by connecting once as %q with clean session 1",
		user, c.clientID, owner, owner)}
}
