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

type ecmt struct {
	m *Modem
	e *at.Engine
}

// Its limits (Eigencomm ECMT: ECMTOPEN, ECMTCONN, ECMTCFG).
const (
	maxHost     = 127
	maxClientID = 48
	maxUsername = 48
	maxPassword = 128
	maxWill     = 255
)

func (*ecmt) name() string { return "ecmt" }
func (*ecmt) window() int  { return window }

func (*ecmt) check(l Login) error {
	return checkLogin(l, maxHost, maxClientID, maxUsername, maxPassword)
}

func (*ecmt) carriable(msg *holdfast.Message) error { return carriable(msg) }

func (c *ecmt) prepare(ctx context.Context, l Login) error {
	if err := c.m.ecmtClean(ctx, c.e); err != nil {
		return err
	}
	return c.m.ecmtConfigure(ctx, c.e, l)
}

func (c *ecmt) connect(ctx context.Context, s *Session) error {
	if err := s.ecmtOpen(ctx); err != nil {
		return err
	}
	return s.ecmtLogin(ctx)
}

func (c *ecmt) leave(ctx context.Context) { c.m.ecmtLeave(ctx, c.e) }

func (c *ecmt) hand(s *Session, p *publish) { s.ecmtHand(p) }

func (c *ecmt) urc(s *Session, l at.Line) bool {
	switch at.Name(l.Text) {
	case "+ECMTSTAT", "+ECMTCONN", "+ECMTCON", "+ECMTDISC", "+ECMTCLOSE", "+ECMTOPEN", "+ECMTPUB", "+ECMTRECV":
		c.m.ecmtURC(s, l)
		return true
	}
	return false
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
			return fmt.Errorf("%w: it neither connects nor lets go (state %d)", errWedged, state)
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
	for _, c := range []struct {
		text string
		need bool
	}{
		{`AT+ECMTCFG="version",0,4`, false},
		{`AT+ECMTCFG="cloud",0,4,1`, false}, // no platform: payloads stay as they are
		{fmt.Sprintf(`AT+ECMTCFG="keepalive",0,%d`, keepAliveSeconds(l)), false},
		{fmt.Sprintf(`AT+ECMTCFG="session",0,%d`, bit(l.CleanSession)), true},
	} {
		_, err := m.ask(ctx, e, at.Command{Text: c.text})
		if err != nil && (c.need || !at.IsRejection(err)) {
			return fmt.Errorf("configuring the module's MQTT client: %w", err)
		}
	}
	return nil
}

func (c *ecmt) setWill(ctx context.Context, w *holdfast.Message) error {
	_, err := c.m.ask(ctx, c.e, at.Command{Text: fmt.Sprintf(`AT+ECMTCFG="will",0,1,%d,%d,"%s","%s"`,
		w.QoS, bit(w.Retain), w.Topic, w.Payload)})
	return err
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
		return fmt.Errorf("%w (it was not waited for any longer: %w)", errSilentOpen, err)
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
	return errDial(s.login.Host, s.login.Port, errors.New("result "+code))
}
