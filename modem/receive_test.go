package modem

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// mailbox gathers received messages.
type mailbox struct {
	mu  sync.Mutex
	all []*holdfast.Message
}

func (b *mailbox) receive(msg *holdfast.Message, again bool, ack func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, msg)
}

func (b *mailbox) get() []*holdfast.Message {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all
}

func TestReceivedMessages(t *testing.T) {
	for _, c := range []struct {
		name, says, topic, payload string
		qos                        byte
	}{
		{"plain", `+ECMTRECV: 0,0,"a/b",21.5`, "a/b", "21.5", 0},
		{"in quotes", `+ECMTRECV: 0,7,"a/b","21.5"`, "a/b", "21.5", 1},
		{"without the space", `+ECMTRECV:0,0,"a/b",on`, "a/b", "on", 0},
		{"an object", `+ECMTRECV: 0,0,"a/b",{"x":"y, z","n":[1,2]}`, "a/b", `{"x":"y, z","n":[1,2]}`, 0},
		{"an object in quotes", `+ECMTRECV: 0,0,"a/b","{"x":1}"`, "a/b", `{"x":1}`, 0},
		{"commas and a quote at one end", `+ECMTRECV: 0,0,"a,b",1,2,"3"`, "a,b", `1,2,"3"`, 0},
		{"empty", `+ECMTRECV: 0,0,"a/b",`, "a/b", "", 0},
		{"an object over lines with a line OK", "+ECMTRECV: 0,0,\"a\",{\r\n\"x\":\r\nOK\r\n\r\n+ECMTSTAT: 0,1\r\n}", "a", "{\r\n\"x\":\r\nOK\r\n\r\n+ECMTSTAT: 0,1\r\n}", 0},
		{"an object with line feeds", "+ECMTRECV: 0,0,\"a\",{\n \"x\": \"}\"\n}", "a", "{\n \"x\": \"}\"\n}", 0},
		{"quotes over lines", "+ECMTRECV: 0,0,\"a\",\"one\r\nOK\r\ntwo\"", "a", "one\r\nOK\r\ntwo", 0},
		{"text over lines", "+ECMTRECV: 0,0,\"a\",one\r\nERROR\r\ntwo", "a", "one\r\nERROR\r\ntwo", 0},
		{"an object that was cut at a NUL", `+ECMTRECV: 0,0,"a",{"x":`, "a", `{"x":`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := registered(t)
			f.on("AT+CSQ", "")
			withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
				f.on("AT+CSQ", "\r\n+CSQ: 20,99\r\n"+ok)
				var box mailbox
				s := connected(t, m, box.receive)
				defer s.Close()
				f.say("\r\n" + c.says + "\r\n")
				time.Sleep(time.Second)
				got := box.get()
				if len(got) != 1 || got[0].Topic != c.topic || string(got[0].Payload) != c.payload || got[0].QoS != c.qos {
					t.Fatalf("got %d: %+v", len(got), got)
				}
				if s.Err() != nil {
					t.Errorf("the session ended: %v", s.Err())
				}
				if st := m.Status().Counters; st.ReceivedMsgs != 1 || st.PayloadIn != uint64(len(c.topic)+len(c.payload)) {
					t.Errorf("counters %+v", st)
				}
			})
		})
	}
}

func TestAPayloadWithOKDoesNotAnswerAPublish(t *testing.T) {
	f := registered(t)
	f.on("AT+ECMTPUB", "\r\n+ECMTRECV: 0,0,\"cmd\",{\"a\":1,\r\nOK\r\n}\r\n\r\n+CME ERROR: 3\r\n")
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		var box mailbox
		s := connected(t, m, box.receive)
		var o outcomes
		o.publish(s, text("x"))
		<-s.Done()
		if err := o.get()[0]; err == nil {
			t.Error("the payload was taken for the answer")
		}
		if got := box.get(); len(got) == 0 || string(got[0].Payload) != "{\"a\":1,\r\nOK\r\n}" {
			t.Errorf("got %v", got)
		}
		s.Close()
	})
}

func TestAMessageThatCannotBeReadIsCounted(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		var box mailbox
		s := connected(t, m, box.receive)
		defer s.Close()
		f.say("\r\n+ECMTRECV: 0\r\n\r\n+ECMTRECV: 0,0,topic,x\r\n\r\n+ECMTRECV: 0,0,\"\",x\r\n")
		f.say("\r\n+ECMTRECV: 0,0,\"t\"," + strings.Repeat("x", 9000) + "\r\n\r\n")
		time.Sleep(time.Second)
		if n := m.Status().Counters.Unreadable; n != 4 || len(box.get()) != 0 {
			t.Errorf("%d counted, %d received", n, len(box.get()))
		}
	})
}

