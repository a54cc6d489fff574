package sim

import (
	"strconv"
	"strings"
)

// form is one of the four shapes of an extended command (V.250 5.4).
type form int

const (
	formExec form = iota // AT+X
	formRead             // AT+X?
	formTest             // AT+X=?
	formSet              // AT+X=...
)

// call is one command of a line.
type call struct {
	name string // upper case, with its prefix: "+CSQ", "E", "&F"
	form form
	args string // what follows the = or, for a basic command, its digits
}

// parseLine splits what follows AT into commands. It reports false where V.250
// has no command.
func parseLine(s string) ([]call, bool) {
	var calls []call
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimLeft(s, " ;") {
		var c call
		var ok bool
		if strings.ContainsRune("+^*$#", rune(s[0])) {
			c, s, ok = parseExtended(s)
		} else {
			c, s, ok = parseBasic(s)
		}
		if !ok {
			return nil, false
		}
		calls = append(calls, c)
	}
	return calls, true
}

func parseExtended(s string) (c call, rest string, ok bool) {
	end := strings.IndexAny(s, "=?;")
	if end < 0 {
		end = len(s)
	}
	c.name = strings.ToUpper(strings.TrimSpace(s[:end]))
	if len(c.name) < 2 {
		return c, "", false
	}
	s = s[end:]
	switch {
	case s == "" || s[0] == ';':
		return c, s, true
	case s[0] == '?':
		c.form = formRead
		s = s[1:]
	case s == "=?" || strings.HasPrefix(s, "=?;"):
		c.form = formTest
		s = s[2:]
	default:
		c.form = formSet
		s = s[1:]
		n := endOfArgs(s)
		if c.name == "+ECMTPUB" {
			n = len(s) // its last parameter reaches to the end of the line
		}
		c.args, s = s[:n], s[n:]
	}
	return c, s, s == "" || s[0] == ';'
}

// endOfArgs is the place of the first semicolon outside quotes.
func endOfArgs(s string) int {
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ';' && !quoted:
			return i
		}
	}
	return len(s)
}

func parseBasic(s string) (c call, rest string, ok bool) {
	n := 1
	if s[0] == '&' {
		n = 2
	}
	if len(s) < n || !isLetter(s[n-1]) {
		return c, "", false
	}
	c.name = strings.ToUpper(s[:n])
	if c.name == "D" || c.name == "S" { // takes the rest of the line
		c.args = s[n:]
		return c, "", true
	}
	d := n
	for d < len(s) && s[d] >= '0' && s[d] <= '9' {
		d++
	}
	c.args = s[n:d]
	return c, s[d:], true
}

func isLetter(b byte) bool { b |= 0x20; return b >= 'a' && b <= 'z' }

// args takes parameters off a list. After the first that does not fit, every
// further one is zero and ok reports false.
type args struct {
	s       string
	started bool
	bad     bool
	over    bool // a string was longer than its limit
}

// more reports whether there is another parameter.
func (a *args) more() bool {
	return !a.bad && (a.s != "" || !a.started)
}

// next takes one parameter. A quoted one ends at the next quote: the dialect
// has no escapes.
func (a *args) next() (text string, quoted bool) {
	if a.started {
		if a.bad || a.s == "" || a.s[0] != ',' {
			a.bad = true
			return "", false
		}
		a.s = a.s[1:]
	}
	a.started = true
	if strings.HasPrefix(a.s, `"`) {
		end := strings.IndexByte(a.s[1:], '"')
		if end < 0 {
			a.bad = true
			return "", true
		}
		text, a.s = a.s[1:1+end], a.s[2+end:]
		return text, true
	}
	end := strings.IndexByte(a.s, ',')
	if end < 0 {
		end = len(a.s)
	}
	text, a.s = a.s[:end], a.s[end:]
	return text, false
}

// int takes a decimal number between lo and hi.
func (a *args) int(lo, hi int) int {
	t, quoted := a.next()
	n, err := strconv.Atoi(t)
	if a.bad || quoted || err != nil || n < lo || n > hi || t[0] == '+' {
		a.bad = true
		return 0
	}
	return n
}

// str takes a quoted string of at most limit bytes.
func (a *args) str(limit int) string {
	t, quoted := a.next()
	a.over = a.over || len(t) > limit
	if a.bad || !quoted || len(t) > limit {
		a.bad = true
		return ""
	}
	return t
}

// ok reports whether everything fitted and nothing is left.
func (a *args) ok() bool { return !a.bad && a.s == "" }
