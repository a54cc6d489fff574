package modem

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestAModuleComesUpAndIsKnown(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		up(t, m)
		s := m.Status()
		for _, c := range []struct{ what, got, want string }{
			{"state", string(s.State), "ready"},
			{"dialect", s.Dialect, "ecmt"},
			{"model", s.Model.Value, "EC618-X"},
			{"firmware", s.Firmware.Value, "V1.2"},
			{"IMEI", s.IMEI.Value, "867000000000001"},
			{"ICCID", s.ICCID.Value, "89860000000000000001"},
			{"IMSI", s.IMSI.Value, "460000000000001"},
			{"SIM", s.SIM.Value, "READY"},
			{"registration", s.Registration.Value, "registered, home network"},
			{"operator", s.Operator.Value, "TESTNET"},
			{"IP", s.IP.Value, "10.1.2.3"},
			{"problem", s.Problem, ""},
		} {
			if c.got != c.want {
				t.Errorf("%s is %q, want %q", c.what, c.got, c.want)
			}
		}
		if s.Signal.CSQ != 20 || s.Signal.DBm != -73 {
			t.Errorf("signal %+v", s.Signal)
		}
		before := s.Signal.At
		time.Sleep(90 * time.Second)
		if after := m.Status().Signal.At; !after.After(before) {
			t.Error("the signal was not asked for again")
		}
	})
}

func TestOptionalCommandsMayFail(t *testing.T) {
	f := registered(t)
	for _, c := range []string{"AT+CGMM", "ATI", "AT+CGMR", "AT+CGSN", "AT+CGSN=1", "AT+ECICCID", "AT+ICCID", "AT+CCID", "AT+CIMI",
		"AT+CFUN?", "AT+CGATT?", "AT+CGPADDR=1", "AT+COPS?", "AT+CSQ", "AT+CMEE"} {
		f.on(c, "\r\nERROR\r\n")
	}
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		up(t, m)
	})
}

func TestCommandsThatABootingModuleSwallowsAreRepeated(t *testing.T) {
	f := registered(t)
	f.sequence("AT", "", "")
	f.once("ATE0", "") // lost between two boot messages
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		up(t, m)
		if n := len(f.heard("ATE0")); n != 2 {
			t.Errorf("ATE0 was sent %d times", n)
		}
		if f.opens != 1 {
			t.Errorf("the port was opened %d times", f.opens)
		}
	})
}

func TestTheAPNIsLeftAloneIfItIsRight(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{APN: "internet"}, func(t *testing.T, m *Modem) {
		up(t, m)
		if got := f.heard("AT+CGDCONT=1"); len(got) != 0 {
			t.Errorf("it was set: %q", got)
		}
	})
}

func TestAnAPNThatDiffersIsSetWithTheRadioOff(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{APN: "iot.example", APNUser: "me", APNPassword: "pw"}, func(t *testing.T, m *Modem) {
		up(t, m)
		var got []string
		for _, c := range f.heard("AT+C") {
			if strings.HasPrefix(c, "AT+CFUN=") || strings.HasPrefix(c, "AT+CGDCONT=") || strings.HasPrefix(c, "AT+CGAUTH=") {
				got = append(got, c)
			}
		}
		want := []string{"AT+CFUN=0", `AT+CGDCONT=1,"IPV4V6","iot.example"`, `AT+CGAUTH=1,2,"me","pw"`, "AT+CFUN=1"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	})
}

func TestThePINIsEnteredOnce(t *testing.T) {
	f := registered(t)
	f.sequence("AT+CPIN?", "\r\n+CPIN: SIM PIN\r\n"+ok)
	f.on("AT+CPINR", "\r\n+CPINR: SIM PIN,3,3\r\n"+ok)
	withModem(t, f, Options{PIN: "1234"}, func(t *testing.T, m *Modem) {
		up(t, m)
		if got := f.heard("AT+CPIN="); !slices.Equal(got, []string{`AT+CPIN="1234"`}) {
			t.Errorf("got %q", got)
		}
		// After a reboot the SIM asks again, and the PIN is known to be good.
		f.sequence("AT+CPIN?", "\r\n+CPIN: SIM PIN\r\n"+ok)
		f.say("\r\nRDY\r\n")
		up(t, m)
		time.Sleep(10 * time.Second)
		if got := f.heard("AT+CPIN="); len(got) != 2 {
			t.Errorf("after a reboot: %q", got)
		}
	})
}

