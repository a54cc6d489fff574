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
	tried bool   // it was entered
	good  bool   // the SIM took it; it may be entered again after a reboot
	err   error  // why it is never entered again
	card  string // the SIM that err and tried are about, by its ICCID
}

// ofCard drops what is known when another SIM was put in.
func (p *pins) ofCard(iccid string) {
	if p.card != iccid {
		*p = pins{card: iccid}
	}
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
		if m.pin.tried && !m.pin.good {
			m.pin.good = true
			if err := m.memory.forget(m.pin.card); err != nil {
				m.log.Warn("that the PIN is good could not be written down", "error", err)
			}
		}
		return nil
	case "SIM PIN":
		// Most cards give their number without the PIN.
		if err := m.readICCID(ctx, e); err != nil {
			return err
		}
		m.pin.ofCard(m.Status().ICCID.Value)
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

// maxUnknownPINs is how often a PIN may be entered without anybody knowing what
// came of it (a crash, a silent module): a SIM blocks itself after three wrong
// ones, and one attempt is left for a person.
const maxUnknownPINs = 2

// enterPIN enters the PIN at most once, never if this SIM has refused it before,
// also before a restart, and never when only one attempt is left: that one is
// for a person. What it is about to do is on the disk before it is done.
func (m *Modem) enterPIN(ctx context.Context, e *at.Engine) error {
	card := m.pin.card
	known := m.memory.entered(card, m.o.PIN)
	switch {
	case m.pin.err != nil:
		return m.pin.err
	case m.o.PIN == "":
		return needsPerson{errors.New("the SIM asks for its PIN; set pin in [[modem]], or switch the question off with a phone")}
	case known.Refused:
		m.pin.err = needsPerson{errors.New("this SIM has refused this PIN before; it is not tried again, since a SIM blocks itself after three; " +
			"correct pin in [[modem]] and restart the gateway")}
		return m.pin.err
	case m.pin.tried && !m.pin.good:
		m.pin.err = needsPerson{errors.New("the SIM still asks for its PIN after it was entered; the PIN is not tried again, " +
			"since a SIM blocks itself; check pin in [[modem]] and restart the gateway")}
		return m.pin.err
	}
	left := m.attempts(ctx, e)
	switch {
	case left >= 0 && left < 2:
		m.pin.err = needsPerson{fmt.Errorf("the SIM asks for its PIN and has %s left, which is not used up here; "+
			"put it into a phone, enter the right PIN there, then check pin in [[modem]] and restart the gateway", attemptsLeft(left))}
	case left >= 3:
		known.Entered = 0 // whatever was entered has used up nothing
	case known.Entered >= maxUnknownPINs:
		m.pin.err = needsPerson{errors.New("the PIN was entered twice and nobody knows what came of it; it is not tried again, " +
			"since a SIM blocks itself; put the SIM into a phone, enter its PIN there, then check pin in [[modem]]")}
	}
	if m.pin.err != nil {
		return m.pin.err
	}
	// A crash from here on leaves an attempt that counts as one.
	known.Entered++
	if err := m.memory.keep(card, m.o.PIN, known); err != nil {
		if left < 3 {
			m.pin.err = needsPerson{fmt.Errorf("the PIN is not entered, since it cannot be written down that it was, "+
				"and after a restart nobody would know; see to the disk, or switch the question off with a phone: %w", err)}
			return m.pin.err
		}
		m.log.Warn("that the PIN is entered could not be written down", "error", err)
	}
	m.pin.tried, m.pin.good = true, false
	_, err := e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+CPIN="%s"`, m.o.PIN)})
	switch {
	case err == nil:
		m.log.Info("PIN entered")
		return &simWait{"the SIM does not become ready after its PIN was entered"}
	case simBusy(err): // it has not looked at it
		m.pin.tried = false
		known.Entered--
		if keepErr := m.memory.keep(card, m.o.PIN, known); keepErr != nil {
			m.log.Warn("what came of the PIN could not be written down", "error", keepErr)
		}
		return &simWait{"the SIM stays busy"}
	case at.IsRejection(err):
		m.refusedPIN(ctx, e, known, err)
		return m.pin.err
	case errors.Is(err, at.ErrTimeout) && !errors.Is(err, at.ErrUnsynced):
		return &simWait{"the SIM does not become ready after its PIN was entered"}
	}
	return err
}

// simBusy: +CME ERROR: 14 (3GPP TS 27.007 9.2).
func simBusy(err error) bool {
	var cme *at.CMEError
	return errors.As(err, &cme) && cme.Code == 14
}

// refusedPIN remembers that the SIM has refused the PIN.
func (m *Modem) refusedPIN(ctx context.Context, e *at.Engine, known enteredPIN, err error) {
	known.Refused = true
	if keepErr := m.memory.keep(m.pin.card, m.o.PIN, known); keepErr != nil {
		m.log.Error("that the SIM has refused the PIN could not be written down; correct pin before a restart", "error", keepErr)
	}
	words := ""
	if left := m.attempts(ctx, e); left >= 0 {
		words = ", " + attemptsLeft(left) + " left"
	}
	m.pin.err = needsPerson{fmt.Errorf("PIN was refused%s; it is not tried again, since a SIM blocks itself after three; "+
		"correct pin in [[modem]] and restart the gateway (%w)", words, err)}
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
