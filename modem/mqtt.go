package modem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"holdfast"
	"holdfast/modem/at"
)

// mqttCommands are the AT commands of one firmware's own MQTT client: a dialect.
// There is one for each link. All of them acknowledge what comes down before the
// host has seen it.
type mqttCommands interface {
	name() string
	// window is the most publishes that may wait for their acknowledgement.
	window() int
	// check says what in a login this client cannot carry.
	check(l Login) error
	// carriable says why a message cannot go this way; nil if it can.
	carriable(msg *holdfast.Message) error
	// prepare brings the client from whatever state to a closed and configured one.
	prepare(ctx context.Context, l Login) error
	// setWill gives the client a will that willProblem has nothing against; the error
	// is a rejection if the firmware does not take it. It is called after prepare.
	setWill(ctx context.Context, w *holdfast.Message) error
	// connect opens the connection and logs in.
	connect(ctx context.Context, s *Session) error
	// hand gives one publish to the module, on the goroutine of the session. It
	// must see to it that the publish is settled or the session fails.
	hand(s *Session, p *publish)
	// subscribe waits for the result of a subscription.
	subscribe(ctx context.Context, s *Session, id uint16, filter string, qos byte) error
	// echo asks the broker for a sign of life, and returns nil when it has come;
	// an error that wraps errNoEcho if the firmware cannot do that.
	echo(ctx context.Context, s *Session, id uint16) error
	// leave disconnects and closes, as far as ctx lets it.
	leave(ctx context.Context)
	// urc takes a line that is about this client; s is nil without a session, one
	// that has ended takes messages only. It runs on the dispatch goroutine.
	urc(s *Session, l at.Line) bool
}

// connectOnce makes one attempt: prepare, open, log in.
func (m *Modem) connectOnce(ctx context.Context, lk *link, commands mqttCommands, l Login, receive func(*holdfast.Message, bool, func())) (*Session, error) {
	if err := commands.prepare(ctx, l); err != nil {
		return nil, err
	}
	willed, err := m.setWill(ctx, commands, l.Will)
	if err != nil {
		return nil, err
	}
	s := newSession(m, lk.e, commands, l, receive)
	s.willed = willed
	m.mu.Lock()
	// The life may have ended since waitUp; then nobody would tell s.
	gone := m.link != lk || !m.up || lk.mqtt() != commands
	if !gone {
		m.session = s
		s.early = m.claimLocked(l)
	}
	m.mu.Unlock()
	if gone {
		s.cancel()
		s.giveUp()
		return nil, errRebooted
	}
	s.start()
	err = s.mqtt.connect(ctx, s)
	if err == nil {
		err = m.connected(s)
	}
	if err == nil {
		s.note()
		s.wg.Go(s.testLink)
		return s, nil
	}
	s.fail(err)
	if !errors.Is(err, errRebooted) {
		// Whatever state this leaves behind, the module must not stay
		// connected: it would acknowledge messages that nobody takes.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.o.Timing.Close)
		defer cancel()
		commands.leave(end)
	}
	s.stop()
	return nil, err
}

// setWill reports whether the client has a will now. One that it cannot carry is left
// out: a gateway without a will is better than none.
func (m *Modem) setWill(ctx context.Context, commands mqttCommands, w *holdfast.Message) (bool, error) {
	if w == nil {
		return false, nil
	}
	if why := willProblem(w); why != "" {
		m.log.Warn("connecting without a will, which the module cannot carry", "reason", why)
		return false, nil
	}
	err := commands.setWill(ctx, w)
	if at.IsRejection(err) {
		m.log.Warn("connecting without a will, which the module does not take", "error", err)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("giving the module a will: %w", err)
	}
	return true, nil
}

func willProblem(w *holdfast.Message) string {
	for _, s := range []string{w.Topic, string(w.Payload)} {
		if why := unquotable(s); why != "" {
			return "it has " + why
		}
		if len(s) > maxWill {
			return "it is longer than 255 bytes"
		}
	}
	if len(w.Payload) == 0 {
		return "it is empty"
	}
	return ""
}

