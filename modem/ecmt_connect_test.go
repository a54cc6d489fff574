package modem

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast"
)

// try makes one attempt to connect.
func try(t *testing.T, m *Modem, d time.Duration) (*Session, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return m.Connect(ctx, login, nobody)
}

func TestALoginSendsAllThreeStrings(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		l := login
		l.Username, l.Password = "", ""
		s, err := m.Connect(context.Background(), l, nobody)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got := f.heard("AT+ECMTCONN=0"); !slices.Equal(got, []string{`AT+ECMTCONN=0,"gw1","",""`}) {
			t.Errorf("got %q", got)
		}
		if st := m.Status(); st.State != StateConnected || st.Counters.Connects != 1 {
			t.Errorf("%s, %+v", st.State, st.Counters)
		}
	})
}

func TestEveryConnectionIsConfiguredAnew(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		l := login
		l.Will = &holdfast.Message{Topic: "state", Payload: []byte("gone"), QoS: 1, Retain: true}
		want := []string{
			`AT+ECMTCFG="version",0,4`, `AT+ECMTCFG="cloud",0,4,1`, `AT+ECMTCFG="keepalive",0,60`,
			`AT+ECMTCFG="session",0,1`, `AT+ECMTCFG="will",0,1,1,1,"state","gone"`,
		}
		for range 2 {
			f.forget()
			s, err := m.Connect(context.Background(), l, nobody)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.heard(`AT+ECMTCFG="`); !slices.Equal(got, want) {
				t.Errorf("got %q", got)
			}
			s.Close()
		}
	})
}

func TestAWillThatCannotBeCarriedIsLeftOut(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		l := login
		l.Will = &holdfast.Message{Topic: "state", Payload: []byte(`{"up":false}`)}
		s, err := m.Connect(context.Background(), l, nobody)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if got := f.heard(`AT+ECMTCFG="will"`); len(got) != 0 {
			t.Errorf("got %q", got)
		}
	})
}

func TestLoginResults(t *testing.T) {
	for _, c := range []struct {
		name, says string
		words      string // of the error; "" is success
		code       int
	}{
		{"plain", "+ECMTCONN: 0,0,0", "", 0},
		{"without the space", "+ECMTCONN:0,0,0", "", 0},
		{"the short spelling", "+ECMTCON:0,0,0", "", 0},
		{"refused, second field 0", "+ECMTCONN: 0,0,5", "not authorized (5)", 5},
		{"refused in the short spelling", "+ECMTCON:0,0,5", "check username and password of [[bridge]], and that the client id may connect", 5},
		{"refused in the short spelling with a space", "+ECMTCON: 0,0,5", "not authorized (5)", 5},
		{"refused, as the manual has it", "+ECMTCONN: 0,1,4", "bad user name or password (4)", 4},
		{"identifier", "+ECMTCONN: 0,0,2", "identifier rejected (2); check client_id", 2},
		{"a code that MQTT does not know", "+ECMTCONN: 0,0,135", "code 135", 135},
		{"could not send", "+ECMTCONN: 0,2,2", "could not send", 0},
		{"could not read the answer", "+ECMTCONN: 0,0,6", "could not read the answer", 0},
		{"could not send, then accepted", "+ECMTCONN: 0,2,2\r\n\r\n+ECMTCONN: 0,0,0", "", 0},
		{"could not send, then refused", "+ECMTCONN: 0,2,2\r\n\r\n+ECMTCONN: 0,0,5", "not authorized (5)", 5},
		{"two fields", "+ECMTCONN: 0,0", "cannot be understood", 0},
		{"nothing", "+CEREG: 1", "did not answer the login", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := registered(t)
			f.on("AT+ECMTCONN=0", ok+"\r\n"+c.says+"\r\n")
			withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
				s, err := try(t, m, 5*time.Minute)
				if c.words == "" {
					if err != nil {
						t.Fatal(err)
					}
					s.Close()
					return
				}
				if err == nil || !strings.Contains(err.Error(), c.words) {
					t.Fatalf("got %v", err)
				}
				var refused *RefusedError
				if errors.As(err, &refused) != (c.code != 0) || (refused != nil && refused.Code != c.code) {
					t.Errorf("typed error %+v", refused)
				}
				if n := m.Status().Counters.Resets; n != 0 {
					t.Errorf("%d resets", n)
				}
			})
		})
	}
}

func TestARefusalIsNotTheModulesFault(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTCONN=0", ok+"\r\n+ECMTCONN: 0,0,5\r\n")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		for range 20 {
			if _, err := try(t, m, time.Minute); err == nil {
				t.Fatal("connected")
			}
		}
		s := m.Status()
		if s.Counters.Refused != 20 || s.Counters.Resets != 0 || s.State != StateReady {
			t.Errorf("%+v", s)
		}
		// The refused connection is ended in the module, which believes that
		// it is connected.
		if n := len(f.heard("AT+ECMTDISC")); n < 20 {
			t.Errorf("%d times disconnected", n)
		}
	})
}

