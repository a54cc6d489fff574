package modem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"holdfast/modem/at"
)

// The ladder of recovery. A command without an answer is followed by a resync, a
// life that fails by another opening of the port. After firstReset failures every
// second life begins with a reset, each harder than the last. Between two lives
// is a wait that grows (holdOff).
const (
	stepRadio  = "CFUN"  // the radio off and on
	stepModule = "ECRST" // the module's own reset
	stepLine   = "line"  // a pulse on DTR or RTS
	stepPower  = "power" // the user's command
)

// firstReset is the number of failures after which opening the port again is
// not enough.
const firstReset = 3

// hard is the first rung that needs no command to get through.
const hard = 2

// steps are the rungs that this modem has.
func (m *Modem) steps() []string {
	steps := []string{stepRadio, stepModule}
	if m.o.ResetLine != "" {
		steps = append(steps, stepLine)
	}
	if m.o.PowerCycle != nil {
		steps = append(steps, stepPower)
	}
	return steps
}

// step is the rung for the life that begins; "" for none.
func (m *Modem) step() string {
	if m.failures < firstReset || (m.failures-firstReset)%2 != 0 {
		return ""
	}
	steps := m.steps()
	return steps[min(m.resets, len(steps)-1)]
}

// climb waits until the module answers, and resets it if the ladder has come to
// that.
func (m *Modem) climb(ctx context.Context, l *link) error {
	err := m.answer(ctx, l)
	step := m.step()
	if l.reset || step == "" || m.carries() {
		return err
	}
	if err != nil {
		if !errors.Is(err, errSilent) || len(m.steps()) == hard {
			return err
		}
		// No command gets through, so nothing softer is of use.
		m.resets = max(m.resets, hard)
		step = m.step()
	}
	if turnErr := m.takeTurn(ctx); turnErr != nil {
		return turnErr
	}
	if m.carries() { // since the turn was waited for
		return err
	}
	return m.reset(ctx, l, step)
}

// takeTurn waits until no other module is being reset. The turn is kept until the
// module is up, or has failed again: until then others leave theirs alone.
func (m *Modem) takeTurn(ctx context.Context) error {
	if m.o.ResetTurn == nil || m.turn {
		return nil
	}
	select {
	case <-m.o.ResetTurn:
		m.turn = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Modem) giveTurn() {
	if m.turn {
		m.turn = false
		m.o.ResetTurn <- struct{}{}
	}
}

// leaving reports whether err is of a module that was reset, and is off the bus for
// that.
func (m *Modem) leaving(err error) bool {
	return notThere(err) && time.Since(m.resetAt) < 2*m.o.Timing.Reset
}

// reset does one step, once in a life, and waits until the module answers again.
func (m *Modem) reset(ctx context.Context, l *link, step string) error {
	l.reset, m.stepped = true, true
	m.resets++
	m.countReset(step)
	defer func() { m.resetAt = time.Now() }()
	var err error
	switch step {
	case stepRadio:
		if _, err = m.wish(ctx, l.e, at.Command{Text: "AT+CFUN=0", Timeout: m.o.Timing.Radio}); err == nil {
			_, err = m.wish(ctx, l.e, at.Command{Text: "AT+CFUN=1", Timeout: m.o.Timing.Radio})
		}
		return err
	case stepModule:
		if _, err = l.e.Do(ctx, at.Command{Text: "AT+ECRST"}); at.IsRejection(err) {
			_, err = m.wish(ctx, l.e, at.Command{Text: "AT+CFUN=1,1", Timeout: m.o.Timing.Radio})
		}
	case stepLine:
		err = m.pulse(ctx, l)
	case stepPower:
		err = m.o.PowerCycle(ctx)
	}
	if err != nil && !errors.Is(err, at.ErrTimeout) {
		return fmt.Errorf("resetting the module (%s): %w", step, err)
	}
	// It may answer AT once more before it goes down. A boot message, if there
	// is one, says that it has come back.
	select {
	case <-l.ending:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.e.Done():
		return l.e.Err()
	case <-time.After(m.o.Timing.Reset / 6):
	}
	return m.answer(ctx, l)
}

func (m *Modem) countReset(step string) {
	m.log.Warn("resetting the module", "step", step, "failures", m.failures)
	m.learn(func(s *Status) {
		s.LastReset = fact(step)
		s.Counters.Resets++
		switch step {
		case stepRadio:
			s.Counters.RadioResets++
		case stepModule:
			s.Counters.ModuleResets++
		case stepLine:
			s.Counters.LineResets++
		case stepPower:
			s.Counters.PowerCycles++
		}
	})
}

// pulser is a port with lines that a reset may be wired to.
type pulser interface {
	SetLine(line string, on bool) error
}

// pulse lets the reset line go for as long as a reset or power key wants to be
// pressed. The line is on while the port is open, as ports are.
func (m *Modem) pulse(ctx context.Context, l *link) error {
	port, ok := l.port.(pulser)
	if !ok {
		return fmt.Errorf("this port has no line %s; set reset_line = \"none\"", m.o.ResetLine)
	}
	if err := port.SetLine(m.o.ResetLine, false); err != nil {
		return err
	}
	sleep(ctx, m.o.Timing.Pulse)
	return port.SetLine(m.o.ResetLine, true)
}

// absent is for a module that is not on the bus: nothing can be sent to it, but
// one that has crashed comes back when its power is cut. That is done after twice
// Timing.Reset, and then after twice as long each time: somebody may have taken
// it away.
func (m *Modem) absent(ctx context.Context, err error) {
	if m.o.PowerCycle == nil || m.carries() || !errors.Is(err, errPort) || !errors.Is(err, fs.ErrNotExist) {
		m.cutAt, m.cutWait = time.Time{}, 0
		return
	}
	if m.cutAt.IsZero() {
		m.cutWait = 2 * m.o.Timing.Reset
		m.cutAt = time.Now().Add(m.cutWait)
	}
	if time.Now().Before(m.cutAt) {
		return
	}
	if m.takeTurn(ctx) != nil || m.carries() {
		return
	}
	m.countReset(stepPower)
	if err := m.o.PowerCycle(ctx); err != nil && ctx.Err() == nil {
		m.log.Warn("the module that is not there could not be given power again", "error", err)
	}
	m.resetAt = time.Now()
	m.cutWait = min(2*m.cutWait, 12*m.o.Timing.HoldOffMax)
	m.cutAt = time.Now().Add(m.cutWait)
}
