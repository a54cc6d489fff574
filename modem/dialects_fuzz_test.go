package modem

import (
	"bytes"
	"strconv"
	"testing"

	"holdfast/modem/at"
)

func FuzzQMTLines(f *testing.F) {
	for _, s := range []string{
		`+QMTRECV: 0,1,"t",3,"a"b"`, `+QMTRECV: 0,0,"t","payload"`, `+QMTRECV: 0,1,"t",3,"`, `+QMTRECV: 0,1`, "+QMTPUBEX: 0,1,0",
		`+QMTPUBEX: (0-5),(0-65535),(0-2),(0,1),"topic",(1-4096)`, "+QMTCONN: 0,0,5", "+CMQTTRXTOPIC: 0,5",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if msg, ok := parseQMTRecv(line); ok && len(msg.Payload)+len(msg.Topic) > len(line) {
			t.Errorf("%q has %d bytes", line, len(msg.Payload))
		}
		for _, n := range []int{qmtPayload(line), cmqttRaw(line), lastRange(line)} {
			if n < 0 || n > 64<<10 {
				t.Errorf("%q has %d bytes", line, n)
			}
		}
		qmtLogin(line)
	})
}

// A message in any pieces is the message, or none.
func FuzzCMQTTGroups(f *testing.F) {
	f.Add([]byte("topic"), []byte("payload"), 3, 0)
	f.Add([]byte("t"), []byte{}, 1, 1)
	f.Fuzz(func(t *testing.T, topic, payload []byte, size, more int) {
		if len(topic) == 0 || size <= 0 || len(topic)+len(payload) > 4096 {
			return
		}
		m, err := New(Options{Name: "x", Port: "x"})
		if err != nil {
			t.Fatal(err)
		}
		c := &cmqtt{m: m}
		s := newSession(m, nil, c, login, nobody)
		say := func(name string, text string, data []byte) { c.received(s, name, at.Line{Text: text, Data: data}) }
		say("+CMQTTRXSTART", "+CMQTTRXSTART: 0,"+strconv.Itoa(len(topic))+","+strconv.Itoa(len(payload)+max(more, 0)), nil)
		for rest := topic; len(rest) > 0; {
			n := min(size, len(rest))
			say("+CMQTTRXTOPIC", "+CMQTTRXTOPIC: 0,"+strconv.Itoa(n), rest[:n])
			rest = rest[n:]
		}
		for rest := payload; len(rest) > 0; {
			n := min(size, len(rest))
			say("+CMQTTRXPAYLOAD", "+CMQTTRXPAYLOAD: 0,"+strconv.Itoa(n), rest[:n])
			rest = rest[n:]
		}
		say("+CMQTTRXEND", "+CMQTTRXEND: 0", nil)
		select {
		case msg := <-s.inbox:
			if more > 0 || msg.Topic != string(topic) || !bytes.Equal(msg.Payload, payload) {
				t.Errorf("got %q on %q", msg.Payload, msg.Topic)
			}
		default:
			if more <= 0 {
				t.Error("it was not taken")
			}
		}
	})
}