func TestAWrongPINIsNeverEnteredTwice(t *testing.T) {
	f := registered(t)
	f.on("AT+CPIN?", "\r\n+CPIN: SIM PIN\r\n"+ok)
	f.sequence("AT+CPINR", "\r\n+CPINR: SIM PIN,3,3\r\n"+ok, "\r\n+CPINR: SIM PIN,2,3\r\n"+ok)
	f.on("AT+CPIN=", "\r\n+CME ERROR: 16\r\n")
	withModem(t, f, Options{PIN: "1234"}, func(t *testing.T, m *Modem) {
		time.Sleep(time.Hour)
		if got := f.heard("AT+CPIN="); len(got) != 1 {
			t.Errorf("got %q", got)
		}
		p := m.Status().Problem
		if !strings.Contains(p, "PIN was refused, 2 attempts left") || strings.Contains(p, "1234") {
			t.Errorf("the problem is %q", p)
		}
		if n := m.Status().Counters.Resets; n != 0 {
			t.Errorf("%d resets for something that no reset mends", n)
		}
	})
}

func TestTheLastAttemptIsLeftToAPerson(t *testing.T) {
	f := registered(t)
	f.on("AT+CPIN?", "\r\n+CPIN: SIM PIN\r\n"+ok)
	f.on("AT+CPINR", "\r\n+CPINR: SIM PIN,1,3\r\n"+ok)
	withModem(t, f, Options{PIN: "1234"}, func(t *testing.T, m *Modem) {
		time.Sleep(time.Hour)
		if got := f.heard("AT+CPIN="); len(got) != 0 {
			t.Errorf("got %q", got)
		}
		if p := m.Status().Problem; !strings.Contains(p, "1 attempt left") {
			t.Errorf("the problem is %q", p)
		}
	})
}

func TestWhatIsWrongIsSaidInWords(t *testing.T) {
	for _, c := range []struct {
		name, cmd, reply string
		words            []string
	}{
		{"no SIM", "AT+CPIN?", "\r\n+CME ERROR: 10\r\n", []string{"no SIM"}},
		{"PUK", "AT+CPIN?", "\r\n+CPIN: SIM PUK\r\n" + ok, []string{"PUK", "phone"}},
		{"PIN wanted", "AT+CPIN?", "\r\n+CPIN: SIM PIN\r\n" + ok, []string{"set pin"}},
		{"denied", "AT+CEREG?", "\r\n+CEREG: 2,3\r\n" + ok, []string{"denied", "activated", "-73 dBm"}},
		{"no network", "AT+CEREG?", "\r\n+CEREG: 2,2\r\n" + ok, []string{"antenna"}},
		{"another dialect", "AT+ECMTCFG=?", "\r\nERROR\r\n", []string{"airm2m", "not supported"}},
		{"noise", "AT", "\x81\x82\xfe\x90", []string{"answered, but not with AT", "not text", "baud rate"}},
		{"a loop", "AT", "AT\r\n", []string{"echoes", "TX and RX"}},
		{"a console", "AT", "\r\nraspberrypi login: ", []string{"login prompt", "serial-getty"}},
		{"a GPS", "AT", "$GPGGA,1,2,3\r\n", []string{"NMEA"}},
		{"silence", "AT", "", []string{"not one byte", "power"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := registered(t)
			f.on(c.cmd, c.reply)
			withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
				ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
				defer cancel()
				_, err := m.Connect(ctx, login, nobody)
				if err == nil || !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("Connect: %v", err)
				}
				for _, w := range c.words {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("%q does not say %q", err, w)
					}
				}
			})
		})
	}
}

