package modem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"holdfast"
	"holdfast/modem/at"
)

// Login is what a connection is made with.
type Login struct {
	Host string // at most 127 bytes
	Port int
	// How long they may be is the dialect's: with ecmt the ClientID has at most
	// 48 bytes, Username 48, Password 128, of which older firmwares take 96.
	ClientID, Username, Password string
	// KeepAlive is 60 s if zero; at most an hour. The firmware notices a dead
	// connection only after several times as long.
	KeepAlive    time.Duration
	CleanSession bool
	// Will has at most 255 bytes of topic and of payload, without quotation
	// marks; one that does not fit, or that the dialect has no command for, is
	// left out with a warning, since a gateway without a will is better than none.
	Will *holdfast.Message
}

var (
	// errSilentOpen: OPEN was answered with OK and nothing more. The firmware
	// does that in every state but the closed one.
	errSilentOpen = errors.New("the module said nothing about the connection that it was to open; " +
		"its client is stuck: a running gateway resets it by itself, or switch it off and on")
	// errSelfConnected: the firmware was still repairing an old connection.
	errSelfConnected = errors.New("the module has repaired an old connection by itself")
	errNoMQTT        = errors.New("the module has no MQTT commands that are known here; set mode = \"socket\"")
	errLostOnConnect = errors.New("the connection was lost during the login")
)

// Connect waits until the modem is ready, and makes a connection. It gives up
// when ctx ends. Its error says what it means and what to try; one that wraps a
// *RefusedError is the broker's own. There is one connection at a time: the one
// before must have ended or been closed.
//
// receive is called for each message from the broker, one at a time, in order,
// perhaps before Connect returns. It may block for a while, but 4,096 messages that
// wait, of 1 MiB in all, are the most that is kept. Its ack is nil: see Session.
func (m *Modem) Connect(ctx context.Context, l Login, receive func(msg *holdfast.Message, again bool, ack func())) (*Session, error) {
	select {
	case <-m.connecting:
		defer func() { m.connecting <- struct{}{} }()
	case <-ctx.Done():
		return nil, fmt.Errorf("modem %s is busy with another connection: %w", m.o.Name, ctx.Err())
	}
	m.mu.Lock()
	busy := m.session != nil && m.session.Err() == nil
	m.mu.Unlock()
	if busy {
		return nil, fmt.Errorf("modem %s has a connection already, and can have one only; give each upstream its own modem", m.o.Name)
	}
	lk, err := m.waitUp(ctx)
	if err != nil {
		return nil, err
	}
	commands := lk.mqtt()
	if commands == nil {
		return nil, fmt.Errorf("modem %s: %w", m.o.Name, errNoMQTT)
	}
	if err := commands.check(l); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		begun := time.Now()
		s, err := m.connectOnce(ctx, lk, commands, l, receive)
		if err == nil {
			return s, nil
		}
		again := errors.Is(err, errSilentOpen) || errors.Is(err, errSelfConnected)
		if try < 2 && again && ctx.Err() == nil {
			m.log.Debug("opening again", "error", err)
			continue
		}
		m.failedConnect(lk, err, time.Since(begun))
		return nil, fmt.Errorf("modem %s: %w", m.o.Name, err)
	}
}

// What a failed connection counts against the module, and how much is enough for the
// first reset: 3 that took their time, or 12 that failed soon. A broker that is down
// refuses soon, over a network that carries; a data connection that is dead runs into
// time-outs, but not with every firmware.
const (
	slowFailure   = 4
	soonFailure   = 1
	enoughFailure = 3 * slowFailure
	soon          = 10 * time.Second
)

// failedConnect counts what speaks against the module, and asks for a reset when it
// is enough, and again after twice as much each time. A refused login speaks for the
// module.
func (m *Modem) failedConnect(lk *link, err error, took time.Duration) {
	if m.blame(err, took) {
		m.endLink(lk, fmt.Errorf("%w: %w", errStuck, err))
	}
}

// blame reports whether it is enough.
func (m *Modem) blame(err error, took time.Duration) bool {
	var refused *RefusedError
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case errors.As(err, &refused):
		m.status.Counters.Refused++
		m.proved = true
		m.wedges, m.opens = 0, 0
		return false
	case errors.Is(err, errRebooted), errors.Is(err, holdfast.ErrClosed):
		return false
	case errors.Is(err, errSilentOpen), errors.Is(err, errStuck):
		m.wedges++
		hurried := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		if m.wedges < 2 && (errors.Is(err, errStuck) || hurried) {
			return false
		}
		m.wedges = 0
		return true
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false // the caller was in a hurry
	}
	if m.opens == 0 {
		m.enough = enoughFailure
	}
	if took < soon && !at.IsRejection(err) { // a rejection is the module's own
		m.opens += soonFailure
	} else {
		m.opens += slowFailure
	}
	if m.opens < m.enough {
		return false
	}
	m.enough *= 2
	return true
}

// connected makes s the connection of the modem, unless it has ended already.
func (m *Modem) connected(s *Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := s.Err(); err != nil {
		return err
	}
	s.live = true
	m.meter.opened()
	m.meter.sent(18 + len(s.login.ClientID) + len(s.login.Username) + len(s.login.Password)) // CONNECT
	m.meter.received(4)                                                                      // CONNACK
	m.proved = true
	m.wedges, m.opens = 0, 0
	m.status.Counters.Connects++
	if s.login.CleanSession {
		m.ids.forget()
	}
	m.setStateLocked(StateConnected)
	return nil
}
