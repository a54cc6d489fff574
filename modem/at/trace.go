package at

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// Trace returns port with every line in both directions logged at level Debug.
// Passwords, PINs and payloads are masked: what is logged has their length
// only. A line that cannot be told from a payload is masked as well.
func Trace(port io.ReadWriteCloser, log *slog.Logger) io.ReadWriteCloser {
	t := &trace{ReadWriteCloser: port, log: log}
	t.in.show = t.received
	t.out.show = t.sent
	return t
}

type trace struct {
	io.ReadWriteCloser
	log *slog.Logger

	mu      sync.Mutex
	in, out traceLine
	// payload is true from a line that carries one until the next command:
	// the lines in between may be the rest of it.
	payload bool
	// asked is true from a command that has a prompt to the next write, which
	// is a payload whatever it looks like, or to the refusal of the command.
	asked bool
}

func (t *trace) Read(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Read(p)
	t.mu.Lock()
	t.in.write(p[:n])
	t.mu.Unlock()
	return n, err
}

func (t *trace) Write(p []byte) (int, error) {
	t.mu.Lock()
	if t.asked && !bytes.HasPrefix(p, []byte("\x1b")) {
		t.log.Debug("at", "dir", ">", "line", masked(string(p)))
	} else {
		t.out.write(p)
	}
	t.asked = prompts(string(p))
	t.mu.Unlock()
	return t.ReadWriteCloser.Write(p)
}

// prompts reports whether a command is one that asks for data.
func prompts(command string) bool {
	for _, name := range []string{"AT+QISEND=", "AT+QMTPUBEX=", "AT+CMQTTTOPIC=", "AT+CMQTTPAYLOAD=", "AT+CMQTTSUB=", "AT+CMQTTUNSUB="} {
		if strings.HasPrefix(command, name) {
			return true
		}
	}
	return false
}

func (t *trace) sent(line string) {
	shown := masked(line) // what follows a prompt
	if line == "\x1b" {
		shown = "<ESC>"
	}
	if strings.HasPrefix(line, "AT") {
		t.payload = false
		shown = Mask(line)
	}
	t.log.Debug("at", "dir", ">", "line", shown)
}

func (t *trace) received(line string) {
	shown := Mask(line)
	if _, bad := finalError(line); bad {
		t.asked = false
	}
	switch {
	case shown != line:
		t.payload = true
	case strings.HasPrefix(line, "+QIRD:"), strings.HasPrefix(line, "+CMQTTRXPAYLOAD:"): // raw bytes follow
		t.payload = true
	case t.payload && !isFinal(line) && !strings.HasPrefix(line, "+ECMT"):
		shown = masked(line)
	}
	t.log.Debug("at", "dir", "<", "line", shown)
}

// traceLine gathers one direction into lines, 512 bytes of each at most.
type traceLine struct {
	buf  []byte
	show func(string)
}

const maxTrace = 512

func (l *traceLine) write(p []byte) {
	for _, c := range p {
		switch {
		case c == '\r' || c == '\n':
			if len(l.buf) > 0 {
				l.show(string(l.buf))
			}
			l.buf = l.buf[:0]
		case len(l.buf) < maxTrace:
			l.buf = append(l.buf, c)
		}
	}
}

func masked(s string) string { return fmt.Sprintf("<%d bytes>", len(s)) }

// secretFrom is, for each command or URC that carries a secret or a payload,
// the number of the first argument that must not be shown.
var secretFrom = map[string]int{
	"AT+CPIN":          0,
	"AT+CPWD":          0,
	"AT+CLCK":          2,
	"AT+CGAUTH":        3,
	"AT+ECMTCONN":      3,
	"AT+ECMTPUB":       5,
	"+ECMTRECV":        3,
	"AT+QMTCONN":       3,
	"AT+QMTPUBEX":      5,
	"+QMTRECV":         3,
	"AT+CMQTTCONNECT":  5,
	"AT+MQTTCONN":      5,
	"AT+MCONFIG":       2,
	"AT+ECSOSD":        2,
	"AT+SKTSEND":       2,
	"+ECSONMI":         2,
	"+SKTRECV":         2,
	"AT+ECMTCFG=\"ssl": 1,
	"AT+ECMTCFG=\"ali": 2,
	"AT+ECMTCFG=\"wil": 6,
}

// Mask returns line with what may be a secret or a payload replaced by its
// length. A line that is neither a command nor a result is masked whole unless
// it is a short word in printable ASCII.
func Mask(line string) string {
	for name, from := range secretFrom {
		rest, ok := strings.CutPrefix(line, name)
		if !ok {
			continue
		}
		if strings.Contains(name, "=") { // an item of a command
			return maskArgs(line, strings.IndexByte(line, '=')+1, from)
		}
		rest = strings.TrimLeft(rest, " ")
		if rest == "" || (rest[0] != '=' && rest[0] != ':') || strings.HasPrefix(rest, "=?") {
			continue
		}
		if rest[0] == ':' && strings.HasPrefix(line, "AT") {
			continue
		}
		return maskArgs(line, len(line)-len(rest)+1, from)
	}
	for _, r := range line {
		if r < ' ' || r > '~' {
			return masked(line)
		}
	}
	if Name(line) == "" && !strings.HasPrefix(line, "AT") && len(line) > 40 {
		return masked(line)
	}
	return line
}

// maskArgs masks line from argument number from on; start is where the
// arguments begin. Commas in quotes do not count.
func maskArgs(line string, start, from int) string {
	quoted := false
	for i := start; i < len(line); i++ {
		switch {
		case from == 0:
			return line[:i] + masked(line[i:])
		case line[i] == '"':
			quoted = !quoted
		case line[i] == ',' && !quoted:
			from--
		}
	}
	if quoted { // a stray quote: nobody can tell where the secret begins
		return line[:start] + masked(line[start:])
	}
	return line
}
