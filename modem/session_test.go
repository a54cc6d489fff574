package modem

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

func TestAPublishIsOneCommandWithItsPayloadInQuotes(t *testing.T) {
	for _, c := range []struct {
		msg  holdfast.Message
		want string
	}{
		{holdfast.Message{Topic: "a/b", Payload: []byte("21.5"), QoS: 1}, `AT+ECMTPUB=0,1,1,0,"a/b","21.5"`},
		{holdfast.Message{Topic: "a/b", Payload: []byte(`{"t":[1,"x"],"u":"\\"}`), QoS: 0, Retain: true}, `AT+ECMTPUB=0,1,0,1,"a/b","{"t":[1,"x"],"u":"\\"}"`},
		{holdfast.Message{Topic: "a,b", Payload: []byte(`"`), QoS: 2}, `AT+ECMTPUB=0,1,2,0,"a,b","""`},
		{holdfast.Message{Topic: "ü", Payload: []byte("\x7f\xff é"), QoS: 1}, "AT+ECMTPUB=0,1,1,0,\"ü\",\"\x7f\xff é\""},
		{holdfast.Message{Topic: "t", QoS: 1, Retain: true}, `AT+ECMTPUB=0,1,1,1,"t",""`},
	} {
		f := registered(t)
		withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
			s := connected(t, m, nobody)
			defer s.Close()
			var o outcomes
			o.publish(s, &c.msg)
			if got := o.get(); got[0] != nil {
				t.Error(got[0])
			}
			if got := f.heard("AT+ECMTPUB"); !slices.Equal(got, []string{c.want}) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if n := m.Status().Counters.PayloadOut; n != uint64(len(c.msg.Topic)+len(c.msg.Payload)) {
				t.Errorf("%d bytes counted", n)
			}
		})
	}
}

func TestAnEmptyPayloadEndsAPromptAtOnce(t *testing.T) {
	f := registered(t)
	// This firmware takes "" for no payload, and asks for data.
	f.on("AT+ECMTPUB", "\r\n> ")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		var o outcomes
		o.publish(s, text(""))
		synctest.Wait()
		f.say(ok + "\r\n+ECMTPUB: 0,1,0\r\n")
		if got := o.get(); got[0] != nil {
			t.Error(got[0])
		}
		s.Close()
	})
}

func TestWhatTheModuleCannotCarryIsRefusedAtOnceAndTheSessionGoesOn(t *testing.T) {
	long := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	topic := func(n int) string { return strings.Repeat("t", n) }
	for _, c := range []struct {
		name string
		msg  holdfast.Message
		want error
	}{
		{"the largest payload", holdfast.Message{Topic: topic(122), Payload: long(1024)}, nil},
		{"the largest topic", holdfast.Message{Topic: topic(255), Payload: long(891)}, nil},
		{"a payload that is too large", holdfast.Message{Topic: "t", Payload: long(1025)}, holdfast.ErrTooLarge},
		{"a topic that is too long", holdfast.Message{Topic: topic(256)}, holdfast.ErrTooLarge},
		{"both together too large", holdfast.Message{Topic: topic(123), Payload: long(1024)}, holdfast.ErrTooLarge},
		{"a line end", holdfast.Message{Topic: "t", Payload: []byte("a\r\nAT+ECRST")}, holdfast.ErrRefused},
		{"a NUL", holdfast.Message{Topic: "t", Payload: []byte("a\x00")}, holdfast.ErrRefused},
		{"a Ctrl-Z", holdfast.Message{Topic: "t", Payload: []byte("a\x1a")}, holdfast.ErrRefused},
		{"a quote in the topic", holdfast.Message{Topic: `a"b`}, holdfast.ErrRefused},
		{"no topic", holdfast.Message{}, holdfast.ErrRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := registered(t)
			withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
				s := connected(t, m, nobody)
				defer s.Close()
				var o outcomes
				o.publish(s, &c.msg)
				o.publish(s, text("next"))
				got := o.get()
				if !errors.Is(got[0], c.want) || (c.want == nil && got[0] != nil) {
					t.Errorf("got %v", got[0])
				}
				if got[1] != nil {
					t.Errorf("the next one got %v", got[1])
				}
			})
		})
	}
}