// checkLogin has the bounds that all of them have.
func checkLogin(l Login, host, clientID, username, password int) error {
	for _, f := range []struct {
		what, s string
		max     int
	}{
		{"host name of the url", l.Host, host},
		{"client_id", l.ClientID, clientID},
		{"username", l.Username, username},
		{"password", l.Password, password},
	} {
		if len(f.s) > f.max {
			return fmt.Errorf("the %s has %d bytes, and the module takes %d at most; "+
				"use a shorter one, or mode = \"socket\"", f.what, len(f.s), f.max)
		}
		if why := unquotable(f.s); why != "" {
			return fmt.Errorf("the %s has %s, which an AT command cannot carry; choose another one", f.what, why)
		}
	}
	switch {
	case l.Host == "":
		return errors.New("the url has no host name")
	case l.Port < 1 || l.Port > 65535:
		return fmt.Errorf("the url has the port %d; a port is 1 to 65535", l.Port)
	case l.ClientID == "":
		return errors.New("the client_id is empty; the module would log in with one of its own")
	case l.KeepAlive < 0 || l.KeepAlive > time.Hour:
		return fmt.Errorf("the keepalive is %v; the module takes up to one hour", l.KeepAlive)
	}
	return nil
}

// keepAliveSeconds is at least one, and a minute by default.
func keepAliveSeconds(l Login) int {
	if l.KeepAlive == 0 {
		return 60
	}
	return int((l.KeepAlive + time.Second - 1) / time.Second)
}

// checkMessage has the bounds of dialects that count the bytes of a payload.
func checkMessage(msg *holdfast.Message, topic, payload int) error {
	switch {
	case msg.Topic == "":
		return fmt.Errorf("it has no topic: %w", holdfast.ErrRefused)
	case len(msg.Topic) > topic:
		return fmt.Errorf("its topic has %d bytes, and this module takes %d: %w", len(msg.Topic), topic, holdfast.ErrTooLarge)
	case len(msg.Payload) > payload:
		return fmt.Errorf("its payload has %d bytes, and this module takes %d: %w", len(msg.Payload), payload, holdfast.ErrTooLarge)
	case msg.QoS > 2:
		return fmt.Errorf("its QoS is %d: %w", msg.QoS, holdfast.ErrRefused)
	}
	if why := unquotable(msg.Topic); why != "" {
		return fmt.Errorf("its topic has %s, which an AT command cannot carry: %w", why, holdfast.ErrRefused)
	}
	return nil
}

// takeMessage puts a message from the broker into the session's inbox. s may be
// nil.
func (m *Modem) takeMessage(s *Session, msg *holdfast.Message) {
	msg.Received = time.Now()
	if s != nil {
		s.note()
	}
	m.meter.delivered(6 + len(msg.Topic) + len(msg.Payload))
	taken := s != nil && s.take(msg)
	if !taken && (s == nil || s.Err() != nil) {
		taken = m.keep(msg)
	}
	m.learn(func(st *Status) {
		st.Counters.PayloadIn += uint64(len(msg.Topic) + len(msg.Payload))
		if taken {
			st.Counters.ReceivedMsgs++
		} else {
			st.Counters.Discarded++
		}
	})
	if !taken {
		m.log.Warn("message from the broker discarded: nobody takes it", "bytes", len(msg.Payload))
	}
}

func (m *Modem) unreadable(l at.Line) {
	m.log.Warn("message from the broker cannot be read", "bytes", len(l.Text), "cut", l.Cut)
	m.learn(func(st *Status) { st.Counters.Unreadable++ })
}

// bit is how AT commands say a boolean.
func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// isLine matches the result of a command: its name, and the first arguments.
func isLine(name string, args ...string) func(at.Line) bool {
	return func(l at.Line) bool {
		if at.Name(l.Text) != name {
			return false
		}
		a := at.Args(l.Text)
		for i, want := range args {
			if i >= len(a) || strings.TrimSpace(a[i]) != want {
				return false
			}
		}
		return true
	}
}
