package sim

import (
	"strings"
	"testing"
	"time"
)

func TestCONNResultsAreSpeltAsTheTrapSays(t *testing.T) {
	for _, c := range []struct{ trap, want string }{
		{"conn-short", "+ECMTCON:0,0,5"},
		{"conn-short-spaced", "+ECMTCON: 0,0,5"},
		{"conn-tight", "+ECMTCONN:0,0,5"},
	} {
		t.Run(c.trap, func(t *testing.T) {
			b := newBroker(t)
			h := power(t, Options{ReconnectAfter: time.Hour}).setUp()
			var traps Traps
			if err := traps.Set(c.trap, 1); err != nil {
				t.Fatal(err)
			}
			h.m.SetTraps(traps)
			h.m.Refuse(5)
			h.ok(b.open())
			b.accept()
			h.urc("+ECMTOPEN: 0,0")
			h.ok(`AT+ECMTCONN=0,"a","b","c"`)
			h.urc(c.want)
		})
	}
}

func TestOneCONNMayHaveTwoResults(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{Traps: Traps{DoubleConn: 1}}).setUp()
	h.ok(b.open())
	p := b.accept()
	h.urc("+ECMTOPEN: 0,0")
	h.ok(`AT+ECMTCONN=0,"a","b","c"`)
	p.connect(0)
	h.urc("+ECMTCONN: 0,2,2")
	h.urc("+ECMTCONN: 0,0,0")
}

func TestAWedgedOPENAnswersOKAndStaysOpening(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{Traps: Traps{OpenWedge: 1}}).setUp()
	h.ok(b.open(), b.open())
	h.answers("AT+ECMTCONN?", "+ECMTCONN:0,1")
	h.refused("AT+ECMTCLOSE=0", "AT+ECMTDISC=0", `AT+ECMTCONN=0,"a","b","c"`)
}

func TestALostAcknowledgementHasNoURC(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{Traps: Traps{LostAck: 1}}).setUp()
	p := h.online(b)
	h.ok(`AT+ECMTPUB=0,1,1,0,"t","x"`, `AT+ECMTPUB=0,2,0,0,"t","x"`)
	p.publish(1)
	p.puback(1)
	h.urc("+ECMTPUB: 0,2,0") // QoS 0 has none to lose
	p.send(0x30, 4, 0, 1, 't', 'x')
	h.urc(`+ECMTRECV: 0,0,"t",x`)
	h.quiet()
}

func TestALostCONNACKHasNoURC(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{Traps: Traps{LostConnack: 1}}).setUp()
	h.ok(b.open())
	p := b.accept()
	h.urc("+ECMTOPEN: 0,0")
	h.ok(`AT+ECMTCONN=0,"a","b","c"`)
	p.connect(0)
	p.send(0x30, 4, 0, 1, 't', 'x')
	h.urc(`+ECMTRECV: 0,0,"t",x`)
}

func TestALateOKComesAndTheNextCommandWaitsForIt(t *testing.T) {
	h := power(t, Options{LateBy: 50 * time.Millisecond}).setUp()
	h.m.SetTraps(Traps{LateOK: 1})
	start := time.Now()
	h.ok("AT")
	if d := time.Since(start); d < 50*time.Millisecond {
		t.Fatalf("after %v", d)
	}
}

func TestTheOKMayComeBehindItsURC(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	h.m.SetTraps(Traps{URCFirst: 1})
	h.write(b.open() + "\r")
	b.accept()
	h.urc("+ECMTOPEN: 0,0")
	h.urc("OK")
}

func TestAURCMayComeInTheMiddleOfAReply(t *testing.T) {
	h := power(t, Options{}).setUp()
	h.m.SetTraps(Traps{URCInReply: 1})
	got := h.cmd("AT+CSQ", "OK")
	if n := strings.Count(got, "\r\n"); n != 4 || !strings.HasPrefix(got, "\r\n+CSQ: ") {
		t.Fatalf("got %q", got)
	}
}

func TestAURCMayBeGluedToThePromptOrComeBehindIt(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{}).setUp()
	p := h.online(b)
	h.m.SetTraps(Traps{URCBeforePrompt: 1, URCAfterPrompt: 1})
	h.write("AT+ECMTPUB=0,1,0,0,\"t\"\r")
	if got := h.until("\r\n> "); !strings.HasPrefix(got, "\r\n") || strings.HasSuffix(got, "\r\n") {
		t.Fatalf("got %q", got)
	}
	h.until("\r\n")
	h.until("\r\n")
	h.write("x\x1a")
	h.until("\r\nOK\r\n")
	p.publish(0)
}

func TestEchoMayComeBackOn(t *testing.T) {
	h := power(t, Options{}).setUp()
	h.m.SetTraps(Traps{EchoReturns: 1})
	if got := h.cmd("AT", "OK"); got != "AT\r" {
		t.Fatalf("got %q", got)
	}
}

func TestAnswersMayBeNoiseTheSameForTheSameSeed(t *testing.T) {
	noise := func() string {
		h := power(t, Options{Seed: 42}).setUp()
		h.m.SetTraps(Traps{Noise: 1})
		h.write("AT\r")
		for len(h.buf) < 6 {
			h.read()
		}
		return h.buf
	}
	a, b := noise(), noise()
	if a != b || a == "\r\nOK\r\n" {
		t.Fatalf("%q and %q", a, b)
	}
}

func TestTheFirstCommandAfterABootMayBeSwallowed(t *testing.T) {
	h := power(t, Options{Traps: Traps{EarlyLoss: 1}})
	h.write("AT+CGMI\rAT+CGMM\r")
	if got := h.until("\r\nOK\r\n"); !strings.HasPrefix(got, "AT+CGMM\r") {
		t.Fatalf("got %q", got)
	}
}

func TestADeafModuleExecutesAndDoesNotAnswer(t *testing.T) {
	h := power(t, Options{}).setUp()
	h.m.SetTraps(Traps{Deaf: 1})
	h.write("AT\r")
	eventually(t, "it executes", func() bool { return h.m.Stats().Commands == 3 })
	h.m.SetTraps(Traps{})
	h.quiet()
}

func TestTheManualsLimitsAreTighter(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{Traps: Traps{DocLimits: 1}}).setUp()
	x := strings.Repeat("x", 701)
	h.refused(`AT+ECMTOPEN=0,"` + x[:101] + `",1883`)
	p := h.online(b)
	h.refused(`AT+ECMTPUB=0,1,0,0,"t","` + x + `"`)
	h.ok(`AT+ECMTPUB=0,1,0,0,"t","` + x[:700] + `"`)
	p.publish(0)
}

func TestAReconnectMayBeQuietAndALossMayBeForGood(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{ReconnectAfter: time.Millisecond}).setUp()
	p := h.online(b)
	h.m.SetTraps(Traps{QuietReconnect: 1})
	p.c.Close()
	p = b.accept()
	p.connect(0)
	h.urc("+ECMTCONN: 0,0,0")
	h.m.SetTraps(Traps{SpontaneousBye: 1})
	p.c.Close()
	h.urc("+ECMTDISC: 0,0")
	h.answers("AT+ECMTCONN?", "+ECMTCONN:0,4")
}

func TestAnOpenMayFail(t *testing.T) {
	h := power(t, Options{Traps: Traps{OpenFails: 1}}).setUp()
	h.ok(`AT+ECMTOPEN=0,"127.0.0.1",1883`)
	h.urc("+ECMTOPEN: 0,-1")
}
