package modem

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"holdfast/modem/at"
)

// levelTrace is the level from which on the wire is logged.
const levelTrace = slog.LevelDebug

// bringUp takes the module from "something is on the port" to "registered". It
// never waits for a boot message, since many modules send none; one that does
// come means that everything set so far is lost, and ends it with errRebooted.
func (m *Modem) bringUp(ctx context.Context, l *link) error {
	m.setState(StateStarting) // the last problem is shown until there is success
	if err := m.forgetFlowControl(l); err != nil {
		return err
	}
	if err := m.climb(ctx, l); err != nil {
		return err
	}
	select { // a boot message until here is no news
	case <-l.ending:
	default:
	}
	if err := m.switchBaud(ctx, l); err != nil {
		return err
	}
	if err := m.setFlowControl(ctx, l); err != nil {
		return err
	}
	for _, step := range []func(context.Context, *at.Engine) error{
		m.setUp, m.identify, func(ctx context.Context, e *at.Engine) error { return m.detect(ctx, l) }, m.unlock, m.setAPN, m.register, m.attach,
	} {
		if err := step(ctx, l.e); err != nil {
			select {
			case ending := <-l.ending:
				return ending
			default:
				return err
			}
		}
		select {
		case err := <-l.ending:
			return err
		default:
		}
	}
	return nil
}

// ask runs a command, and once more if it got no answer: early commands get
// lost while a module boots.
func (m *Modem) ask(ctx context.Context, e *at.Engine, c at.Command) (at.Response, error) {
	r, err := e.Do(ctx, c)
	if errors.Is(err, at.ErrTimeout) && !errors.Is(err, at.ErrUnsynced) && ctx.Err() == nil {
		r, err = e.Do(ctx, c)
	}
	return r, err
}

// lacks reports whether err, of ask, says that the firmware does not have the command:
// it refuses it, or swallows it, while it answers others.
func lacks(ctx context.Context, err error) bool {
	return at.IsRejection(err) || errors.Is(err, at.ErrTimeout) && !errors.Is(err, at.ErrUnsynced) && ctx.Err() == nil
}

// wish runs a command whose refusal does no harm. The error is one of the port
// or of ctx, or a lasting silence.
func (m *Modem) wish(ctx context.Context, e *at.Engine, c at.Command) (at.Response, error) {
	r, err := m.ask(ctx, e, c)
	switch {
	case err == nil || at.IsRejection(err):
		return r, nil
	case lacks(ctx, err):
		return at.Response{}, nil
	}
	return at.Response{}, err
}

// answer waits until the module answers AT.
func (m *Modem) answer(ctx context.Context, l *link) error {
	before := l.e.Stats().BytesIn
	end := time.Now().Add(m.o.Timing.Reset)
	for {
		err := l.e.Resync(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(err, at.ErrUnsynced) {
			return err
		}
		if found, err := m.searchBaud(ctx, l); found || err != nil {
			return err
		}
		if got := l.e.Stats().BytesIn - before; got > 0 || time.Now().After(end) || m.quick() {
			return m.noAnswer(l.e, got)
		}
	}
}

// quick reports whether a dead module was waited for already: the next lives
// need not take as long to find it dead.
func (m *Modem) quick() bool { return m.failures > 0 }

// silent is the error of a module that has stopped to answer.
func (m *Modem) silent(e *at.Engine) error {
	return m.noAnswer(e, 0)
}

var errSilent = errors.New("the module does not answer AT")

func (m *Modem) noAnswer(e *at.Engine, got uint64) error {
	if got == 0 {
		return fmt.Errorf("%w: not one byte came from %s; check that the module has power and was switched on "+
			"(PWRKEY), that TX and RX are crossed, and the baud rate (%d)", errSilent, m.wire(), m.baud)
	}
	what, try := whoAnswers(e.Sample())
	return fmt.Errorf("%w: %s answered, but not with AT: %d bytes of %s; %s", errSilent, m.wire(), got, what, try)
}

func (m *Modem) wire() string {
	if device := m.Status().Device; device != "" {
		return device
	}
	if m.o.Port != "" {
		return m.o.Port
	}
	return "the module"
}

// whoAnswers tells from its last bytes what is at the other end of a port that
// does not answer AT. It never returns the bytes: they may be a payload.
func whoAnswers(sample []byte) (what, try string) {
	text := string(sample)
	odd := 0
	for _, c := range sample {
		if (c < ' ' && c != '\r' && c != '\n' && c != '\t') || c > '~' {
			odd++
		}
	}
	trimmed := strings.Trim(text, "AT\x1b\r\n")
	switch {
	case odd*4 > len(sample):
		return "what is not text", "check the baud rate"
	case trimmed == "":
		return "our own commands", "the port echoes: check that TX and RX are not connected to each other, and that the module is running"
	case strings.Contains(text, "$G"):
		return "NMEA sentences", "this is a GPS receiver or a module's GPS port; use its AT port"
	case strings.Contains(text, "login:") || strings.Contains(text, "Password:"):
		return "a login prompt", "a console is on this port: sudo systemctl disable --now serial-getty@ttyXXX, and remove console= from the kernel's command line"
	}
	return "text that is no answer to AT", "check the baud rate, and that this is the module's AT port"
}

// setUp makes the answers predictable: no echo, error codes.
func (m *Modem) setUp(ctx context.Context, e *at.Engine) error {
	// A board that has power all the time gains nothing by a module that sleeps,
	// and loses the first bytes of what it says to one. CGEREP makes the module
	// tell when the network ends the data connection (3GPP TS 27.007 10.1.19).
	for _, text := range []string{"ATE0", "AT+CMEE=1", "AT+ECSCLK=0", "AT+CPSMS=0", "AT+CEDRXS=0", "AT+CGEREP=2"} {
		if _, err := m.wish(ctx, e, at.Command{Text: text}); err != nil {
			return err
		}
	}
	r, err := m.wish(ctx, e, at.Command{Text: "AT+CFUN?", Prefixes: []string{"+CFUN"}})
	if err != nil {
		return err
	}
	if a := at.Args(r.First()); len(a) > 0 && a[0] != "1" {
		_, err = m.wish(ctx, e, at.Command{Text: "AT+CFUN=1", Timeout: m.o.Timing.Radio})
	}
	return err
}
