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
		if errors.As(err, &perr) && perr.Code == packet.UnsupportedProtocolVersion {
			c.refuse(packet.RefusedVersion, packet.UnsupportedProtocolVersion)
		}
		return err
	}
	if p.Version == packet.V5 {
		c.refuse(packet.RefusedVersion, packet.UnsupportedProtocolVersion)
		return errors.New("the client speaks MQTT 5.0, which this broker does not yet; let it use 3.1.1")
	}
	if err := c.checkClientID(&p); err != nil {
		c.refuse(packet.RefusedIdentifier, packet.ClientIdentifierNotValid)
		return err
	}
	if !c.srv.opts.Access.Connect(p.ClientID, p.Username, p.Password, c.remote) {
		c.refuse(packet.RefusedNotAuthorized, packet.NotAuthorized)
		return fmt.Errorf("access refused to client %q from %s; see [access] in the configuration", p.ClientID, c.remote)
	}
	c.clientID, c.username, c.bridge = p.ClientID, p.Username, p.Bridge
	if p.KeepAlive > 0 {
		// [MQTT-3.1.2-24]
		c.keepAlive = time.Duration(p.KeepAlive) * time.Second * 3 / 2
	}
	will, err := willOf(&p)
	if err != nil {
		return err
	}
	sess, present, err := c.srv.attach(c, p.CleanStart)
	if err != nil {
		c.refuse(packet.RefusedUnavailable, packet.ServerUnavailable)
		return err
	}
	c.sess = sess
	if err := c.makeConnectSafe(sess, present, will); err != nil {
		c.refuse(packet.RefusedUnavailable, packet.ServerUnavailable)
		c.clean = true // the will was not accepted
		if will != nil {
			// It may be on disk all the same, for the next start to publish.
			c.srv.opts.Store.SetWill(c.clientID, nil, func(error) {})
		}
		return fmt.Errorf("store the session: %w", err)
	}
	c.will = will
	c.start(packet.Connack{SessionPresent: present})
	c.srv.log.Info("client connected", "client_id", c.clientID, "remote", c.remote,
		"clean", p.CleanStart, "session_present", present, "keep_alive", p.KeepAlive)
	return nil
}

// checkClientID gives a client without an identifier one [MQTT-3.1.3-6].
func (c *conn) checkClientID(p *packet.Connect) error {
	switch {
	case p.ClientID == "" && !p.CleanStart:
		return errors.New("an empty client identifier with clean session 0 [MQTT-3.1.3-8]")
	case p.ClientID == "":
		p.ClientID = "auto-" + rand.Text()
	case len(p.ClientID) > c.srv.limits.MaxClientIDLength:
		return fmt.Errorf("the client identifier has %d bytes, over limits.max_client_id_length (%d)",
			len(p.ClientID), c.srv.limits.MaxClientIDLength)
	}
	return nil
}

// willOf returns the will of a CONNECT as a message, nil if it has none.
func willOf(p *packet.Connect) (*holdfast.Message, error) {
	if p.Will == nil {
		return nil, nil
	}
	if err := topic.ValidName(p.Will.Topic); err != nil {
		return nil, fmt.Errorf("will topic: %w", err)
	}
	return &holdfast.Message{
		Topic: p.Will.Topic, Payload: p.Will.Payload, QoS: p.Will.QoS, Retain: p.Will.Retain, Origin: p.ClientID,
	}, nil
}

// makeConnectSafe waits until the session and the will are on disk, or nobody
// can promise that. Nothing is written for a clean session without a will that
// follows none.
func (c *conn) makeConnectSafe(s *session, present bool, will *holdfast.Message) error {
	results := make(chan error, 2)
	waits := 0
	store := c.srv.opts.Store
	switch {
	case s.durable && !present:
		waits++
		store.Change(&holdfast.SessionChange{ClientID: c.clientID, Reset: true,
			Save: &holdfast.SessionState{ClientID: c.clientID, Expiry: holdfast.NeverExpires}},
			func(err error) { results <- err })
	case !s.durable && s.replacesDurable:
		waits++
		store.Change(&holdfast.SessionChange{ClientID: c.clientID, Reset: true}, func(err error) { results <- err })
	}
	if will != nil || c.staleWill {
		waits++
		store.SetWill(c.clientID, will, func(err error) { results <- err })
	}
	var err error
	for range waits {
		err = errors.Join(err, <-results)
	}
	if err != nil {
		return err
	}
	return c.srv.openOutbox(s)
}

// refuse answers CONNECT with a return code of the client's protocol version.
func (c *conn) refuse(code byte, v5 packet.ReasonCode) {
	if c.version == packet.V5 {
		code = byte(v5)
	}
	c.send(func(dst []byte) []byte { return appendConnack(dst, c.version, packet.Connack{Code: code}) })
}

func appendConnack(dst []byte, v packet.Version, p packet.Connack) []byte {
	out, err := p.Append(dst, v)
	if err != nil {
		return dst // a CONNACK without properties always fits
	}
	return out
}