func TestARegistrationThatComesLateIsTakenFromItsURC(t *testing.T) {
	f := registered(t)
	f.on("AT+CEREG?", "\r\n+CEREG: 2,2\r\n"+ok)
	withModem(t, f, Options{Timing: Timing{RegPoll: time.Minute}}, func(t *testing.T, m *Modem) {
		time.Sleep(10 * time.Second)
		if s := m.Status(); s.State != StateRegistering || s.Registration.Value != "searching" {
			t.Errorf("%s, %s", s.State, s.Registration.Value)
		}
		f.on("AT+CEREG?", "\r\n+CEREG: 2,5\r\n"+ok)
		f.say("\r\n+CEREG: 5,\"1A2B\",\"01\",7\r\n")
		time.Sleep(time.Second)
		if s := m.Status(); s.State != StateReady || s.Registration.Value != "registered, roaming" {
			t.Errorf("%s, %s", s.State, s.Registration.Value)
		}
	})
}

func TestTheLadderGoesFromReopeningToHarderResets(t *testing.T) {
	f := registered(t)
	f.on("AT+CEREG?", "\r\n+CEREG: 2,2\r\n"+ok)
	var cycles atomic.Int64
	o := Options{PowerCycle: func(context.Context) error { cycles.Add(1); return nil }}
	o.Timing = Timing{Registration: 10 * time.Second}
	withModem(t, f, o, func(t *testing.T, m *Modem) {
		time.Sleep(time.Hour)
		var got []string
		for _, c := range f.heard("AT+") {
			if strings.HasPrefix(c, "AT+CFUN=") || c == "AT+ECRST" {
				got = append(got, c)
			}
		}
		if len(got) < 3 || !slices.Equal(got[:3], []string{"AT+CFUN=0", "AT+CFUN=1", "AT+ECRST"}) || cycles.Load() == 0 {
			t.Errorf("got %q and %d power cycles", got, cycles.Load())
		}
		if n := f.opens; n < 5 || n > 30 {
			t.Errorf("the port was opened %d times in an hour", n)
		}
	})
}

