package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestEchoIsOnAtFirstAndATE0EndsIt(t *testing.T) {
	h := power(t, Options{})
	if got := h.cmd("AT", "OK"); got != "AT\r" {
		t.Fatalf("echo %q", got)
	}
	if got := h.cmd("ATE0", "OK"); got != "ATE0\r" {
		t.Fatalf("echo %q", got)
	}
	h.ok("AT", "at", "AT+CMEE=1;+CEREG=2")
	h.answers("AT+CMEE?", "+CMEE: 1")
	h.ok("ATE1")
	if got := h.cmd("AT", "OK"); got != "AT\r" {
		t.Fatalf("echo %q", got)
	}
}

func TestAnErrorIsPlainUntilCMEEAsksForItsNumber(t *testing.T) {
	h := power(t, Options{})
	h.write("ATE0\r")
	h.until("\r\nOK\r\n")
	h.cmd("AT+NOSUCH", "ERROR")
	h.ok("AT+CMEE=1")
	h.cmd("AT+NOSUCH", "+CME ERROR: 4")
	h.cmd("AT+ECMTDISC=0", "+CME ERROR: 3")
	h.ok("AT+CMEE=2")
	h.cmd("AT+ECMTDISC=0", "+CME ERROR: operation not allowed")
	h.cmd("AT+CMEE=7", "+CME ERROR: Incorrect parameters")
}

func TestTheModuleTellsWhatItIs(t *testing.T) {
	h := power(t, Options{IMEI: "123456789012345", ICCID: "8986001", IMSI: "00101"}).setUp()
	h.answers("AT+CGSN", "123456789012345")
	h.answers("AT+CGSN=1", `+CGSN: "123456789012345"`)
	h.answers("AT+ECICCID", "+ECICCID: 8986001")
	h.answers("AT+CCID", "+CCID: 8986001")
	h.answers("AT+CIMI", "00101")
	h.answers("AT+CGMM", "EC618")
	h.answers("AT+CGMI", "EIGENCOMM")
	if got := h.cmd("ATI", "OK"); !strings.Contains(got, "Revision: ") {
		t.Fatalf("ATI: %q", got)
	}
	h.answers("AT+CPIN?", "+CPIN: READY")
	h.answers("AT+CFUN?", "+CFUN: 1")
	h.answers("AT+IFC?", "+IFC: 0,0")
	h.ok("AT+ECSCLK=0", "AT&W", "AT+IFC=2,2")
	h.answers("AT+IFC?", "+IFC: 2,2")
	h.ok(`AT+CGDCONT=1,"IPV4V6","iot.example"`)
	h.answers("AT+CGDCONT?", `+CGDCONT: 1,"IPV4V6","iot.example"`)
	h.ok(`AT+CGAUTH=1,1,"u","p"`)
	h.answers("AT+CGAUTH?", "+CGAUTH: 1,1")
	h.answers("AT+CGATT?", "+CGATT: 1")
	h.answers("AT+CGPADDR=1", `+CGPADDR: 1,"10.20.30.40"`)
	h.answers("AT+COPS?", `+COPS: 0,0,"Holdfast Mobile",7`)
	if got := h.cmd("AT+ECMTCFG=?", "OK"); !strings.HasPrefix(got, "\r\n+ECMTCFG:\"keepalive\"") {
		t.Fatalf("ECMTCFG=?: %q", got)
	}
}

func TestTheClockIsLocalTimeWithItsZoneInQuartersOfAnHour(t *testing.T) {
	h := power(t, Options{}).setUp()
	got := strings.TrimSpace(h.cmd("AT+CCLK?", "OK"))
	at, err := time.Parse(`+CCLK: "06/01/02,15:04:05+08"`, got)
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(at.Add(-2 * time.Hour)); d < -time.Minute || d > time.Minute {
		t.Fatalf("%s is off by %v", got, d)
	}
	unregistered := power(t, Options{NoSIM: true}).setUp()
	unregistered.answers("AT+CCLK?", `+CCLK: "70/01/01,00:00:00+00"`)
}

func TestALockedSIMNeedsItsPINAndCountsWrongOnes(t *testing.T) {
	h := power(t, Options{PIN: "1234"}).setUp()
	h.answers("AT+CPIN?", "+CPIN: SIM PIN")
	h.cmd("AT+CIMI", "+CME ERROR: 11")
	h.answers("AT+CEREG?", "+CEREG: 0,0")
	h.cmd(`AT+CPIN="0000"`, "+CME ERROR: 16")
	h.ok(`AT+CPIN="1234"`)
	h.urc("+CPIN: READY")
	h.until("+CGEV: ME PDN ACT 1\r\n")
	h.until("+NITZ")
	h.until("\r\n")
	h.answers("AT+CEREG?", "+CEREG: 0,1")

	h = power(t, Options{PIN: "1234"}).setUp()
	h.cmd(`AT+CPIN="1"`, "+CME ERROR: 16")
	h.cmd(`AT+CPIN="2"`, "+CME ERROR: 16")
	h.cmd(`AT+CPIN="3"`, "+CME ERROR: 12")
	h.cmd(`AT+CPIN="1234"`, "+CME ERROR: 12")
	h.answers("AT+CPIN?", "+CPIN: SIM PUK")

	h = power(t, Options{NoSIM: true}).setUp()
	h.cmd("AT+CPIN?", "+CME ERROR: 10")
}

