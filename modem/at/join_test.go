package at

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// recv is a small stand-in for a dialect: payloads in braces are open until
// they are closed.
func recv(line string) (may, open bool) {
	if !strings.HasPrefix(line, "+RECV: ") {
		return false, false
	}
	return true, strings.Count(line, "{") > strings.Count(line, "}")
}

func TestPayloadsThatSpanLines(t *testing.T) {
	for _, c := range []struct {
		name, says string
		urcs       []string
		answered   bool // the command in flight got its OK
	}{
		{"one line", "\r\n+RECV: x\r\n", []string{"+RECV: x"}, false},
		{"an open object takes a line OK", "\r\n+RECV: {\"a\":1,\r\nOK\r\n}\r\n", []string{"+RECV: {\"a\":1,\r\nOK\r\n}"}, false},
		{"an open object takes empty lines", "\r\n+RECV: {\r\n\r\nERROR\r\n\r\n}\r\n", []string{"+RECV: {\r\n\r\nERROR\r\n\r\n}"}, false},
		{"an open object takes bare line feeds", "\r\n+RECV: {\n\"a\": 1\n}\r\n", []string{"+RECV: {\n\"a\": 1\n}"}, false},
		{"text takes a line that no empty line announces", "\r\n+RECV: a\r\nOK\r\nb\r\n", []string{"+RECV: a\r\nOK\r\nb"}, false},
		{"the OK of the command is not joined", "\r\n+RECV: a\r\n\r\nOK\r\n", []string{"+RECV: a"}, true},
		{"after a closed object comes the answer", "\r\n+RECV: {\r\n}\r\n\r\nOK\r\n", []string{"+RECV: {\r\n}"}, true},
		{"two of them", "\r\n+RECV: a\r\n\r\n+RECV: {\r\n}\r\n", []string{"+RECV: a", "+RECV: {\r\n}"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, Options{Open: recv}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
				got := do(e, Command{Text: "AT+X"})
				m.want("AT+X")
				m.say(c.says)
				time.Sleep(sec)
				expectURCs(t, urcs, c.urcs...)
				select {
				case r := <-got:
					if !c.answered || r.err != nil {
						t.Errorf("the command ended with %v", r.err)
					}
				default:
					if c.answered {
						t.Error("the command is not answered")
					}
					m.say(ok)
					<-got
				}
			})
		})
	}
}

func TestASilenceClosesAnOpenPayload(t *testing.T) {
	play(t, Options{Open: recv}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		got := do(e, Command{Text: "AT+X"})
		m.want("AT+X")
		m.say("\r\n+RECV: {\"cut by a NUL\r\n") // never closed
		time.Sleep(60 * time.Millisecond)
		m.say(ok)
		expectLines(t, <-got)
		expectURCs(t, urcs, "+RECV: {\"cut by a NUL")
	})
}

func TestAnOpenPayloadIsBounded(t *testing.T) {
	play(t, Options{Open: recv}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		m.say("\r\n+RECV: {\r\n")
		for range 100 {
			m.say(strings.Repeat("y", 1000) + "\r\n")
		}
		synctest.Wait()
		e.mu.Lock()
		n := len(e.held.text)
		e.mu.Unlock()
		if n > maxJoin {
			t.Errorf("%d bytes are held", n)
		}
	})
}

func TestAnEchoIsNotJoinedToAPayload(t *testing.T) {
	play(t, Options{Open: recv}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		m.say("\r\n+RECV: a\r\n")
		got := do(e, csq)
		m.want("AT+CSQ")
		m.say("AT+CSQ\r\r\n+CSQ: 1,99\r\n" + ok)
		expectLines(t, <-got, "+CSQ: 1,99")
		expectURCs(t, urcs, "+RECV: a")
	})
}
