package at

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// lexAll cuts the stream as cut says and returns the tokens. A line that
// begins with "R" and a digit announces that many raw bytes, one that begins
// with "P" a prompt.
func lexAll(stream []byte, cut func(rest int) int) []token {
	var out []token
	var l *lexer
	l = &lexer{max: 64, emit: func(t token) {
		out = append(out, t)
		switch {
		case t.kind == tokenPrompt:
			l.expectPrompt(false)
		case t.kind == tokenLine && !t.cut && len(t.text) == 2 && t.text[0] == 'R' && t.text[1] > '0' && t.text[1] <= '9':
			l.expectRaw(int(t.text[1] - '0'))
		case t.kind == tokenLine && strings.HasPrefix(t.text, "P"):
			l.expectPrompt(true)
		}
	}}
	for len(stream) > 0 {
		n := min(max(cut(len(stream)), 1), len(stream))
		l.write(stream[:n])
		stream = stream[n:]
	}
	return out
}

func FuzzLexer(f *testing.F) {
	f.Add([]byte("\r\nOK\r\n\r\n+X: 1\r\n"), uint64(1))
	f.Add([]byte("R5\r\na\r\nbcd\r\nOK\r\n"), uint64(2))
	f.Add([]byte("R3\nabcR2\rxyOK\r"), uint64(2))
	f.Add([]byte("P\r\n> x\r\n> y\r\n"), uint64(3))
	f.Add([]byte(strings.Repeat("z", 200)+"\r\nOK\r\n\x00\x00\xe0\r\n"), uint64(4))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		whole := lexAll(stream, func(rest int) int { return rest })
		bytewise := lexAll(stream, func(int) int { return 1 })
		r := rand.New(rand.NewPCG(seed, 1))
		random := lexAll(stream, func(rest int) int { return 1 + r.IntN(rest) })
		if !reflect.DeepEqual(whole, bytewise) || !reflect.DeepEqual(whole, random) {
			t.Fatalf("the tokens depend on the chunks:\n%+v\n%+v\n%+v", whole, bytewise, random)
		}
		for _, tok := range whole {
			if tok.kind == tokenLine && (len(tok.text) > 64 || tok.text == "" || strings.ContainsAny(tok.text, "\r\n\x00")) {
				t.Fatalf("line %q", tok.text)
			}
			if strings.Trim(tok.sep, "\r\n") != "" || len(tok.sep) > maxSep {
				t.Fatalf("separator %q", tok.sep)
			}
		}
	})
}

func TestARawBlockThatIsTooLargeIsCut(t *testing.T) {
	var got []token
	var l *lexer
	l = &lexer{max: 64, emit: func(tok token) {
		got = append(got, tok)
		if tok.text == "R" {
			l.expectRaw(maxRaw + 10)
		}
	}}
	l.write([]byte("R\r\n"))
	for range maxRaw + 10 {
		l.write([]byte("a"))
	}
	l.write([]byte("\r\nOK\r\n"))
	if len(got) != 3 || !got[1].cut || len(got[1].text) != maxRaw || got[2].text != "OK" {
		t.Errorf("%d tokens", len(got))
	}
}

// FuzzEngine is the whole receiving side: no bytes may bring it down.
func FuzzEngine(f *testing.F) {
	f.Add([]byte("\r\n+RECV: {\r\nOK\r\n> R3\r\nabc"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		e := &Engine{o: Options{Open: recv, Raw: func(s string) int { return len(s) % 5 }}}
		e.o.defaults()
		e.failed = true // no timers
		e.wake = newCond(e)
		e.lex = &lexer{max: 64, emit: e.takeLocked}
		e.flight = newFlight(Command{Text: "AT+X", Prefixes: []string{"+X"}, Bare: true, Payload: []byte("x")})
		e.lex.expectPrompt(true)
		e.lex.write(stream)
		e.lex.idle()
		e.dropRawLocked()
		e.flushHeldLocked()
		if e.queued > maxQueueBytes || len(e.queue) > maxQueue {
			t.Fatal("the queue has no bound")
		}
	})
}
