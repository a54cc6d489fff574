package sim

import (
	"strings"
	"testing"
	"time"
)

func TestARebootTakesEverythingAwayAndStartsWithNoise(t *testing.T) {
	b := newBroker(t)
	h := power(t, Options{BootTime: 20 * time.Millisecond, Traps: Traps{DoubleRDY: 1}}).setUp()
	h.ok(`AT+ECMTCFG="keepalive",0,60`)
	p := h.online(b)
	h.m.Reboot()
	p.gone()
	h.until("^boot.rom")
	h.until("\r\nRDY\r\n")
	h.urc("RDY")
	h.urc("^MODE: 17,17")
	h.urc("+CPIN: READY")
	h.until("+NITZ")
	h.until("\r\n")
	if got := h.cmd("AT", "OK"); got != "AT\r" {
		t.Fatalf("echo is %q after a reboot", got)
	}
	h.setUp()
	h.answers("AT+ECMTCONN?", "+ECMTCONN:0,4")
	h.answers(`AT+ECMTCFG="keepalive",0`, `+ECMTCFG: "keepalive",120`)
	h.refused("AT+ECMTDISC=0")
	h.online(b)
}

func TestECRSTAnswersAndThenReboots(t *testing.T) {
	h := power(t, Options{BootTime: time.Millisecond}).setUp()
	for i, cmd := range []string{"AT+ECRST", "AT+CFUN=1,1"} {
		h.ok(cmd)
		h.until("\r\nRDY\r\n")
		h.until("+NITZ")
		h.until("\r\n")
		h.setUp()
		if n := h.m.Stats().Reboots; n != i+1 {
			t.Fatalf("%d reboots", n)
		}
	}
}

func TestARebootInTheMiddleOfACommandLosesItsAnswer(t *testing.T) {
	h := power(t, Options{BootTime: time.Millisecond, LateBy: 50 * time.Millisecond}).setUp()
	h.m.SetTraps(Traps{LateOK: 1})
	h.write("AT+CGMM\r")
	eventually(t, "the command executes", func() bool { return h.m.Stats().Commands == 3 })
	h.m.SetTraps(Traps{})
	h.m.Reboot()
	if got := h.until("\r\nRDY\r\n"); strings.Contains(got, "OK") {
		t.Fatalf("got %q", got)
	}
	h.until("+NITZ")
	h.until("\r\n")
	h.setUp()
	h.quiet()
}

func TestTheHostMayCloseThePortAndComeBack(t *testing.T) {
	h := power(t, Options{}).setUp()
	for range 3 {
		h.f.Close()
		h.plug()
		h.ok("AT")
	}
}

func TestOutputForAnAbsentHostIsDiscarded(t *testing.T) {
	h := power(t, Options{}).setUp()
	for i := 0; h.m.Stats().UARTDiscarded == 0; i++ {
		h.m.after0(func() { h.m.urc(strings.Repeat("x", 1000)) })
		if i > 1_000_000 {
			t.Fatal("nothing was discarded")
		}
	}
	eventually(t, "the line is idle again", func() bool {
		h.m.uart.mu.Lock()
		defer h.m.uart.mu.Unlock()
		return len(h.m.uart.out) == 0
	})
	h.write("AT+CGMM\r")
	h.until("EC618")
}

// after0 runs f on the engine goroutine.
func (m *Module) after0(f func()) { _ = m.do(f) }

func TestAPacedLineTakesItsTime(t *testing.T) {
	h := power(t, Options{Baud: 9600}).setUp()
	start := time.Now()
	h.write(strings.Repeat("AT+CGDCONT?\r", 1)) // 12 bytes in
	n := len(h.until("\r\nOK\r\n")) + 6         // these out
	least := time.Duration(12+n-2*16) * 10 * time.Second / 9600
	if d := time.Since(start); d < least {
		t.Fatalf("%d bytes took %v, less than %v", n+12, d, least)
	}
	h.answers("AT+IPR?", "+IPR: 9600")
	h.ok("AT+IPR=115200")
	h.answers("AT+IPR?", "+IPR: 115200")
}

func TestAHostAtTheWrongSpeedHearsAndSendsNoise(t *testing.T) {
	h := power(t, Options{Traps: Traps{BaudMatters: 1}})
	speed := func(code uint32) {
		tio, err := unixTermios(h.f)
		if err != nil {
			t.Fatal(err)
		}
		tio.Cflag = tio.Cflag&^cbaud | code
		if err := setUnixTermios(h.f, tio); err != nil {
			t.Fatal(err)
		}
	}
	speed(baudRates[9600])
	h.write("AT\r")
	eventually(t, "a mistake", func() bool { return h.m.Stats().Mistakes[MistakeBaud] > 0 })
	speed(baudRates[115200])
	h.setUp()
}

func TestStatsAreReadableAfterClose(t *testing.T) {
	h := power(t, Options{}).setUp()
	if err := h.m.Close(); err != nil {
		t.Fatal(err)
	}
	h.m.SetLink(false) // does nothing, and does not hang
	h.m.Reboot()
	if s := h.m.Stats(); s.Commands != 2 || s.UARTIn != int64(len("ATE0\rAT+CMEE=1\r")) {
		t.Fatalf("%+v", s)
	}
}
