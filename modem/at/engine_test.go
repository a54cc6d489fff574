package at

import (
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	csq   = Command{Text: "AT+CSQ", Prefixes: []string{"+CSQ"}}
	cereg = Command{Text: "AT+CEREG?", Prefixes: []string{"+CEREG"}, Match: func(line string) bool {
		f := Fields(line)
		return len(f) >= 2 && !f[1].Quoted
	}}
)

func expectLines(t *testing.T, r result, want ...string) {
	t.Helper()
	if r.err != nil || !slices.Equal(r.r.Lines, want) {
		t.Errorf("got %q, %v; want %q", r.r.Lines, r.err, want)
	}
}

func expectURCs(t *testing.T, urcs *lines, want ...string) {
	t.Helper()
	if got := urcs.texts(); !slices.Equal(got, want) {
		t.Errorf("URCs %q, want %q", got, want)
	}
}

// Transcripts of one command: what the module says, what is the answer, and
// what goes to the URCs.
func TestTranscripts(t *testing.T) {
	for _, c := range []struct {
		name  string
		cmd   Command
		says  string
		lines []string
		urcs  []string
		err   error
	}{
		{name: "an answer with one line", cmd: csq, says: "\r\n+CSQ: 20,99\r\n\r\nOK\r\n", lines: []string{"+CSQ: 20,99"}},
		{name: "an answer without the space after the colon", cmd: csq, says: "\r\n+CSQ:20,99\r\n\r\nOK\r\n", lines: []string{"+CSQ:20,99"}},
		{name: "an echo is dropped", cmd: csq, says: "AT+CSQ\r\r\n+CSQ: 20,99\r\n\r\nOK\r\n", lines: []string{"+CSQ: 20,99"}},
		{name: "a URC between echo and answer goes to the URCs", cmd: csq,
			says:  "AT+CSQ\r\r\n+ECMTSTAT: 0,1\r\n\r\n+CSQ: 20,99\r\n\r\nOK\r\n",
			lines: []string{"+CSQ: 20,99"}, urcs: []string{"+ECMTSTAT: 0,1"}},
		{name: "a URC between answer and OK goes to the URCs", cmd: csq,
			says:  "\r\n+CSQ: 20,99\r\n\r\n+CEREG: 1\r\n\r\nOK\r\n",
			lines: []string{"+CSQ: 20,99"}, urcs: []string{"+CEREG: 1"}},
		{name: "reply and URC of the same name are told apart", cmd: cereg,
			says:  "\r\n+CEREG: 1,\"1A2B\",\"01\",7\r\n\r\n+CGREG: 2,1\r\n\r\n+CEREG: 2,5,\"1A2B\",\"01\",7\r\n\r\nOK\r\n",
			lines: []string{`+CEREG: 2,5,"1A2B","01",7`}, urcs: []string{`+CEREG: 1,"1A2B","01",7`, "+CGREG: 2,1"}},
		{name: "a name that only begins alike is not claimed", cmd: csq,
			says: "\r\n+CSQX: 1\r\n\r\nOK\r\n", urcs: []string{"+CSQX: 1"}},
		{name: "a bare answer", cmd: Command{Text: "AT+CIMI", Bare: true},
			says: "\r\n460012345678901\r\n\r\nOK\r\n", lines: []string{"460012345678901"}},
		{name: "a bare answer does not take RDY", cmd: Command{Text: "ATI", Bare: true},
			says: "\r\nRDY\r\n\r\nEC618\r\n\r\nOK\r\n", lines: []string{"EC618"}, urcs: []string{"RDY"}},
		{name: "NULs and a wake-up byte before the answer", cmd: csq,
			says: "\x00\xe0\x00\r\n+CSQ: 20,99\r\n\r\nO\x00K\r\n", lines: []string{"+CSQ: 20,99"}, urcs: []string{"\xe0"}},
		{name: "line feeds only", cmd: csq, says: "\n+CSQ: 20,99\n\nOK\n", lines: []string{"+CSQ: 20,99"}},
		{name: "plain ERROR", cmd: csq, says: "\r\nERROR\r\n", err: ErrError},
		{name: "a CME error", cmd: csq, says: "\r\n+CME ERROR: 10\r\n", err: &CMEError{Code: 10, Text: "SIM not inserted"}},
		{name: "a CME error in words", cmd: csq, says: "\r\n+CME ERROR: SIM busy\r\n", err: &CMEError{Code: -1, Text: "SIM busy"}},
		{name: "a CME error without the space", cmd: csq, says: "\r\n+CME ERROR:3\r\n", err: &CMEError{Code: 3, Text: "operation not allowed"}},
		{name: "CONNECT as a final result", cmd: Command{Text: "ATD*99#", Finals: []string{"CONNECT"}}, says: "\r\nCONNECT 115200\r\n"},
		{name: "an overlong line is cut and the answer stands", cmd: csq,
			says:  strings.Repeat("x", 20<<10) + "\r\n\r\n+CSQ: 20,99\r\n\r\nOK\r\n",
			lines: []string{"+CSQ: 20,99"}, urcs: []string{strings.Repeat("x", 8<<10)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
				got := do(e, c.cmd)
				m.want(c.cmd.Text)
				m.say(c.says)
				r := <-got
				if c.err != nil {
					cme := &CMEError{}
					if want, ok := c.err.(*CMEError); ok {
						if !errors.As(r.err, &cme) || *cme != *want {
							t.Errorf("error %v, want %v", r.err, c.err)
						}
					} else if !errors.Is(r.err, c.err) {
						t.Errorf("error %v, want %v", r.err, c.err)
					}
					if !IsRejection(r.err) {
						t.Error("not taken for a rejection")
					}
				} else {
					expectLines(t, r, c.lines...)
				}
				expectURCs(t, urcs, c.urcs...)
			})
		})
	}
}

