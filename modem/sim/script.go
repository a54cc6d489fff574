package sim

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Script is what happens to a module, one step after the other. In a file each
// step has a line of its own; what follows a # is a remark.
//
//	wait 90s             nothing, for so long
//	outage 10m           the radio is away for so long
//	down, up             the radio is away, is back
//	signal -105          so many dBm, -113 to -51
//	reboot               the power is cut for a moment
//	refuse 5             CONNECT is answered with this return code; 0 asks the broker
//	trap lost-ack 0.1    a trap with its odds, or on, or off
//	repeat 3             all of it so often; without a number, for ever
type Script struct {
	steps  []step
	rounds int // 0: for ever
}

type step struct {
	text string
	do   func(m *Module) // nil: nothing
	wait time.Duration   // after that
	then func(m *Module) // after the wait; nil: nothing
}

// maxSteps bounds a script.
const maxSteps = 10_000

// ParseScript reads a script. The error tells every fault, with its line.
func ParseScript(text string) (Script, error) {
	s := Script{rounds: 1}
	var faults []error
	var longest time.Duration
	repeated := false
	for n, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		fault := func(err error) { faults = append(faults, fmt.Errorf("line %d: %w", n+1, err)) }
		switch {
		case repeated:
			fault(errors.New("nothing can stand behind repeat"))
		case len(s.steps) >= maxSteps:
			fault(fmt.Errorf("there are more than %d steps", maxSteps))
			return Script{}, errors.Join(faults...)
		case words[0] == "repeat":
			repeated = true
			s.rounds = 0
			if len(words) > 1 {
				rounds, err := strconv.Atoi(words[1])
				if err != nil || rounds < 1 || len(words) > 2 {
					fault(errors.New("repeat takes a number of rounds, or nothing"))
				}
				s.rounds = rounds
			}
		default:
			st, err := parseStep(words)
			if err != nil {
				fault(err)
				continue
			}
			longest = max(longest, st.wait)
			s.steps = append(s.steps, st)
		}
	}
	if s.rounds != 1 && longest < time.Millisecond {
		faults = append(faults, errors.New("what is repeated must wait: write wait 10s, or outage 10s"))
	}
	if len(faults) > 0 {
		return Script{}, errors.Join(faults...)
	}
	return s, nil
}

// maxWait bounds one wait.
const maxWait = 31 * 24 * time.Hour

func parseStep(words []string) (step, error) {
	st := step{text: strings.Join(words, " ")}
	verb, args := words[0], words[1:]
	take := func(n int, form string) error {
		if len(args) != n {
			return fmt.Errorf("write %s", form)
		}
		return nil
	}
	switch verb {
	case "down", "up":
		st.do = func(m *Module) { m.SetLink(verb == "up") }
		return st, take(0, verb+", without more")
	case "reboot":
		st.do = (*Module).Reboot
		return st, take(0, "reboot, without more")
	case "wait", "outage":
		if err := take(1, verb+" and a time, as in "+verb+" 90s"); err != nil {
			return st, err
		}
		d, err := time.ParseDuration(args[0])
		if err != nil || d < 0 || d > maxWait {
			return st, fmt.Errorf("%s: %q is not a time up to %v, as in 90s or 10m", verb, args[0], maxWait)
		}
		st.wait = d
		if verb == "outage" {
			st.do, st.then = func(m *Module) { m.SetLink(false) }, func(m *Module) { m.SetLink(true) }
		}
	case "refuse":
		if err := take(1, "refuse and a return code, as in refuse 5"); err != nil {
			return st, err
		}
		n, err := strconv.ParseUint(args[0], 10, 8)
		if err != nil {
			return st, fmt.Errorf("refuse: %q is not a return code; 1 to 5 are, 0 asks the broker", args[0])
		}
		st.do = func(m *Module) { m.Refuse(byte(n)) }
	case "signal":
		if err := take(1, "signal and a strength in dBm, as in signal -105"); err != nil {
			return st, err
		}
		dbm, err := strconv.Atoi(args[0])
		if err != nil || dbm < minSignal || dbm > maxSignal {
			return st, fmt.Errorf("signal: %q is not a strength in dBm; %d to %d are", args[0], minSignal, maxSignal)
		}
		st.do = func(m *Module) { m.SetSignal(dbm) }
	case "trap":
		if err := take(2, "trap, its name, and on, off or its odds, as in trap lost-ack 0.1"); err != nil {
			return st, err
		}
		odds, err := ParseOdds(args[1])
		if err != nil {
			return st, fmt.Errorf("trap %s: %w", args[0], err)
		}
		var all Traps
		if err := all.Set(args[0], odds); err != nil {
			return st, err
		}
		st.do = func(m *Module) {
			t := m.Traps()
			_ = t.Set(args[0], odds) // as above
			m.SetTraps(t)
		}
	default:
		return st, fmt.Errorf("%q is not understood; wait, outage, down, up, signal, reboot, refuse and trap are", verb)
	}
	return st, nil
}

// ParseOdds reads how likely a trap is: on, off, or a number between 0 and 1.
func ParseOdds(s string) (Odds, error) {
	switch s {
	case "on":
		return 1, nil
	case "off":
		return 0, nil
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || !(n >= 0 && n <= 1) {
		return 0, fmt.Errorf("%q is neither on, off nor a number between 0 and 1", s)
	}
	return Odds(n), nil
}

// Play does what the script says, and returns when it is over or ctx has ended. tell,
// if not nil, is called before each step with its words.
func (m *Module) Play(ctx context.Context, s Script, tell func(step string)) error {
	for round := 0; s.rounds == 0 || round < s.rounds; round++ {
		for _, st := range s.steps {
			if tell != nil {
				tell(st.text)
			}
			if st.do != nil {
				st.do(m)
			}
			if st.wait > 0 {
				timer := time.NewTimer(st.wait)
				select {
				case <-timer.C:
				case <-ctx.Done():
				case <-m.ctx.Done():
				}
				timer.Stop()
			}
			if st.then != nil {
				st.then(m)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if m.ctx.Err() != nil {
				return errClosed
			}
		}
	}
	return nil
}

// The strengths that AT+CSQ can tell, in dBm (3GPP TS 27.007 8.5).
const (
	minSignal = -113
	maxSignal = -51
)

// SetSignal makes the module tell this strength in dBm from now on. It changes
// nothing else: a weak signal loses no bytes here.
func (m *Module) SetSignal(dbm int) {
	_ = m.do(func() { m.signal = min(max(dbm, minSignal), maxSignal) })
}
