package at

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestALateOKIsNotTheNextCommands(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		got := do(e, Command{Text: "AT+ECMTSUB=0,1,\"t\",1"})
		m.want("AT+ECMTSUB=0,1,\"t\",1")
		time.Sleep(10*sec + 100*time.Millisecond)
		m.say(ok) // late, in the middle of the drain
		m.want("AT")
		m.say(ok)
		if r := <-got; !errors.Is(r.err, ErrTimeout) || errors.Is(r.err, ErrUnsynced) {
			t.Fatalf("got %v", r.err)
		}
		next := do(e, csq)
		m.want("AT+CSQ")
		m.say("\r\n+CSQ: 3,99\r\n\r\nOK\r\n")
		expectLines(t, <-next, "+CSQ: 3,99")
		if s := e.Stats(); s.Strays != 1 || s.Timeouts != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestALateOKThatIsTakenForThatOfATIsFollowedByASilence(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		got := do(e, Command{Text: "AT+X"})
		m.want("AT+X")
		m.want("AT")
		m.want("\x1b") // nothing came: the second try has the ESC
		m.want("AT")
		// The module wakes up and answers everything at once.
		m.say("\r\n+X: late\r\n" + ok + ok)
		time.Sleep(150 * time.Millisecond)
		m.say(ok)
		if r := <-got; !errors.Is(r.err, ErrTimeout) {
			t.Fatalf("got %v", r.err)
		}
		next := do(e, csq)
		m.want("AT+CSQ")
		synctest.Wait()
		select {
		case r := <-next:
			t.Fatalf("a late OK completed the next command: %v", r)
		default:
		}
		m.say("\r\n+CSQ: 3,99\r\n\r\nOK\r\n")
		expectLines(t, <-next, "+CSQ: 3,99")
	})
}

func TestALateAnswerDoesNotBecomeAURC(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		query := Command{Text: "AT+ECMTCONN?", Prefixes: []string{"+ECMTCONN"}, Match: func(l string) bool { return len(Args(l)) == 2 }}
		got := do(e, query)
		m.want("AT+ECMTCONN?")
		time.Sleep(10*sec + 100*time.Millisecond)
		m.say("\r\n+ECMTCONN:0,3\r\n" + ok + "\r\n+ECMTCONN: 0,0,0\r\n")
		m.want("AT")
		m.say(ok)
		<-got
		expectURCs(t, urcs, "+ECMTCONN: 0,0,0")
	})
}

func TestALateErrorDoesNotFailTheResync(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		got := do(e, Command{Text: "AT+X"})
		m.want("AT+X")
		m.want("AT")
		m.say("\r\n+CME ERROR: 3\r\n") // that of AT+X
		m.say(ok)                      // that of AT, discarded with the rest
		m.want("\x1b")
		m.want("AT")
		m.say(ok)
		if r := <-got; errors.Is(r.err, ErrUnsynced) {
			t.Errorf("got %v", r.err)
		}
	})
}

func TestAModuleThatWaitsForDataIsEscaped(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		got := do(e, Command{Text: "AT+P", Payload: []byte("x")})
		m.want("AT+P")
		// No prompt comes in time.
		m.want("\x1b")
		m.want("AT")
		m.say(ok)
		if r := <-got; !errors.Is(r.err, ErrTimeout) || errors.Is(r.err, ErrUnsynced) {
			t.Errorf("got %v", r.err)
		}
	})
}

// A module that counts its data would send on what a resync writes; it gets the
// payload, if that can be no command, and its result is of a command that has failed.
func TestAModuleWhosePromptWasLostGetsThePayload(t *testing.T) {
	for _, c := range []struct{ name, payload, then string }{
		{"text", `{"t":21.5}`, `{"t":21.5}` + "\x1b\rAT\r"},
		{"bytes", "\x00\r\xff{\"data\":1}", "\x00\r\xff{\"data\":1}\x1b\rAT\r"},
		{"what could be a command", "x\rxat+CFUN=0\r", "x\rx\xfft+CFUN=0\r\x1b\rAT\r"},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
				failed := make(chan error, 1)
				got := do(e, Command{Text: "AT+QMTPUBEX=0,1,1,0,\"t\",10", Payload: []byte(c.payload), Failed: func(err error) { failed <- err }})
				m.want("AT+QMTPUBEX=0,1,1,0,\"t\",10")
				m.say("\x91\x82\xfe") // the prompt, in noise
				m.wantBytes(c.then[:1])
				select {
				case err := <-failed:
					if !errors.Is(err, ErrTimeout) {
						t.Errorf("it failed with %v", err)
					}
				default:
					t.Error("more was written before the command had failed")
				}
				m.wantBytes(c.then[1:])
				m.say("\r\n" + ok + "\r\n+QMTPUBEX: 0,1,0\r\n")
				if r := <-got; !errors.Is(r.err, ErrTimeout) || errors.Is(r.err, ErrUnsynced) {
					t.Errorf("got %v", r.err)
				}
			})
		})
	}
}

func TestADeadModuleIsSaidToBeDead(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		go func() {
			for {
				if _, err := m.r.ReadByte(); err != nil {
					return
				}
			}
		}()
		_, err := e.Do(context.Background(), csq)
		if !errors.Is(err, ErrTimeout) || !errors.Is(err, ErrUnsynced) {
			t.Errorf("got %v", err)
		}
		start := time.Now()
		if _, err := e.Do(context.Background(), csq); !errors.Is(err, ErrUnsynced) {
			t.Errorf("the next command got %v", err)
		}
		if d := time.Since(start); d > 6*sec {
			t.Errorf("it took %v to say so", d)
		}
	})
}

func TestACancelledCommandIsFollowedByAResync(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		ctx, cancel := context.WithCancel(context.Background())
		got := make(chan error, 1)
		go func() {
			_, err := e.Do(ctx, Command{Text: "AT+X"})
			got <- err
		}()
		m.want("AT+X")
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		m.say(ok)
		next := do(e, csq)
		m.want("AT")
		m.say(ok)
		m.want("AT+CSQ")
		m.say("\r\n+CSQ: 3,99\r\n\r\nOK\r\n")
		expectLines(t, <-next, "+CSQ: 3,99")
	})
}

func TestAResyncEndsAlthoughTheModuleTalksAllTheTime(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := m.conn.Write([]byte("\r\n+Y: 1\r\n")); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
		got := make(chan error, 1)
		go func() { got <- e.Resync(context.Background()) }()
		m.want("AT")
		m.say(ok)
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}