func TestAcknowledgementsAreMatchedByTheirIdentifier(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTPUB", ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		var o outcomes
		for range 4 {
			o.publish(s, text("x"))
		}
		f.say("\r\n+ECMTPUB: 0,3,0\r\n\r\n+ECMTPUB:0,1,0\r\n\r\n+ECMTPUB: 0,77,0\r\n")
		got := o.get()
		if got[0] != nil || got[1] != errPending || got[2] != nil || got[3] != errPending {
			t.Errorf("got %v", got)
		}
		s.Close()
		if got := o.get(); !errors.Is(got[1], holdfast.ErrUnknown) || !errors.Is(got[3], holdfast.ErrUnknown) {
			t.Errorf("after Close: %v", got)
		}
	})
}

// One beside the window, the state of a bridge, waits until the module has room.
func TestNoMoreThanTheWindowIsUnderWay(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTPUB", ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		defer s.Close()
		var o outcomes
		for range 6 {
			o.publish(s, text("x"))
		}
		if got := o.get(); got[4] != errPending || !errors.Is(got[5], holdfast.ErrFull) || s.Window() != 4 {
			t.Errorf("got %v", got)
		}
		if n := len(f.heard("AT+ECMTPUB")); n != 4 {
			t.Errorf("%d sent", n)
		}
		f.say("\r\n+ECMTPUB: 0,2,0\r\n")
		synctest.Wait()
		if n := len(f.heard("AT+ECMTPUB")); n != 5 {
			t.Errorf("%d sent", n)
		}
	})
}

func TestAPublishMayFollowFromTheEndOfAnother(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		defer s.Close()
		left, end := 1000, make(chan error, 1)
		var next func(error)
		next = func(err error) {
			if left--; left == 0 || err != nil {
				end <- err
				return
			}
			s.Publish(text("x"), false, next)
		}
		s.Publish(text("x"), false, next)
		if err := <-end; err != nil {
			t.Error(err)
		}
	})
}

// Everything that ends an epoch: every publish is of unknown fate, Done is
// closed, and Err says why.
func TestWhatEndsASession(t *testing.T) {
	for _, c := range []struct {
		name, says, words string
		silent            bool
	}{
		{"a link that is lost", "+ECMTSTAT: 0,1", "lost", false},
		{"a reconnect of the firmware's own", "+ECMTCONN: 0,0,0", "by itself", false},
		{"a reconnect in the short spelling", "+ECMTCON:0,0,0", "by itself", false},
		{"a disconnect that nobody asked for", "+ECMTDISC: 0,0", "closed", false},
		{"a reboot", "RDY", "restarted", false},
		{"a boot loader", "^boot.rom'v\x01", "restarted", false},
		{"a data connection that is closed", "+CGEV: ME PDN DEACT 1", "data connection", false},
		{"one that the network closes", `+CGEV: NW DEACT "IP","10.1.2.3",1`, "data connection", false},
		{"a SIM that is gone", "+CPIN: NOT READY", "SIM", false},
		{"a publish that cannot be sent", "+ECMTPUB: 0,1,2", "result 2", false},
		{"an acknowledgement that cannot be read", "+ECMTPUB: 0,1,1", "result 1", false},
		{"an acknowledgement that does not come", "+CEREG: 1", "did not acknowledge", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := registered(t)
			f.on("AT+ECMTPUB", ok)
			withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
				s := connected(t, m, nobody)
				var o outcomes
				o.publish(s, text("a"))
				o.publish(s, text("b"))
				synctest.Wait()
				f.say("\r\n" + c.says + "\r\n")
				if c.silent {
					time.Sleep(time.Minute)
				}
				for _, err := range o.get() {
					if !errors.Is(err, holdfast.ErrUnknown) {
						t.Errorf("a publish got %v", err)
					}
				}
				select {
				case <-s.Done():
				default:
					t.Fatal("Done is open")
				}
				if err := s.Err(); !strings.Contains(err.Error(), c.words) {
					t.Errorf("Err is %q", err)
				}
				var late outcomes
				late.publish(s, text("c"))
				if err := late.get()[0]; err == nil || errors.Is(err, errPending) {
					t.Errorf("a publish after the end got %v", err)
				}
				s.Close()
				f.on("AT+ECMTPUB", ok)
				connected(t, m, nobody).Close()
				if n := m.Status().Counters.Lost; n != 1 {
					t.Errorf("%d lost", n)
				}
			})
		})
	}
}