func TestTheResultOfALoginMayComeBeforeItsOK(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTOPEN", "\r\n+ECMTOPEN: 0,0\r\n"+ok)
	f.on("AT+ECMTCONN=0", "\r\n+ECMTCONN: 0,0,0\r\n"+ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		connected(t, m, nobody).Close()
	})
}

func TestAnOpenWithoutAResultIsTriedAgainAndThenTheModuleIsReset(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTOPEN", ok)
	f.on("AT+ECMTCONN?", "\r\n+ECMTCONN:0,3\r\n"+ok)
	f.on("AT+ECMTDISC", ok+"\r\n+ECMTDISC: 0,0\r\n")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		_, err := try(t, m, 10*time.Minute)
		if !errors.Is(err, errSilentOpen) {
			t.Fatalf("got %v", err)
		}
		if n := len(f.heard("AT+ECMTOPEN")); n != 2 {
			t.Errorf("opened %d times", n)
		}
		if n := len(f.heard("AT+ECMTDISC")); n < 2 {
			t.Errorf("disconnected %d times", n)
		}
		time.Sleep(time.Minute)
		if got := f.heard("AT+CFUN="); !slices.Equal(got, []string{"AT+CFUN=0", "AT+CFUN=1"}) {
			t.Errorf("reset by %q", got)
		}
		f.on("AT+ECMTOPEN", ok+"\r\n+ECMTOPEN: 0,0\r\n")
		connected(t, m, nobody).Close()
	})
}

func TestAClientThatNeitherConnectsNorLetsGoIsReset(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTCONN?", "\r\n+ECMTCONN:0,2\r\n"+ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		for range 2 {
			if _, err := try(t, m, time.Minute); !errors.Is(err, errStuck) {
				t.Errorf("got %v", err)
			}
		}
		if n := len(f.heard("AT+ECMTOPEN")); n != 0 {
			t.Errorf("opened %d times in a state in which OK means nothing", n)
		}
		time.Sleep(time.Minute)
		if c := m.Status().Counters; c.Resets != 1 || c.ModuleResets != 1 { // the radio does not mend that
			t.Errorf("%d resets, %d of the module", c.Resets, c.ModuleResets)
		}
	})
}

func TestAClientThatRepairsItselfIsWaitedForAndEnded(t *testing.T) {
	f := registered(t)
	f.sequence("AT+ECMTCONN?", "\r\n+ECMTCONN:0,2\r\n"+ok, "\r\n+ECMTCONN:0,3\r\n"+ok)
	f.once("AT+ECMTDISC", ok+"\r\n+ECMTDISC: 0,0\r\n")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		connected(t, m, nobody).Close()
	})
}

func TestALoginResultDuringTheOpeningIsThatOfAnOldConnection(t *testing.T) {
	f := registered(t)
	f.sequence("AT+ECMTOPEN", ok+"\r\n+ECMTCONN: 0,0,0\r\n")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		begun := time.Now()
		connected(t, m, nobody).Close()
		if d := time.Since(begun); d > 30*time.Second {
			t.Errorf("it took %v", d)
		}
		if n := len(f.heard("AT+ECMTOPEN")); n != 2 {
			t.Errorf("opened %d times", n)
		}
	})
}

func TestAFailedOpenIsExplained(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		f.on("AT+ECMTOPEN", ok+"\r\n+ECMTOPEN: 0,-1\r\n")
		if _, err := try(t, m, time.Minute); err == nil || !strings.Contains(err.Error(), "could not reach broker.example:1883") {
			t.Errorf("got %v", err)
		}
		f.on("AT+ECMTOPEN", "\r\n+CME ERROR: 3\r\n")
		if _, err := try(t, m, time.Minute); err == nil || !strings.Contains(err.Error(), "no data connection") {
			t.Errorf("got %v", err)
		}
	})
}

func TestABrokerThatIsAwayForLongCausesFewResets(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTOPEN", ok+"\r\n+ECMTOPEN: 0,-1\r\n")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		for range 100 {
			if _, err := try(t, m, 10*time.Minute); err == nil {
				t.Fatal("connected")
			}
		}
		if n := m.Status().Counters.Resets; n < 2 || n > 8 {
			t.Errorf("%d resets in 100 failures", n)
		}
	})
}

func TestConnectionsThatFailSoonCountLessAgainstTheModule(t *testing.T) {
	f := registered(t)
	for _, c := range []struct {
		name   string
		answer string
		enough int
	}{
		{"refused by the far side", ok + "\r\n+ECMTOPEN: 0,-1\r\n", 12},
		{"refused by the module", "\r\n+CME ERROR: 3\r\n", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.on("AT+ECMTOPEN", c.answer)
			withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
				for n := 1; n <= c.enough; n++ {
					if _, err := try(t, m, 10*time.Minute); err == nil {
						t.Fatal("connected")
					}
					if up := m.Status().State == StateReady; up != (n < c.enough) {
						t.Fatalf("after %d failures the module is to be reset: %v", n, !up)
					}
				}
			})
		})
	}
}

