package at

import "strings"

// Field is one argument of a response line.
type Field struct {
	// Text is the argument without its quotes.
	Text string
	// Quoted is true if it stood in quotes: "7" is a string, 7 is a number
	// (3GPP TS 27.007 uses both for the same digits).
	Quoted bool
}

// Name is what stands before the colon of an information response or URC,
// like "+CEREG"; "" if the line has no such beginning.
func Name(line string) string {
	name, _, ok := cutName(line)
	if !ok {
		return ""
	}
	return name
}

// Args are the arguments of a response line, without the name before the colon
// and without quotes. The space after the colon may be missing.
func Args(line string) []string {
	fields := Fields(line)
	if fields == nil {
		return nil
	}
	args := make([]string, len(fields))
	for i, f := range fields {
		args[i] = f.Text
	}
	return args
}

// Fields splits a response line at its commas. Commas inside of quotes or
// parentheses do not count. There is no escape character; a quote inside of a
// string is part of it unless a comma or the end of the line follows. A line
// without a name is all arguments; one with nothing after the colon has none.
func Fields(line string) []Field {
	_, rest, ok := cutName(line)
	if !ok {
		rest = line
	}
	rest = strings.TrimSpace(rest)
	if rest == "" {
		return nil
	}
	var fields []Field
	for {
		f, tail, more := cutField(rest)
		fields = append(fields, f)
		if !more {
			return fields
		}
		rest = tail
	}
}

// Has reports whether line begins with name and a colon, in any of the
// spellings `+X: 1`, `+X:1`, `+X : 1`, or is name alone.
func Has(line, name string) bool {
	rest, ok := strings.CutPrefix(line, name)
	if !ok {
		return false
	}
	rest = strings.TrimLeft(rest, " ")
	return rest == "" || rest[0] == ':'
}

func cutName(line string) (name, rest string, ok bool) {
	line = strings.TrimLeft(line, " ")
	if line == "" || !strings.ContainsRune("+^*%#$&", rune(line[0])) {
		return "", "", false
	}
	for i := 1; i < len(line); i++ {
		switch c := line[i]; {
		case c == ':':
			return strings.TrimRight(line[:i], " "), line[i+1:], true
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c == '-', c == ' ':
		default:
			return "", "", false
		}
	}
	return "", "", false
}

// cutField takes the first field of s. more says that a comma followed.
func cutField(s string) (f Field, rest string, more bool) {
	s = strings.TrimLeft(s, " ")
	if strings.HasPrefix(s, `"`) {
		for i := 1; i < len(s); i++ {
			if s[i] != '"' {
				continue
			}
			tail := strings.TrimLeft(s[i+1:], " ")
			if tail == "" {
				return Field{Text: s[1:i], Quoted: true}, "", false
			}
			if tail[0] == ',' {
				return Field{Text: s[1:i], Quoted: true}, tail[1:], true
			}
		}
	}
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			quoted = depth > 0 && !quoted
		case '(':
			if !quoted {
				depth++
			}
		case ')':
			if !quoted && depth > 0 {
				depth--
			}
		case ',':
			if depth == 0 {
				return Field{Text: strings.TrimRight(s[:i], " ")}, s[i+1:], true
			}
		}
	}
	return Field{Text: strings.TrimRight(s, " ")}, "", false
}
