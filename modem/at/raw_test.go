package at

import (
	"errors"
	"strconv"
	"testing"
	"time"
)

// readSocket is a command whose answer has raw bytes in it.
var readSocket = Command{
	Text: "AT+QIRD=0,1500", Prefixes: []string{"+QIRD"},
	Raw: func(line string) int { n, _ := strconv.Atoi(Args(line)[0]); return n },
}

func TestRawBytesOfAnAnswerAreNotLookedAt(t *testing.T) {
	const raw = "OK\r\n+CME ERROR: 3\r\n\x00\xff> \r\nRDY\r\n"
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		got := do(e, readSocket)
		m.want("AT+QIRD=0,1500")
		m.say("\r\n+QIRD: " + strconv.Itoa(len(raw)) + "\r\n" + raw + "\r\n" + ok)
		if r := <-got; r.err != nil || string(r.r.Data) != raw {
			t.Errorf("got %q, %v", r.r.Data, r.err)
		}
		got = do(e, readSocket)
		m.want("AT+QIRD=0,1500")
		m.say("\r\n+QIRD: 0\r\n" + ok)
		if r := <-got; r.err != nil || len(r.r.Data) != 0 {
			t.Errorf("got %q, %v", r.r.Data, r.err)
		}
		expectURCs(t, urcs)
	})
}

// The late answer to a command that ran out of time has its raw bytes as well.
func TestRawBytesOfALateAnswerAreDiscarded(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		c := readSocket
		c.Timeout = sec
		got := do(e, c)
		m.want("AT+QIRD=0,1500")
		m.want("AT")
		m.say("\r\n+QIRD: 5\r\nRDY\r\n\r\nOK\r\n")
		m.say(ok)
		if r := <-got; r.err == nil {
			t.Error("it did not run out of time")
		}
		expectURCs(t, urcs)
	})
}

func TestErrorsOfSocketsAreFinal(t *testing.T) {
	for _, line := range []string{"+SOCKET ERROR: 3", "+ECSOC ERROR:402"} {
		if err, bad := finalError(line); !bad || !IsRejection(err) {
			t.Errorf("%s is %v", line, err)
		}
	}
	if _, bad := finalError("+SOCKET: 3"); bad {
		t.Error("a line that is no error is one")
	}
}

func TestACommandIsOverWhenTheModuleRestarts(t *testing.T) {
	o := Options{Boot: func(line string) bool { return line == "RDY" }}
	play(t, o, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		begun := time.Now()
		got := do(e, csq)
		m.want("AT+CSQ")
		m.say("\r\nRDY\r\n")
		m.want("AT")
		m.say(ok)
		if r := <-got; !errors.Is(r.err, ErrTimeout) || errors.Is(r.err, ErrUnsynced) || time.Since(begun) > 2*sec {
			t.Errorf("after %v: %v", time.Since(begun), r.err)
		}
		got = do(e, csq)
		m.want("AT+CSQ")
		m.say("\r\n+CSQ: 20,99\r\n" + ok)
		expectLines(t, <-got, "+CSQ: 20,99")
		expectURCs(t, urcs, "RDY")
	})
}