func TestRegistrationIsAnnouncedWithTheStateFirstAndAnsweredWithTheModeFirst(t *testing.T) {
	h := power(t, Options{}).setUp()
	h.ok("AT+CEREG=2")
	h.answers("AT+CEREG?", `+CEREG: 2,1,"1A2B","0123ABCD",7`)
	h.m.SetLink(false)
	h.urc("+CEREG: 2")
	h.urc("+CGEV: NW PDN DEACT 1")
	h.answers("AT+CSQ", "+CSQ: 99,99")
	h.answers("AT+CEREG?", "+CEREG: 2,2")
	h.answers("AT+CGPADDR=1", "+CGPADDR: 1")
	h.refused(`AT+ECMTOPEN=0,"127.0.0.1",1883`)
	h.m.SetLink(true)
	h.urc(`+CEREG: 1,"1A2B","0123ABCD",7`)
	h.urc("+CGEV: ME PDN ACT 1")
	h.until("+NITZ: ")
}

func TestWithoutRadioFunctionThereIsNoRegistration(t *testing.T) {
	h := power(t, Options{}).setUp()
	h.ok("AT+CEREG=1", "AT+CFUN=0")
	h.urc("+CEREG: 0")
	h.urc("+CGEV: NW PDN DEACT 1")
	h.answers("AT+CFUN?", "+CFUN: 0")
	h.ok("AT+CFUN=1")
	h.urc("+CPIN: READY")
	h.urc("+CEREG: 2")
	h.urc("+CEREG: 1")
	h.cmd("AT+CFUN=3", "+CME ERROR: 50")
}

func TestACommandWrittenWhileAnotherExecutesWaitsAndIsAMistake(t *testing.T) {
	h := power(t, Options{LateBy: 100 * time.Millisecond}).setUp()
	h.m.SetTraps(Traps{LateOK: 1})
	h.write("AT+CSQ\r")
	h.write("AT+CGMM\r")
	got := h.until("\r\nOK\r\n") + h.until("\r\nOK\r\n")
	if a, b := strings.Index(got, "+CSQ"), strings.Index(got, "EC618"); a < 0 || b < a {
		t.Fatalf("got %q", got)
	}
	if n := h.m.Stats().Mistakes[MistakeOverlap]; n != 1 {
		t.Fatalf("%d mistakes: %v", n, h.m.Stats().Mistakes)
	}
}

func TestTooMuchInputWhileACommandExecutesIsDiscardedAsAWhole(t *testing.T) {
	h := power(t, Options{LateBy: time.Second}).setUp()
	h.m.SetTraps(Traps{LateOK: 1})
	h.write("AT\r")
	eventually(t, "the command executes", func() bool { return h.m.Stats().Commands == 3 })
	h.write(strings.Repeat("AT+CGMM\r", pendingMax/8+1))
	eventually(t, "an overflow", func() bool { return h.m.Stats().Mistakes[MistakeOverflow] > 0 })
	h.m.SetTraps(Traps{})
	h.urc("OK")
	h.cmd("AT+CSQ", "OK")
	if n := h.m.Stats().Commands; n >= pendingMax/8 {
		t.Fatalf("%d commands were executed", n)
	}
}

func TestGarbageBeforeATIsIgnoredAndALineWithoutItIsNotAnswered(t *testing.T) {
	h := power(t, Options{}).setUp()
	h.ok("\xe0\xffAT", "\r\n\n AT")
	h.write("hello\r")
	h.quiet()
	if n := h.m.Stats().Mistakes[MistakeNotAT]; n != 1 {
		t.Fatalf("mistakes: %v", h.m.Stats().Mistakes)
	}
	if n := h.m.Stats().Mistakes[MistakeOverlap]; n != 0 {
		t.Fatalf("mistakes: %v", h.m.Stats().Mistakes)
	}
}

func TestEveryTrapHasANameThatSetsIt(t *testing.T) {
	var all Traps
	for i, trap := range AllTraps() {
		if err := all.Set(trap.Name, Odds(float64(i+1)/100)); err != nil {
			t.Fatal(err)
		}
	}
	for i, trap := range AllTraps() {
		if got := all.Get(trap.Name); got != Odds(float64(i+1)/100) {
			t.Errorf("%s is %v: two names share a field", trap.Name, got)
		}
	}
	if s := fmt.Sprintf("%v", all); strings.Contains(s, " 0 ") {
		t.Errorf("a field has no name: %s", s)
	}
	if all.Set("nonsense", 1) == nil || all.Set("noise", 2) == nil {
		t.Error("nonsense was taken")
	}
}