func TestAReceiverThatIsSlowDelaysNoAcknowledgement(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		gate := make(chan struct{})
		n := 0
		s := connected(t, m, func(*holdfast.Message, bool, func()) { <-gate; n++ })
		const sent, size = inboxBytes/1000 + 50, 1000
		for range sent {
			f.say("\r\n+ECMTRECV: 0,0,\"t\"," + strings.Repeat("x", size-1) + "\r\n")
			synctest.Wait()
		}
		time.Sleep(time.Second)
		var o outcomes
		o.publish(s, text("x"))
		if err := o.get()[0]; err != nil {
			t.Error(err)
		}
		close(gate)
		s.Close()
		if st := m.Status().Counters; n != inboxBytes/size+1 || st.ReceivedMsgs != uint64(n) || st.Discarded != uint64(sent-n) {
			t.Errorf("%d received, %+v", n, st)
		}
	})
}

func TestSubscriptions(t *testing.T) {
	for _, c := range []struct{ name, reply, words string }{
		{"granted", ok + "\r\n+ECMTSUB: 0,%,0,1\r\n", ""},
		{"granted before OK", "\r\n+ECMTSUB: 0,%,0,1\r\n" + ok, ""},
		{"granted without a value", ok + "\r\n+ECMTSUB: 0,%,0\r\n", ""},
		{"bad answer", ok + "\r\n+ECMTSUB: 0,%,1\r\n", "check the filter"},
		{"not sent", ok + "\r\n+ECMTSUB: 0,%,2\r\n", "could not send"},
		{"no answer", ok, "did not answer"},
		{"rejected", "\r\n+CME ERROR: 3\r\n", "operation not allowed"},
		{"lost meanwhile", ok + "\r\n+ECMTSTAT: 0,1\r\n", "lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := registered(t)
			f.onFunc("AT+ECMTSUB", func(cmd string) string {
				return strings.ReplaceAll(c.reply, "%", field(cmd, 1))
			})
			withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
				s := connected(t, m, nobody)
				defer s.Close()
				err := s.Subscribe(context.Background(), "cmd/#", 1)
				if (c.words == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.words)) {
					t.Errorf("got %v", err)
				}
				if got := f.heard("AT+ECMTSUB"); len(got) != 1 || !strings.HasSuffix(got[0], `,"cmd/#",1`) {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

func TestFiltersThatCannotBeCarriedAreRefused(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		s := connected(t, m, nobody)
		defer s.Close()
		for _, filter := range []string{"", strings.Repeat("x", 256), `a"b`, "a\rb"} {
			if err := s.Subscribe(context.Background(), filter, 1); err == nil {
				t.Errorf("%q was taken", filter)
			}
		}
		if n := len(f.heard("AT+ECMTSUB")); n != 0 {
			t.Errorf("%d commands", n)
		}
	})
}

func FuzzReceived(f *testing.F) {
	f.Add(`+ECMTRECV: 0,0,"a/b",{"x":1}`)
	f.Add(`+ECMTRECV: 0,0,"a/b","`)
	f.Fuzz(func(t *testing.T, line string) {
		if topic, payload, ok := parseReceived(line); ok && (topic == "" || !strings.Contains(line, payload)) {
			t.Fatalf("%q, %q", topic, payload)
		}
		openPayload(line)
		isRegReply(line)
		loginResult(line)
	})
}

func TestAMessageAfterTheLossOfTheConnectionIsTakenUntilClose(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		var box mailbox
		s := connected(t, m, box.receive)
		// The firmware reconnects by itself and acknowledges what comes.
		f.say("\r\n+ECMTSTAT: 0,1\r\n\r\n+ECMTCONN: 0,0,0\r\n\r\n+ECMTRECV: 0,1,\"t\",x\r\n")
		time.Sleep(time.Second)
		if n := len(box.get()); n != 1 {
			t.Errorf("%d received", n)
		}
		s.Close()
		// Nobody takes it now: it waits for the next session, before what comes then.
		f.say("\r\n+ECMTRECV: 0,1,\"t\",y\r\n")
		time.Sleep(time.Second)
		connected(t, m, box.receive).Close()
		all := box.get()
		if n := m.Status().Counters.Discarded; n != 0 || len(all) != 2 || string(all[1].Payload) != "y" {
			t.Errorf("%d discarded, received: %v", n, all)
		}
	})
}

func TestWhatIsLeftOverIsForTheSameLoginAndBounded(t *testing.T) {
	f := registered(t)
	withModem(t, f, Options{}, func(t *testing.T, m *Modem) {
		var box mailbox
		connected(t, m, box.receive).Close()
		for range maxLeft + 3 {
			f.say("\r\n+ECMTRECV: 0,1,\"t\",x\r\n")
		}
		time.Sleep(time.Second)
		if n := m.Status().Counters.Discarded; n != 3 {
			t.Errorf("%d discarded, want 3", n)
		}
		other := login
		other.ClientID = "gw2"
		s, err := m.Connect(t.Context(), other, box.receive)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if c := m.Status().Counters; c.Discarded != maxLeft+3 || c.ReceivedMsgs != 0 || len(box.get()) != 0 {
			t.Errorf("%d discarded, %d received", c.Discarded, len(box.get()))
		}
	})
}
