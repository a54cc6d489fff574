package modem

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"holdfast"
	"holdfast/modem/at"
)

// ECMT is the MQTT client of Eigencomm firmware. Its only connection has the
// number 0, every refused command is +CME ERROR: 3, whatever the reason, and
// what it reports of a login is not what its manual says: see loginResult.

// ecmtConnect makes one attempt: clean, configure, open, log in.
func (m *Modem) ecmtConnect(ctx context.Context, lk *link, l Login, receive func(*holdfast.Message, bool, func())) (*Session, error) {
	if err := m.ecmtClean(ctx, lk.e); err != nil {
		return nil, err
	}
	if err := m.ecmtConfigure(ctx, lk.e, l); err != nil {
		return nil, err
	}
	s := newSession(m, lk.e, l, receive)
	m.mu.Lock()
	// The life may have ended since waitUp; then nobody would tell s.
	gone := m.link != lk || !m.up
	if !gone {
		m.session = s
	}
	m.mu.Unlock()
	if gone {
		s.cancel()
		s.giveUp()
		return nil, errRebooted
	}
	s.start()
	err := s.ecmtOpen(ctx)
	if err == nil {
		err = s.ecmtLogin(ctx)
	}
	if err == nil {
		err = m.connected(s)
	}
	if err == nil {
		return s, nil
	}
	s.fail(err)
	s.stop()
	if !errors.Is(err, errRebooted) {
		// Whatever state this leaves behind, the module must not stay
		// connected: it would acknowledge messages that nobody takes.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.o.Timing.Close)
		defer cancel()
		m.ecmtLeave(end, lk.e)
	}
	return nil, err
}

