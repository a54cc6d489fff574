package sim

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestAScriptIsPlayedStepByStep(t *testing.T) {
	h := power(t, Options{})
	script, err := ParseScript("signal -101 # weak\n\nrefuse 5\ntrap lost-ack 0.5\nwait 1ms\noutage 1ms\nreboot\nrepeat 2\n")
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	if err := h.m.Play(t.Context(), script, func(step string) { told = append(told, step) }); err != nil {
		t.Fatal(err)
	}
	round := []string{"signal -101", "refuse 5", "trap lost-ack 0.5", "wait 1ms", "outage 1ms", "reboot"}
	if !slices.Equal(told, append(slices.Clone(round), round...)) {
		t.Errorf("it told %q", told)
	}
	if n := h.m.Stats().Reboots; n != 2 {
		t.Errorf("%d reboots", n)
	}
	if odds := h.m.Traps().LostAck; odds != 0.5 {
		t.Errorf("the trap has the odds %v", odds)
	}
	var link bool
	var refuse byte
	_ = h.m.do(func() { link, refuse = h.m.radio.link, h.m.refuse })
	if !link || refuse != 5 {
		t.Errorf("the radio is there: %v; CONNECT is answered with %d", link, refuse)
	}
}

func TestTheSignalIsTold(t *testing.T) {
	h := power(t, Options{})
	h.cmd("ATE0", "OK")
	h.m.SetSignal(-101)
	h.answers("AT+CSQ", "+CSQ: 6,0")
	h.answers("AT+CESQ", "+CESQ: 99,99,255,255,20,16")
}

func TestAScriptEndsWithItsContext(t *testing.T) {
	h := power(t, Options{})
	script, err := ParseScript("outage 744h\nrepeat")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := h.m.Play(ctx, script, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	var link bool
	_ = h.m.do(func() { link = h.m.radio.link })
	if !link {
		t.Error("the radio stays away")
	}
}

func TestMistakesInAScriptAreToldWithTheirLines(t *testing.T) {
	for _, c := range []struct{ text, words string }{
		{"wait 5s\nwiat 5s", `line 2: "wiat" is not understood`},
		{"wait", "line 1: write wait and a time"},
		{"wait 90", `line 1: wait: "90" is not a time`},
		{"outage -1s", "is not a time"},
		{"refuse 999", "is not a return code"},
		{"signal 3", "-113 to -51 are"},
		{"trap nosuch on", "nosuch"},
		{"trap lost-ack 2", "neither on, off nor"},
		{"trap lost-ack NaN", "neither on, off nor"},
		{"reboot\nrepeat", "must wait"},
		{"wait 1s\nrepeat 0", "line 2: repeat takes a number of rounds"},
		{"wait 1s\nrepeat\nreboot", "line 3: nothing can stand behind repeat"},
		{strings.Repeat("up\n", maxSteps+1), "more than 10000 steps"},
	} {
		if _, err := ParseScript(c.text); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%.40q: %v", c.text, err)
		}
	}
}

func FuzzScript(f *testing.F) {
	f.Add("signal -101\nrefuse 5\ntrap lost-ack 0.5\nwait 1ms\noutage 2s\nreboot\nrepeat 2\n")
	f.Add("repeat\nwait 1h # x")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseScript(text)
		waits := slices.ContainsFunc(s.steps, func(st step) bool { return st.wait > 0 })
		if err == nil && s.rounds != 1 && !waits {
			t.Error("it would spin")
		}
	})
}