func TestOneCommandIsInFlightAtATime(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		first := do(e, csq)
		m.want("AT+CSQ")
		second := do(e, cereg)
		m.say("\r\n+CSQ: 9,99\r\n")
		synctest.Wait()
		if m.r.Buffered() != 0 {
			t.Error("the second command was written before the end of the first")
		}
		m.say(ok)
		expectLines(t, <-first, "+CSQ: 9,99")
		m.want("AT+CEREG?")
		m.say("\r\n+CEREG: 2,1\r\n\r\nOK\r\n")
		expectLines(t, <-second, "+CEREG: 2,1")
	})
}

func TestAResultThatComesBeforeOKReachesItsWaiter(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		w := e.Expect(func(l Line) bool { return strings.HasPrefix(l.Text, "+ECMTPUB: 0,7,") })
		defer w.Stop()
		got := do(e, Command{Text: `AT+ECMTPUB=0,7,1,0,"t","x"`})
		m.want(`AT+ECMTPUB=0,7,1,0,"t","x"`)
		m.say("\r\n+ECMTPUB: 0,6,0\r\n\r\n+ECMTPUB: 0,7,0\r\n\r\nOK\r\n")
		expectLines(t, <-got)
		l, err := w.Wait(context.Background(), sec)
		if err != nil || l.Text != "+ECMTPUB: 0,7,0" {
			t.Errorf("got %q, %v", l.Text, err)
		}
		expectURCs(t, urcs, "+ECMTPUB: 0,6,0")
		if _, err := w.Wait(context.Background(), sec); !errors.Is(err, ErrTimeout) {
			t.Errorf("a second result came: %v", err)
		}
	})
}

func TestURCsKeepTheirOrder(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		var want []string
		for i := range 200 {
			s := "+X: " + string(rune('a'+i%26))
			want = append(want, s)
			m.say("\r\n" + s + "\r\n")
		}
		expectURCs(t, urcs, want...)
	})
}

func TestAFloodOfURCsIsBoundedAndSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost, seen atomic.Int64
		gate := make(chan struct{})
		r, w := io.Pipe()
		e := New(&pipePort{r: r}, Options{URC: func(l Line) {
			<-gate
			seen.Add(1)
			lost.Add(int64(l.Lost))
		}})
		for range maxQueue + 100 {
			io.WriteString(w, "\r\n+X: 1\r\n")
		}
		synctest.Wait()
		close(gate)
		synctest.Wait()
		io.WriteString(w, "\r\n+X: 2\r\n")
		synctest.Wait()
		if n := seen.Load() + lost.Load(); n != maxQueue+101 || lost.Load() == 0 {
			t.Errorf("%d seen, %d said to be lost", seen.Load(), lost.Load())
		}
		e.Close()
	})
}

// pipePort reads from a pipe and swallows writes.
type pipePort struct{ r *io.PipeReader }

func (p *pipePort) Read(b []byte) (int, error)  { return p.r.Read(b) }
func (p *pipePort) Write(b []byte) (int, error) { return len(b), nil }
func (p *pipePort) Close() error                { return p.r.Close() }

func TestRawBytesAfterAURCAreItsData(t *testing.T) {
	raw := func(line string) int {
		if strings.HasPrefix(line, "+RX: ") {
			return len("a\r\nOK\r\n\x00b")
		}
		return 0
	}
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		got := make(chan Line, 4)
		e := New(&pipePort{r: r}, Options{Raw: raw, URC: func(l Line) { got <- l }})
		go io.WriteString(w, "\r\n+RX: 9\r\na\r\nOK\r\n\x00b\r\n+Y: 1\r\n")
		if l := <-got; string(l.Data) != "a\r\nOK\r\n\x00b" {
			t.Errorf("data %q", l.Data)
		}
		if l := <-got; l.Text != "+Y: 1" {
			t.Errorf("then %q", l.Text)
		}
		e.Close()
	})
}