// ecmtClean brings the module's client to its closed state, whatever it was
// in. In the state "connecting" it takes neither DISC nor CLOSE, and OPEN and
// CONN are answered with an OK that means nothing: the firmware is repairing a
// connection by itself then, and either comes through or stays there for good.
func (m *Modem) ecmtClean(ctx context.Context, e *at.Engine) error {
	end := time.Now().Add(m.o.Timing.SelfRepair)
	for {
		state, err := m.ecmtState(ctx, e)
		if err != nil {
			return err
		}
		if state != ecmtConnecting {
			if ok, err := m.ecmtStop(ctx, e); ok || err != nil {
				return err
			}
			if state != ecmtConnected {
				return nil // a fresh module refuses DISC, for there is nothing to end
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: it neither connects nor lets go (state %d)", errStuck, state)
		}
		if !sleep(ctx, m.o.Timing.SelfRepair/5) {
			return ctx.Err()
		}
	}
}

// The states of AT+ECMTCONN?. Connected does not mean that a login was
// accepted: the firmware takes a CONNECT that was sent for it.
const (
	ecmtUnknown    = 0
	ecmtConnecting = 2
	ecmtConnected  = 3
)

func (m *Modem) ecmtState(ctx context.Context, e *at.Engine) (int, error) {
	r, err := m.wish(ctx, e, at.Command{
		Text:     "AT+ECMTCONN?",
		Prefixes: []string{"+ECMTCONN", "+ECMTCON"},
		Match:    func(line string) bool { return len(at.Args(line)) == 2 }, // a login result has three
	})
	if err != nil {
		return ecmtUnknown, err
	}
	if a := at.Args(r.First()); len(a) == 2 {
		state, _ := strconv.Atoi(a[1])
		return state, nil
	}
	return ecmtUnknown, nil
}

// ecmtStop sends DISC, then CLOSE, and reports whether the module took one of
// them. Both delete the configuration too.
func (m *Modem) ecmtStop(ctx context.Context, e *at.Engine) (bool, error) {
	for _, verb := range []string{"ECMTDISC", "ECMTCLOSE"} {
		w := e.Expect(func(l at.Line) bool { return at.Name(l.Text) == "+"+verb })
		_, err := e.Do(ctx, at.Command{Text: "AT+" + verb + "=0"})
		if err == nil {
			_, err = w.Wait(ctx, m.o.Timing.Close/2)
			w.Stop()
			if errors.Is(err, at.ErrTimeout) {
				continue
			}
			return err == nil, err
		}
		w.Stop()
		if !at.IsRejection(err) {
			return false, err
		}
	}
	return false, nil
}

// ecmtLeave is ecmtStop for the end of a session: what it cannot do, the next
// ecmtClean does.
func (m *Modem) ecmtLeave(ctx context.Context, e *at.Engine) {
	if _, err := m.ecmtStop(ctx, e); err != nil {
		m.log.Debug("disconnecting the module", "error", err)
	}
}

// ecmtConfigure sets everything that DISC, CLOSE and a failed OPEN forget.
func (m *Modem) ecmtConfigure(ctx context.Context, e *at.Engine, l Login) error {
	keepAlive := l.KeepAlive
	if keepAlive == 0 {
		keepAlive = time.Minute
	}
	clean := 0
	if l.CleanSession {
		clean = 1
	}
	for _, c := range []struct {
		text string
		need bool
	}{
		{`AT+ECMTCFG="version",0,4`, false},
		{`AT+ECMTCFG="cloud",0,4,1`, false}, // no platform: payloads stay as they are
		{fmt.Sprintf(`AT+ECMTCFG="keepalive",0,%d`, int((keepAlive+time.Second-1)/time.Second)), false},
		{fmt.Sprintf(`AT+ECMTCFG="session",0,%d`, clean), true},
	} {
		_, err := m.ask(ctx, e, at.Command{Text: c.text})
		if err != nil && (c.need || !at.IsRejection(err)) {
			return fmt.Errorf("configuring the module's MQTT client: %w", err)
		}
	}
	if l.Will == nil {
		return nil
	}
	if why := willProblem(l.Will); why != "" {
		m.log.Warn("connecting without a will, which the module cannot carry", "reason", why)
		return nil
	}
	retain := 0
	if l.Will.Retain {
		retain = 1
	}
	_, err := m.wish(ctx, e, at.Command{Text: fmt.Sprintf(`AT+ECMTCFG="will",0,1,%d,%d,"%s","%s"`,
		l.Will.QoS, retain, l.Will.Topic, l.Will.Payload)})
	return err
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

// wait waits for an asynchronous result of this session: until d has passed,
// or ctx or the session ends.
func (s *Session) wait(ctx context.Context, w *at.Waiter, d time.Duration) (at.Line, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	l, err := w.Wait(ctx, d)
	if err != nil {
		if ended := s.Err(); ended != nil {
			return l, ended
		}
	}
	return l, err
}

// ecmtOpen opens the TCP connection.
func (s *Session) ecmtOpen(ctx context.Context) error {
	w := s.e.Expect(func(l at.Line) bool { return at.Name(l.Text) == "+ECMTOPEN" })
	defer w.Stop()
	_, err := s.e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+ECMTOPEN=0,"%s",%d`, s.login.Host, s.login.Port)})
	if at.IsRejection(err) {
		return fmt.Errorf("the module has no data connection to open %s:%d over; check the APN, "+
			"and that the SIM has data left (%w)", s.login.Host, s.login.Port, err)
	}
	if err != nil {
		return err
	}
	begun := time.Now()
	line, err := s.wait(ctx, w, s.m.o.Timing.Open)
	switch {
	case errors.Is(err, at.ErrTimeout):
		return errSilentOpen
	case errors.Is(err, context.DeadlineExceeded) && time.Since(begun) > s.m.o.Timing.Open/3:
		// Long enough to be held against the module.
		return fmt.Errorf("%w until now: %w", errSilentOpen, err)
	case err != nil:
		return err
	}
	a := at.Args(line.Text)
	if len(a) == 2 && a[1] == "0" {
		return nil
	}
	code := "missing"
	if len(a) >= 2 {
		code = a[1]
	}
	return openError(s.login, code)
}
