package edge

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"holdfast"
	"holdfast/edge/packet"
	"holdfast/edge/topic"
)

// handleConnect answers a CONNECT. CONNACK is sent when what the session and
// the will need is on disk (P1); until then only this connection waits.
func (c *conn) handleConnect(body []byte) error {
	var p packet.Connect
	err := p.Decode(body)
	c.version = p.Version
	if err != nil {
		var perr *packet.Error
		if errors.As(err, &perr) && (p.Version == packet.V5 || perr.Code == packet.UnsupportedProtocolVersion) {
			c.refuse(perr)
		}
		return err
	}
	assigned, err := c.checkConnect(&p)
	if err != nil {
		return err
	}
	c.clientID, c.username, c.bridge = p.ClientID, p.Username, p.Bridge
	c.takeLimits(&p)
	will := willOf(&p)
	sess, present, err := c.srv.attach(c, p.CleanStart)
	if err != nil {
		c.refuse(err)
		return err
	}
	c.sess = sess
	if err := c.makeConnectSafe(sess, present, will); err != nil {
		c.refuse(&packet.Error{Code: packet.ServerUnavailable, Text: "the session cannot be stored"})
		c.clean = true // the will was not accepted
		if will != nil {
			// It may be on disk all the same, for the next start to publish.
			c.srv.opts.Store.SetWill(c.clientID, nil, func(error) {})
		}
		return fmt.Errorf("store the session: %w", err)
	}
	c.will = will
	c.start(packet.Connack{SessionPresent: present, Properties: c.connackProperties(&p, assigned)})
	c.srv.log.Info("client connected", "client_id", c.clientID, "remote", c.remote, "version", c.version.String(),
		"clean", p.CleanStart, "session_present", present, "session_expiry", c.expiry, "keep_alive", c.keepAlive*2/3)
	return nil
}

// checkConnect refuses a CONNECT that cannot be accepted, and gives a client
// without an identifier one [MQTT-3.1.3-6]; assigned tells that it did.
func (c *conn) checkConnect(p *packet.Connect) (assigned bool, err error) {
	refuse := func(code packet.ReasonCode, format string, args ...any) error {
		err := &packet.Error{Code: code, Text: fmt.Sprintf(format, args...)}
		c.refuse(err)
		return err
	}
	if p.Properties != nil && p.Properties.AuthenticationMethod != "" {
		// [MQTT-4.12.0-1]
		return false, refuse(packet.BadAuthenticationMethod, "no enhanced authentication is known here; log in with user name and password")
	}
	switch {
	case p.ClientID == "" && !p.CleanStart && p.Version != packet.V5:
		return false, refuse(packet.ClientIdentifierNotValid, "an empty client identifier with clean session 0 [MQTT-3.1.3-8]")
	case p.ClientID == "" && p.Version == packet.V31:
		return false, refuse(packet.ClientIdentifierNotValid, "an empty client identifier (MQTT 3.1, CONNECT)")
	case p.ClientID == "":
		p.ClientID, assigned = "auto-"+rand.Text(), true
	case len(p.ClientID) > c.srv.limits.MaxClientIDLength:
		return false, refuse(packet.ClientIdentifierNotValid, "the client identifier has %d bytes, over limits.max_client_id_length (%d)",
			len(p.ClientID), c.srv.limits.MaxClientIDLength)
	}
	if err := c.logIn(p); err != nil {
		c.refuse(err)
		return false, fmt.Errorf("client %q: %w", p.ClientID, err)
	}
	if p.Will != nil {
		if err := topic.ValidName(p.Will.Topic); err != nil {
			return false, c.tell(&packet.Error{Code: packet.TopicNameInvalid, Text: "will topic: " + err.Error()})
		}
		if err := c.checkLevels(p.Will.Topic); err != nil {
			return false, c.tell(err)
		}
		if !c.mayPublish(p.Will.Topic) {
			return false, refuse(packet.NotAuthorized, "the client may not publish to the topic of its will")
		}
	}
	return assigned, nil
}

// logIn asks whether the client may connect.
func (c *conn) logIn(p *packet.Connect) error {
	l := Login{ClientID: p.ClientID, Username: p.Username, Password: p.Password, Remote: c.remote}
	if name, ok := certified(c.nc); ok {
		l.Username, l.Certified = name, true // who it is was proven before MQTT began
		p.Username = name
	}
	changes := c.srv.accessChanges.Load()
	rights, err := c.srv.opts.Access.Connect(&l, c.closed)
	if err != nil {
		if c.isClosing() {
			return c.reason()
		}
		c.srv.stats.refusedLogins.Add(1)
		return err
	}
	l.Password = nil
	c.setRights(rights)
	c.login.Store(&l)
	if c.srv.accessChanges.Load() != changes {
		_, err = c.review() // ReviewAccess has not seen this one
		return err
	}
	return nil
}

// tell answers a CONNECT that is refused in a way that MQTT 3.x has no return
// code for: the connection is closed without a word then.
func (c *conn) tell(err error) error {
	if c.version == packet.V5 {
		c.refuse(err)
	}
	return err
}