func TestTheEngineSurvivesABinaryFlood(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		junk := make([]byte, 64<<10)
		for i := range junk {
			junk[i] = byte(i*7 + i>>8)
			if junk[i] == '\r' || junk[i] == '\n' {
				junk[i] = 0xff
			}
		}
		m.say(string(junk))
		e.mu.Lock()
		if n := cap(e.lex.buf); n > 16<<10 {
			t.Errorf("the lexer holds %d bytes", n)
		}
		e.mu.Unlock()
		got := do(e, csq)
		m.want("AT+CSQ")
		m.say("\r\n+CSQ: 1,99\r\n\r\nOK\r\n")
		expectLines(t, <-got, "+CSQ: 1,99")
		if s := e.Stats(); s.Cut != 1 || s.BytesIn < 64<<10 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestAPortTimeoutIsNotTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &timeoutPort{in: make(chan string), closed: make(chan struct{})}
		e := New(p, Options{})
		got := do(e, csq)
		time.Sleep(3 * sec) // of the bubble: thirty time-outs of the port
		p.in <- "\r\n+CSQ: 5,99\r\n\r\nOK\r\n"
		expectLines(t, <-got, "+CSQ: 5,99")
		e.Close()
	})
}

// timeoutPort returns (0, nil) every 100 ms.
type timeoutPort struct {
	in     chan string
	closed chan struct{}
	once   sync.Once
}

func (p *timeoutPort) Read(b []byte) (int, error) {
	select {
	case s := <-p.in:
		return copy(b, s), nil
	case <-time.After(100 * time.Millisecond):
		return 0, nil
	case <-p.closed:
		return 0, io.ErrClosedPipe
	}
}
func (p *timeoutPort) Write(b []byte) (int, error) { return len(b), nil }
func (p *timeoutPort) Close() error                { p.once.Do(func() { close(p.closed) }); return nil }

func TestAHangUpEndsEverything(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		w := e.Expect(func(Line) bool { return true })
		defer w.Stop()
		got := do(e, csq)
		m.want("AT+CSQ")
		m.conn.Close()
		if r := <-got; !errors.Is(r.err, io.EOF) {
			t.Errorf("the command got %v", r.err)
		}
		if _, err := w.Wait(context.Background(), sec); !errors.Is(err, io.EOF) {
			t.Errorf("the waiter got %v", err)
		}
		if _, err := e.Do(context.Background(), csq); !errors.Is(err, io.EOF) {
			t.Errorf("the next command got %v", err)
		}
	})
}

func TestCloseEndsACommandAndAllGoroutines(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		got := do(e, csq)
		m.want("AT+CSQ")
		e.Close()
		if r := <-got; !errors.Is(r.err, ErrClosed) {
			t.Errorf("the command got %v", r.err)
		}
		e.Close()
	})
}

func TestAPortThatTakesNoBytesRunsIntoTheTimeout(t *testing.T) {
	play(t, Options{SyncTries: 1}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		// Nobody reads at the other end: Write blocks.
		_, err := e.Do(context.Background(), csq)
		if !errors.Is(err, ErrTimeout) || !errors.Is(err, ErrUnsynced) {
			t.Errorf("got %v", err)
		}
	})
}

func TestFieldsOfErrors(t *testing.T) {
	err := error(&TimeoutError{Command: "AT+CPIN", After: sec})
	if !errors.Is(err, ErrTimeout) || err.Error() != "no answer to AT+CPIN within 1s" {
		t.Error(err)
	}
	if got := commandName(`AT+CPIN="1234"`); got != "AT+CPIN" {
		t.Error(got)
	}
	if got := (Response{Lines: []string{"a", "b"}}).First(); !reflect.DeepEqual(got, "a") {
		t.Error(got)
	}
}

// A module that sends its answer slowly is not interrupted between the CR and the LF
// of its final result.
func TestTheNextCommandWaitsForTheWholeLineEnd(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		got := do(e, csq)
		m.want("AT+CSQ")
		m.say("\r\n+CSQ: 20,99\r\n\r\nOK\r")
		synctest.Wait()
		select {
		case r := <-got:
			t.Errorf("the command was over before its line end: %v", r)
		default:
		}
		m.say("\n")
		expectLines(t, <-got, "+CSQ: 20,99")
	})
}

func TestAFirmwareWithoutLineFeedsIsUnderstood(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		begun := time.Now()
		for range 2 {
			got := do(e, csq)
			m.want("AT+CSQ")
			m.say("+CSQ: 20,99\rOK\r")
			expectLines(t, <-got, "+CSQ: 20,99")
		}
		if d := time.Since(begun); d != 2*lineEnd {
			t.Errorf("two commands took %v, want %v", d, 2*lineEnd)
		}
	})
}