func TestConnectGivesUpWithItsContext(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTOPEN", ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		up(t, m)
		begun := time.Now()
		_, err := try(t, m, 5*time.Second)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 20*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		f.on("AT+ECMTOPEN", ok+"\r\n+ECMTOPEN: 0,0\r\n")
		connected(t, m, nobody).Close()
	})
}

func TestThereIsOneConnectionAtATime(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		if _, err := try(t, m, time.Second); err == nil || !strings.Contains(err.Error(), "one only") {
			t.Errorf("got %v", err)
		}
		s.Close()
		connected(t, m, nobody).Close()
	})
}

func TestARebootDuringTheLoginEndsIt(t *testing.T) {
	f := registered(t)
	f.once("AT+ECMTCONN=0", ok+"\r\nRDY\r\n")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		if _, err := try(t, m, time.Minute); !errors.Is(err, errRebooted) {
			t.Errorf("got %v", err)
		}
		connected(t, m, nobody).Close()
	})
}

func TestImpossibleLoginsAreRefused(t *testing.T) {
	for _, change := range []func(*Login){
		func(l *Login) { l.Host = "" },
		func(l *Login) { l.Host = strings.Repeat("h", 128) },
		func(l *Login) { l.Port = 70000 },
		func(l *Login) { l.ClientID = "" },
		func(l *Login) { l.ClientID = strings.Repeat("c", 49) },
		func(l *Login) { l.Username = strings.Repeat("c", 49) },
		func(l *Login) { l.Password = strings.Repeat("c", 129) },
		func(l *Login) { l.Password = `a"b` },
		func(l *Login) { l.Username = "a\rAT+ECRST" },
		func(l *Login) { l.KeepAlive = 2 * time.Hour },
	} {
		l := login
		change(&l)
		for _, c := range []mqttCommands{&ecmt{}, &qmt{}, &cmqtt{}} {
			err := c.check(l)
			long := len(l.Host) > 100 || len(l.ClientID) == 49 || len(l.Username) == 49 || len(l.Password) == 129
			if err == nil && (c.name() == "ecmt" || !long) {
				t.Errorf("%s took %+v", c.name(), l)
			}
			if err != nil && strings.Contains(err.Error(), `a"b`) {
				t.Errorf("%s: %v", c.name(), err)
			}
		}
	}
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		l := login
		l.ClientID = strings.Repeat("c", 49)
		if _, err := m.Connect(t.Context(), l, nobody); err == nil || len(f.heard("AT+ECMT")) != 1 {
			t.Errorf("%v after %q", err, f.heard("AT+ECMT"))
		}
	})
}

func TestCloseDisconnectsTheModule(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		f.forget()
		f.on("AT+ECMTDISC", ok+"\r\n+ECMTDISC: 0,0\r\n")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s.Close()
		if n := len(f.heard("AT+ECMTDISC")); n != 1 {
			t.Errorf("disconnected %d times", n)
		}
		select {
		case <-s.Done():
		default:
			t.Error("Done is open")
		}
		if !errors.Is(s.Err(), holdfast.ErrClosed) || m.Status().State != StateReady {
			t.Errorf("%v, %s", s.Err(), m.Status().State)
		}
	})
}

func TestCloseTakesNoLongerThanItMay(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		f.die()
		s.Publish(text("x"), false, func(error) {})
		begun := time.Now()
		s.Close()
		if d := time.Since(begun); d > 11*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

func TestTheCloseOfAnOldSessionLeavesTheNewOneAlone(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		old := connected(t, m, nobody)
		f.say("\r\n+ECMTSTAT: 0,1\r\n")
		<-old.Done()
		s := connected(t, m, nobody)
		f.forget()
		old.Close()
		if n := len(f.heard("AT+ECMT")); n != 0 {
			t.Errorf("%d commands", n)
		}
		if s.Err() != nil {
			t.Error(s.Err())
		}
		s.Close()
	})

}

func TestAClientThatStaysStuckIsResetHarderEachTime(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTOPEN", ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		for range 4 {
			try(t, m, 10*time.Minute)
			time.Sleep(10 * time.Minute) // up all the time: that proves nothing
		}
		var got []string
		for _, c := range f.heard("AT+") {
			if c == "AT+CFUN=0" || c == "AT+ECRST" {
				got = append(got, c)
			}
		}
		if !slices.Equal(got, []string{"AT+CFUN=0", "AT+ECRST", "AT+ECRST", "AT+ECRST"}) {
			t.Errorf("got %q", got)
		}
	})
}