// takeLimits takes over what the client asks for: keep alive, session expiry
// and, in MQTT 5, the limits of what it receives.
func (c *conn) takeLimits(p *packet.Connect) {
	keepAlive := time.Duration(p.KeepAlive) * time.Second
	if most := c.srv.limits.MaxKeepAlive.Truncate(time.Second); p.Version == packet.V5 && most > 0 && (keepAlive == 0 || keepAlive > most) {
		keepAlive = most // [MQTT-3.2.2-21]
	}
	c.keepAlive = keepAlive * 3 / 2 // [MQTT-3.1.2-22]
	c.window = c.srv.limits.MaxInflight
	if !p.CleanStart {
		c.expiry = holdfast.NeverExpires
	}
	if p.Version != packet.V5 {
		return
	}
	c.expiry = 0
	if a := p.Properties; a != nil {
		c.expiry = a.SessionExpiry
		if a.ReceiveMaximum > 0 {
			c.window = min(c.window, int(a.ReceiveMaximum)) // [MQTT-3.3.4-9]
		}
		c.maxPacket = int(min(a.MaximumPacketSize, packet.MaxRemaining+5))
		c.aliases = newToldAliases(min(a.TopicAliasMaximum, maxAliases))
	}
}

// connackRoom is more than the bytes of a CONNACK without the id of the gateway.
const connackRoom = 128

// connackProperties says what a client of MQTT 5 has to know of this broker
// (MQTT 5, 3.2.2.3). What is not said has its default there.
func (c *conn) connackProperties(p *packet.Connect, assigned bool) *packet.Properties {
	if c.version != packet.V5 {
		return nil
	}
	out := &packet.Properties{
		ReceiveMaximum:    uint16(c.srv.limits.ReceiveMaximum),
		MaximumPacketSize: uint32(c.srv.limits.MaxPacketSize),
		TopicAliasMaximum: maxAliases,
	}
	if id := c.srv.opts.GatewayID; id != "" && c.takes(connackRoom+len(id)) { // [MQTT-3.2.2-20]
		out.Message.User = []holdfast.UserProperty{{Name: holdfast.PropertyGateway, Value: id}}
	}
	if assigned {
		out.AssignedClientID = p.ClientID // [MQTT-3.2.2-16]
	}
	if seconds := uint16(c.keepAlive * 2 / 3 / time.Second); seconds != p.KeepAlive {
		out.ServerKeepAlive, out.HasServerKeepAlive = seconds, true
	}
	return out
}

// willOf returns the will of a CONNECT, nil if it has none.
func willOf(p *packet.Connect) *holdfast.Will {
	if p.Will == nil {
		return nil
	}
	w := &holdfast.Will{Msg: &holdfast.Message{
		Topic: p.Will.Topic, Payload: p.Will.Payload, QoS: p.Will.QoS, Retain: p.Will.Retain, Origin: p.ClientID,
		Properties: p.Will.Properties.ForMessage(),
	}}
	if p.Will.Properties != nil {
		w.Delay = p.Will.Properties.WillDelay
	}
	return w
}

// makeConnectSafe waits until the session and the will are on disk, or nobody
// can promise that. Nothing is written for a clean session without a will that
// follows none, nor for a session that is on disk as it is to be.
func (c *conn) makeConnectSafe(s *session, present bool, will *holdfast.Will) error {
	results := make(chan error, 2)
	waits := 0
	store := c.srv.opts.Store
	if change := c.sessionChange(s, present); change != nil {
		waits++
		store.Change(change, func(err error) { results <- err })
	}
	if will != nil || c.staleWill {
		waits++
		store.SetWill(c.clientID, will, func(err error) { results <- err })
	}
	var err error
	for range waits {
		select {
		case result := <-results:
			err = errors.Join(err, result)
		case <-c.closed: // whoever closes it waits for us, not for the disk
			return c.reason()
		}
	}
	if err != nil {
		return err
	}
	return c.srv.openOutbox(s)
}

// sessionChange is what of the session is to be stored before CONNACK; nil if
// nothing is.
func (c *conn) sessionChange(s *session, present bool) *holdfast.SessionChange {
	c.srv.mu.Lock()
	away := s.savedDetached
	s.savedDetached = false
	c.srv.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	same := s.expiry == c.expiry
	s.expiry = c.expiry
	if user := c.user(); s.username == "" && user != "" {
		s.username, same = user, false
	}
	switch {
	case s.durable && !present:
		return &holdfast.SessionChange{ClientID: c.clientID, Reset: true, Save: s.stateLocked()}
	case s.durable && (away || !same):
		return &holdfast.SessionChange{ClientID: c.clientID, Save: s.stateLocked()}
	case s.replacesDurable:
		return &holdfast.SessionChange{ClientID: c.clientID, Reset: true}
	}
	return nil
}

// refuse answers CONNECT with what err says: a reason code with its words, or
// the return code of MQTT 3.x.
func (c *conn) refuse(err error) {
	var told *packet.Error
	if !errors.As(err, &told) || told.Code == packet.ServerShuttingDown {
		told = &packet.Error{Code: packet.ServerUnavailable}
	}
	p := packet.Connack{Code: packet.ReturnCode(told.Code)}
	if c.version == packet.V5 {
		p = packet.Connack{Code: byte(told.Code), Properties: &packet.Properties{ReasonString: told.Text}}
	}
	c.send(func(dst []byte) []byte { return c.appendConnack(dst, p) })
}

// appendConnack leaves out a reason string that the client has no room for
// [MQTT-3.2.2-19].
func (c *conn) appendConnack(dst []byte, p packet.Connack) []byte {
	out, err := p.Append(dst, c.version)
	if err == nil && (c.takes(len(out)-len(dst)) || p.Code == 0) {
		return out
	}
	p.Properties = nil
	if out, err = p.Append(dst, c.version); err != nil {
		return dst // a CONNACK without properties always fits
	}
	return out
}
