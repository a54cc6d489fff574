package at

import (
	"bufio"
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// script plays the module at the other end of the wire.
type script struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// play runs test in a bubble with a fake clock: waits cost nothing, and a
// goroutine that outlives Close fails the test.
func play(t *testing.T, o Options, test func(t *testing.T, e *Engine, m *script, urcs *lines)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		host, module := net.Pipe()
		urcs := &lines{}
		o.URC = urcs.add
		e := New(host, o)
		test(t, e, &script{t: t, conn: module, r: bufio.NewReader(module)}, urcs)
		module.Close()
		e.Close()
		synctest.Wait()
	})
}

// want reads one command line and compares it.
func (s *script) want(text string) {
	s.t.Helper()
	got, err := s.r.ReadString('\r')
	if err != nil || got != text+"\r" {
		s.t.Errorf("the host wrote %q (%v), want %q", got, err, text+"\r")
	}
}

// wantBytes reads exactly the bytes of text.
func (s *script) wantBytes(text string) {
	s.t.Helper()
	for i := range len(text) {
		c, err := s.r.ReadByte()
		if err != nil || c != text[i] {
			s.t.Errorf("the host wrote %q at %d (%v), want %q", c, i, err, text)
			return
		}
	}
}

func (s *script) say(text string) {
	s.t.Helper()
	if _, err := s.conn.Write([]byte(text)); err != nil {
		s.t.Errorf("the host does not read: %v", err)
	}
}

// lines gathers URCs.
type lines struct {
	mu  sync.Mutex
	all []Line
}

func (l *lines) add(line Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
}

// texts waits until nothing moves and returns what has come.
func (l *lines) texts() []string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, x := range l.all {
		out = append(out, x.Text)
	}
	return out
}

type result struct {
	r   Response
	err error
}

// do runs a command in the background.
func do(e *Engine, c Command) <-chan result {
	ch := make(chan result, 1)
	go func() {
		r, err := e.Do(context.Background(), c)
		ch <- result{r, err}
	}()
	return ch
}

const (
	ok  = "\r\nOK\r\n"
	sec = time.Second
)

func newCond(e *Engine) *sync.Cond { return sync.NewCond(&e.mu) }