func TestAPortThatComesBackNeedsNoReset(t *testing.T) {
	f := registered(t)
	synctest.Test(t, func(t *testing.T) {
		f.t = t
		var back atomic.Bool
		m, err := New(Options{Name: "lte", Open: func(ctx context.Context) (io.ReadWriteCloser, error) {
			if !back.Load() {
				return nil, errors.New("there is no port")
			}
			return f.open(ctx)
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		time.Sleep(time.Hour)
		if p := m.Status().Problem; !strings.Contains(p, "there is no port") {
			t.Errorf("the problem is %q", p)
		}
		back.Store(true)
		time.Sleep(30 * time.Second)
		if s := m.Status(); s.State != StateReady || s.Counters.Resets != 0 {
			t.Errorf("%s after %d resets", s.State, s.Counters.Resets)
		}
		cancel()
		<-ended
	})
}

func TestAModuleThatRestartsOverAndOverIsSaidToLackPower(t *testing.T) {
	f := registered(t)
	f.on("AT+COPS?", "\r\nRDY\r\n")
	withModem(t, f, Options{Timing: Timing{Operator: time.Second}}, func(t *testing.T, m *Modem) {
		time.Sleep(time.Minute)
		if p := m.Status().Problem; !strings.Contains(p, "power supply") {
			t.Errorf("the problem is %q", p)
		}
	})
}

func TestADeadPortIsOpenedAgain(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		up(t, m)
		f.conn.Close()
		time.Sleep(10 * time.Second)
		up(t, m)
		if f.opens != 2 {
			t.Errorf("opened %d times", f.opens)
		}
	})
}

func TestAModuleThatFallsSilentIsNoticed(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		up(t, m)
		f.die()
		time.Sleep(3 * time.Minute)
		if s := m.Status(); s.State == StateReady || s.Counters.Timeouts == 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestImpossibleOptionsAreRefused(t *testing.T) {
	for _, o := range []Options{
		{},
		{Name: "x"},
		{Name: "x", Port: "/dev/x", Mode: "sockets"},
		{Name: "x", Port: "/dev/x", APNAuth: "mschap"},
		{Name: "x", Port: "/dev/x", Dialect: "emct"},
		{Name: "x", Port: "/dev/x", PIN: "12a4"},
		{Name: "x", Port: "/dev/x", APN: `a"b`},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func TestAModuleThatIsDeadIsPowerCycled(t *testing.T) {
	f := registered(t)
	f.die()
	var cycles atomic.Int64
	o := Options{PowerCycle: func(context.Context) error {
		cycles.Add(1)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.dead = false
		return nil
	}}
	withModem(t, f, o, func(t *testing.T, m *Modem) {
		up(t, m)
		if n := cycles.Load(); n != 1 {
			t.Errorf("%d power cycles", n)
		}
	})
}

func TestARadioThatIsSwitchedOffDoesNotLookLikeALostSIM(t *testing.T) {
	f := registered(t)
	f.on("AT+CGAUTH?", "\r\nERROR\r\n") // so the APN is set at every bring-up
	f.on("AT+CFUN=0", "\r\n+CPIN: NOT READY\r\n"+ok)
	withModem(t, f, Options{APN: "internet", APNUser: "u"}, func(t *testing.T, m *Modem) {
		up(t, m)
		if n := len(f.heard("AT+CFUN=0")); n != 1 {
			t.Errorf("the radio was switched off %d times", n)
		}
	})
}

func TestTheLoginOfTheAccessPoint(t *testing.T) {
	const dcont = "\r\n+CGDCONT: 1,\"IPV4V6\",\"internet\"\r\n" + ok
	for _, c := range []struct {
		name, has, auth string
		takes           string // the only protocol that the module takes
		want            []string
	}{
		{"as it should be", `+CGAUTH: 1,2,"u","p"`, "", "", nil},
		{"another password", `+CGAUTH: 1,2,"u","old"`, "", "", []string{`AT+CGAUTH=1,2,"u","p"`}},
		{"a password that is not read back", `+CGAUTH: 1,2,"u"`, "", "", []string{`AT+CGAUTH=1,2,"u","p"`}},
		{"another user", `+CGAUTH: 1,1,"x","p"`, "", "", []string{`AT+CGAUTH=1,2,"u","p"`}},
		{"another protocol", `+CGAUTH: 1,2,"u","p"`, "pap", "", []string{`AT+CGAUTH=1,1,"u","p"`}},
		{"no CHAP", "", "auto", "1", []string{`AT+CGAUTH=1,2,"u","p"`, `AT+CGAUTH=1,1,"u","p"`}},
		{"nothing at all", "", "chap", "none", []string{`AT+CGAUTH=1,2,"u","p"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := registered(t)
			f.on("AT+CGDCONT?", dcont)
			f.on("AT+CGAUTH?", "\r\n"+c.has+"\r\n"+ok)
			if c.takes != "" {
				f.onFunc("AT+CGAUTH=", func(cmd string) string {
					if field(cmd, 1) == c.takes {
						return ok
					}
					return "\r\n+CME ERROR: 3\r\n"
				})
			}
			withModem(t, f, Options{APN: "internet", APNUser: "u", APNPassword: "p", APNAuth: c.auth}, func(t *testing.T, m *Modem) {
				up(t, m)
				if got := f.heard("AT+CGAUTH="); !slices.Equal(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
				if radio := f.heard("AT+CFUN=0"); (len(radio) > 0) != (c.want != nil) {
					t.Errorf("the radio was switched off %d times", len(radio))
				}
			})
		})
	}
}

func TestAModuleWithoutCEREGIsAskedOtherwise(t *testing.T) {
	f := registered(t)
	f.on("AT+CEREG?", "\r\nERROR\r\n")
	f.on("AT+CGREG?", "\r\nERROR\r\n")
	f.on("AT+CREG?", "\r\n+CREG: 0,5\r\n"+ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		up(t, m)
		if s := m.Status().Registration.Value; s != "registered, roaming" {
			t.Error(s)
		}
	})
}

func TestAConfiguredDialectIsBelieved(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTCFG=?", "\r\nERROR\r\n")
	withModem(t, f, Options{Dialect: "ecmt"}, func(t *testing.T, m *Modem) {
		up(t, m)
		if n := len(f.heard("AT+ECMTCFG=?")); n != 0 {
			t.Errorf("it was asked for %d times", n)
		}
	})
}

func TestTheNetworksTimeIsKnown(t *testing.T) {
	f := registered(t)
	f.on("AT+CCLK?", "\r\n+CCLK: \"80/01/06,00:00:10+00\"\r\n"+ok)
	f.on("AT+CESQ", "\r\n+CESQ: 99,99,255,255,20,46\r\n"+ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		up(t, m)
		if _, known := m.Status().Clock.Now(); known {
			t.Error("a clock that was never set is believed")
		}
		f.say("\r\n+NITZ: 26/11/21,21:00:00+32,0\r\n")
		time.Sleep(10 * time.Second)
		want := time.Date(2026, 11, 21, 13, 0, 10, 0, time.UTC)
		if now, known := m.Status().Clock.Now(); !known || !now.Equal(want) {
			t.Errorf("it is %v, want %v", now, want)
		}
		if s := m.Status().Signal; s.RSRP != -95 || s.RSRQ != -10 {
			t.Errorf("RSRP %v, RSRQ %v", s.RSRP, s.RSRQ)
		}
	})
}

func FuzzParseClock(f *testing.F) {
	f.Add("26/11/21,13:00:00+32")
	f.Add("2026/11/21,13:00:00-08,1")
	f.Fuzz(func(t *testing.T, s string) {
		if v, ok := parseClock(s); ok && (v.Before(earliest) || v.Year() >= 2069) {
			t.Errorf("%q is %v", s, v)
		}
	})
}

func TestModulesAreResetOneAfterTheOther(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTOPEN", ok)
	synctest.Test(t, func(t *testing.T) {
		f.t = t
		// Made in the bubble, or its clock would stand still.
		turn := make(chan struct{}, 1) // taken by another modem
		m, err := New(Options{Name: "lte", Open: f.open, ResetTurn: turn})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		try(t, m, 10*time.Minute)
		time.Sleep(10 * time.Minute)
		if n := m.Status().Counters.Resets; n != 0 {
			t.Errorf("%d resets while another module is reset", n)
		}
		turn <- struct{}{}
		time.Sleep(10 * time.Minute)
		if n := m.Status().Counters.Resets; n != 1 {
			t.Errorf("%d resets after it", n)
		}
		if len(turn) != 1 {
			t.Error("the turn was not given back")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}

// What a firmware swallows without a word is what it has not: no reason to reset it.
func TestAModuleThatSwallowsWhatIsNotNeededComesUp(t *testing.T) {
	for _, cmd := range []string{"AT+QIOPEN=?", "AT+ECSOCR=?", "AT+ECMTCFG=?", "AT+QGDCNT?", "AT+IFC=2,2"} {
		t.Run(cmd, func(t *testing.T) {
			f := registered(t)
			f.on("AT+QMTOPEN=?", "\r\n+QMTOPEN: (0-5)\r\n"+ok)
			f.on("AT+ECMTCFG=?", "\r\nERROR\r\n")
			f.on(cmd, "")
			f.wrap = func(host net.Conn) io.ReadWriteCloser { return &flowPort{Conn: host, h: &history{}} }
			withModem(t, f, Options{FlowControl: true}, func(t *testing.T, m *Modem) {
				time.Sleep(time.Hour)
				st := m.Status()
				if st.State != StateReady || st.Counters.Opens != 1 || st.Dialect != "qmt" {
					t.Errorf("it is %s (%s) after %d openings: %s", st.State, st.Dialect, st.Counters.Opens, st.Problem)
				}
				if n := len(f.heard(cmd)); n > 2 {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
}
