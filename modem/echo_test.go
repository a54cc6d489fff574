package modem

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// silence lets time pass, and returns how often the link was tested in it.
func (f *fake) silence(d time.Duration) int {
	before := len(f.heard("AT+ECMTUNS"))
	time.Sleep(d)
	synctest.Wait()
	return len(f.heard("AT+ECMTUNS")) - before
}

func TestAnIdleConnectionIsTestedOnceAKeepAliveAndEndsWithoutAnAnswer(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		defer s.Close()
		if n := f.silence(10*time.Minute + time.Second); n < 8 || n > 10 {
			t.Errorf("tested %d times in ten minutes", n)
		}
		// What is heard puts it off.
		var o outcomes
		for range 20 {
			o.publish(s, text("x"))
			if n := f.silence(30 * time.Second); n != 0 {
				t.Errorf("tested in spite of a publish")
			}
		}
		for range 20 {
			f.say("+ECMTRECV: 0,0,\"c\",on\r\n")
			if n := f.silence(30 * time.Second); n != 0 {
				t.Errorf("tested in spite of a message")
			}
		}
		f.on("AT+ECMTUNS", ok) // and nothing more
		time.Sleep(time.Minute + m.o.Timing.Ack)
		synctest.Wait()
		if err := s.Err(); !errors.Is(err, errHalfOpen) {
			t.Errorf("ended for %v", err)
		}
	})
}

func TestATestOfTheLinkThatTheModuleRefuses(t *testing.T) {
	for _, test := range []struct {
		name, answer, state string
		ends                bool
	}{
		{"connected", "\r\n+CME ERROR: 3\r\n", "\r\n+ECMTCONN:0,3\r\n" + ok, false},
		{"not connected", "\r\n+CME ERROR: 3\r\n", "\r\n+ECMTCONN:0,4\r\n" + ok, true},
		{"not sent", ok + "\r\n+ECMTUNS: 0,1,2\r\n", "", true},
		{"an answer to something else", ok + "\r\n+ECMTUNS: 0,1,1\r\n", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := registered(t)
			withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
				s := connected(t, m, nobody)
				defer s.Close()
				f.on("AT+ECMTUNS", test.answer)
				if test.state != "" {
					f.on("AT+ECMTCONN?", test.state)
				}
				n := f.silence(90 * time.Second)
				if ended := s.Err() != nil; n != 1 || ended != test.ends {
					t.Errorf("tested %d times, ended: %v", n, s.Err())
				}
				if n := f.silence(10 * time.Minute); test.name == "connected" && n != 0 {
					t.Errorf("asked %d times more for what the module does not have", n)
				}
			})
		})
	}
}

// A firmware that swallows the answer must not cost a good connection.
func TestAModuleThatHasNeverPassedOnAnAnswerIsNotTested(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTUNS", ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		defer s.Close()
		if n := f.silence(time.Hour); n != 1 || s.Err() != nil {
			t.Errorf("tested %d times, ended: %v", n, s.Err())
		}
	})
}

// A publish under way has a timer of its own.
func TestALinkIsNotTestedWhileAPublishIsUnderWay(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTPUB", ok)
	withModem(t, f, Options{Timing: Timing{Ack: 5 * time.Minute}}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		defer s.Close()
		var o outcomes
		o.publish(s, text("x"))
		if n := f.silence(4 * time.Minute); n != 0 {
			t.Errorf("tested %d times", n)
		}
		time.Sleep(2 * time.Minute)
		if err := s.Err(); !errors.Is(err, holdfast.ErrUnknown) {
			t.Errorf("ended for %v", err)
		}
	})
}

// Quectel firmware tells that it repeats itself, which is what it does on a connection
// that is half open.
func TestARepetitionIsNoSignOfLife(t *testing.T) {
	f := registered(t)
	f.on("AT+QMTOPEN=?", "\r\n+QMTOPEN: (0-5)\r\n"+ok)
	f.on("AT+ECMTCFG=?", "\r\nERROR\r\n")
	f.on("AT+QMTOPEN=0", ok+"\r\n+QMTOPEN: 0,0\r\n")
	f.on("AT+QMTCONN=0", ok+"\r\n+QMTCONN: 0,0,0\r\n")
	f.on("AT+QMTCONN?", "\r\n+QMTCONN: 0,3\r\n"+ok)
	answer := func(results ...string) {
		f.onFunc("AT+QMTUNS", func(cmd string) string {
			said := ok
			for _, r := range results {
				said += "\r\n+QMTUNS: 0," + field(cmd, 1) + "," + r + "\r\n"
			}
			return said
		})
	}
	answer("1", "0")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		defer s.Close()
		time.Sleep(10 * time.Minute)
		if n := len(f.heard("AT+QMTUNS")); n < 8 || s.Err() != nil {
			t.Fatalf("tested %d times, ended: %v", n, s.Err())
		}
		answer("1", "1")
		time.Sleep(time.Minute + m.o.Timing.Ack)
		synctest.Wait()
		if err := s.Err(); !errors.Is(err, errHalfOpen) {
			t.Errorf("ended for %v", err)
		}
	})
}
