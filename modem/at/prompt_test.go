package at

import (
	"testing"
	"time"
)

func TestPrompts(t *testing.T) {
	for _, c := range []struct{ name, says, after string }{
		{"a prompt without a line end", "\r\n> ", ""},
		{"a prompt without its space", "\r\n>", ""},
		{"a prompt right after a URC", "\r\n+CEREG: 1\r\n> ", "+CEREG: 1"},
		{"a prompt glued to the end of a URC", "\r\n+CEREG: 1> ", "+CEREG: 1"},
		{"a URC glued to the prompt", "\r\n> \r\n+CEREG: 1\r\n", "+CEREG: 1"},
		{"a URC in the same line as the prompt", "\r\n> +CEREG: 1\r\n", "+CEREG: 1"},
		{"a prompt after the echo", "AT+P=2\r\r\n> ", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
				got := do(e, Command{Text: "AT+P=2", Payload: []byte("hi")})
				m.want("AT+P=2")
				m.say(c.says)
				m.wantBytes("hi")
				m.say("\r\n+Z: 1\r\n" + ok)
				expectLines(t, <-got)
				if c.after == "" {
					expectURCs(t, urcs, "+Z: 1")
				} else {
					expectURCs(t, urcs, c.after, "+Z: 1")
				}
			})
		})
	}
}

func TestALineThatLooksLikeAPromptIsNoneWhenNobodyExpectsIt(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		got := do(e, csq)
		m.want("AT+CSQ")
		m.say("\r\n> hello\r\n")
		time.Sleep(sec)
		m.say("\r\n+CSQ: 1,99\r\n" + ok)
		expectLines(t, <-got, "+CSQ: 1,99")
		expectURCs(t, urcs, "> hello")
	})
}

func TestACommandWithAPayloadMayBeAnsweredWithoutAPrompt(t *testing.T) {
	play(t, Options{}, func(t *testing.T, e *Engine, m *script, urcs *lines) {
		got := do(e, Command{Text: "AT+P", Payload: []byte("\x1a")})
		m.want("AT+P")
		m.say(ok)
		expectLines(t, <-got)
	})
}
