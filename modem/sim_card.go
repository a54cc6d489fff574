package modem

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"holdfast/modem/at"
)

// pins is what is known of the PIN. A SIM blocks itself after three wrong ones,
// and a person has to drive to the site with the PUK.
type pins struct {
	tried bool  // it was entered
	good  bool  // the SIM took it; it may be entered again after a reboot
	err   error // why it is never entered again
}

// unlock waits for the SIM and enters the PIN if the SIM wants one (3GPP TS
// 27.007 8.3).
func (m *Modem) unlock(ctx context.Context, e *at.Engine) error {
	end := time.Now().Add(m.o.Timing.SIM)
	for {
		err := m.askSIM(ctx, e)
		if err == nil {
			return m.identifySIM(ctx, e)
		}
		var wait *simWait
		if !errors.As(err, &wait) || time.Now().After(end) {
			return err
		}
		if !sleep(ctx, m.o.Timing.RegPoll/2) {
			return ctx.Err()
		}
	}
}

// simWait is the error of a SIM that may become ready by itself.
type simWait struct{ why string }

func (e *simWait) Error() string { return e.why }

func (m *Modem) askSIM(ctx context.Context, e *at.Engine) error {
	r, err := m.ask(ctx, e, at.Command{Text: "AT+CPIN?", Prefixes: []string{"+CPIN"}})
	var cme *at.CMEError
	switch {
	case errors.As(err, &cme):
		m.learn(func(s *Status) { s.SIM = fact(cmeSIM(cme)) })
		return simError(cme)
	case at.IsRejection(err):
		return &simWait{"the module cannot read the SIM; check that it sits right, and that its contacts are clean"}
	case err != nil:
		return err
	}
	state := ""
	if a := at.Args(r.First()); len(a) > 0 {
		state = a[0]
	}
	m.learn(func(s *Status) { s.SIM = fact(state) })
	switch state {
	case "READY":
		if m.pin.tried {
			m.pin.good = true
		}
		return nil
	case "SIM PIN":
		return m.enterPIN(ctx, e)
	case "SIM PUK":
		return needsPerson{errors.New("the SIM is blocked after too many wrong PINs; put it into a phone and enter its PUK")}
	case "", "NOT READY":
		return &simWait{"the SIM does not become ready; check that it sits right, and try it in a phone"}
	}
	return needsPerson{fmt.Errorf("the SIM asks for %s, which this gateway does not know; put it into a phone and unlock it", state)}
}

func cmeSIM(err *at.CMEError) string {
	if err.Text != "" {
		return err.Text
	}
	return strconv.Itoa(err.Code)
}

func simError(err *at.CMEError) error {
	switch err.Code {
	case 10:
		return &simWait{"there is no SIM in the module; check that it sits right (a module wants a restart after it was put in)"}
	case 13, 15:
		return &simWait{"the module cannot read the SIM (" + cmeSIM(err) + "); check its contacts, and try it in a phone"}
	}
	return &simWait{"the SIM is not ready: " + cmeSIM(err)}
}

// enterPIN enters the PIN at most once, and never when only one attempt is
// left: that one is for a person.
func (m *Modem) enterPIN(ctx context.Context, e *at.Engine) error {
	switch {
	case m.pin.err != nil:
		return m.pin.err
	case m.o.PIN == "":
		return needsPerson{errors.New("the SIM asks for its PIN; set pin in [[modem]], or switch the question off with a phone")}
	case m.pin.tried && !m.pin.good:
		m.pin.err = needsPerson{errors.New("the SIM still asks for its PIN after it was entered; the PIN is not tried again, " +
			"since a SIM blocks itself; check pin in [[modem]] and restart the gateway")}
		return m.pin.err
	}
	left := m.attempts(ctx, e)
	if left >= 0 && left < 2 {
		m.pin.err = needsPerson{fmt.Errorf("the SIM asks for its PIN and has %s left, which is not used up here; "+
			"put it into a phone, enter the right PIN there, then check pin in [[modem]] and restart the gateway", attemptsLeft(left))}
		return m.pin.err
	}
	m.pin.tried, m.pin.good = true, false
	_, err := e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+CPIN="%s"`, m.o.PIN)})
	switch {
	case err == nil:
		m.log.Info("PIN entered")
		return &simWait{"the SIM does not become ready after its PIN was entered"}
	case at.IsRejection(err):
		words := ""
		if left := m.attempts(ctx, e); left >= 0 {
			words = ", " + attemptsLeft(left) + " left"
		}
		m.pin.err = needsPerson{fmt.Errorf("PIN was refused%s; it is not tried again, since a SIM blocks itself after three; "+
			"correct pin in [[modem]] and restart the gateway (%w)", words, err)}
		return m.pin.err
	case errors.Is(err, at.ErrTimeout) && !errors.Is(err, at.ErrUnsynced):
		return &simWait{"the SIM does not become ready after its PIN was entered"}
	}
	return err
}

func attemptsLeft(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}

// attempts is the number of PIN attempts left (3GPP TS 27.007 8.65), -1 if the
// module does not say.
func (m *Modem) attempts(ctx context.Context, e *at.Engine) int {
	r, err := m.wish(ctx, e, at.Command{Text: `AT+CPINR="SIM PIN"`, Prefixes: []string{"+CPINR"}})
	if err != nil {
		return -1
	}
	for _, line := range r.Lines {
		a := at.Args(line)
		if len(a) < 2 || !strings.EqualFold(a[0], "SIM PIN") {
			continue
		}
		if n, err := strconv.Atoi(a[1]); err == nil {
			return n
		}
	}
	return -1
}