func TestUnknownPublishesAreSettledInTheirOrder(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTPUB", ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		var mu sync.Mutex
		var order []int
		for i := range 4 {
			s.Publish(text("x"), false, func(error) {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			})
		}
		f.say("\r\n+ECMTSTAT: 0,1\r\n")
		if !slices.Equal(order, []int{0, 1, 2, 3}) {
			t.Errorf("got %v", order)
		}
		s.Close()
	})
}

func TestAPublishRejectedByAModuleWithoutConnectionEndsTheSession(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTPUB", "\r\n+CME ERROR: 3\r\n")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		var o outcomes
		o.publish(s, text("x"))
		<-s.Done()
		if err := o.get()[0]; !errors.Is(err, holdfast.ErrUnknown) || errors.Is(err, holdfast.ErrRefused) {
			t.Errorf("got %v", err)
		}
		s.Close()
	})
}

func TestAPublishRejectedTwiceByAConnectedModuleIsRefused(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTCONN?", "\r\n+ECMTCONN:0,3\r\n"+ok)
	f.on("AT+ECMTDISC", ok+"\r\n+ECMTDISC: 0,0\r\n")
	f.onFunc("AT+ECMTPUB", func(cmd string) string {
		if strings.Contains(cmd, "bad") {
			return "\r\n+CME ERROR: 3\r\n"
		}
		return ok + "\r\n+ECMTPUB: 0," + field(cmd, 1) + ",0\r\n"
	})
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		var o outcomes
		o.publish(s, text("bad"))
		o.publish(s, text("good"))
		if got := o.get(); !errors.Is(got[0], holdfast.ErrRefused) || got[1] != nil {
			t.Errorf("got %v", got)
		}
		if s.Err() != nil {
			t.Errorf("the session ended: %v", s.Err())
		}
		// One after the other: then it is the connection, and nobody's
		// message is given up.
		var worse outcomes
		for range 3 {
			worse.publish(s, text("bad"))
		}
		if got := worse.get(); !errors.Is(got[2], holdfast.ErrUnknown) {
			t.Errorf("got %v", got)
		}
		s.Close()
	})
}

func TestALateAnswerOfTheModuleEndsTheSessionAndIsNoOnesElse(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTPUB", "")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		var o outcomes
		o.publish(s, text("x"))
		time.Sleep(10*time.Second + 100*time.Millisecond)
		f.say(ok + "\r\n+ECMTPUB: 0,1,0\r\n") // in the middle of the resync
		<-s.Done()
		synctest.Wait()
		// The late acknowledgement was a true one.
		if err := o.get()[0]; err != nil {
			t.Errorf("got %v", err)
		}
		s.Close()
		connected(t, m, nobody).Close()
	})
}

func TestIdentifiersOfUnfinishedQoS2MessagesAreNotUsedAgain(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTPUB", ok)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		l := login
		l.CleanSession = false
		s, err := m.Connect(t.Context(), l, nobody)
		if err != nil {
			t.Fatal(err)
		}
		s.Publish(&holdfast.Message{Topic: "t", Payload: []byte("x"), QoS: 2}, false, func(error) {})
		synctest.Wait()
		f.say("\r\n+ECMTSTAT: 0,1\r\n")
		s.Close()
		m.ids.last = 0
		if id := m.ids.take(func(uint16) bool { return false }); id != 2 {
			t.Errorf("got %d", id)
		}
		connected(t, m, nobody).Close() // a clean session: the broker has forgotten
		m.ids.last = 0
		if id := m.ids.take(func(uint16) bool { return false }); id != 1 {
			t.Errorf("got %d", id)
		}
	})
}

func TestPacketIdentifiersGoRoundWithoutZeroAndThoseInUse(t *testing.T) {
	ids := packetIDs{last: 65533}
	inUse := func(id uint16) bool { return id == 65535 || id == 2 }
	for _, want := range []uint16{65534, 1, 3} {
		if got := ids.take(inUse); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
}
