package configs

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// passwordLine is a line that sets a password, as passwd and most people write it.
var passwordLine = regexp.MustCompile(`^(\s*password\s*=\s*)("[^"\\]*"|'[^']*')(\s*(?:#.*)?)$`)

// SetPassword returns the text of a configuration in which the user has this
// password, which is a hash. Everything else stays as it is written. A user that
// there is not is added at the end, with all topics. It does not find out whether
// the rest of the text is good.
func SetPassword(text, user, hash string) (out string, added bool, err error) {
	u, whole := findUser(text, user)
	switch {
	case !whole:
		return "", false, errors.New("it is not TOML as it is; see holdfast check")
	case u != nil:
		out = putPassword(text, u, hash)
	default:
		added = true
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		out = text + "\n[[access.user]]\nname = " + quoteTOML(user) + "\npassword = " + strconv.Quote(hash) +
			"\n# Topic filters; %u stands for the name, %c for the client identifier.\npublish = [\"#\"]\nsubscribe = [\"#\"]\n"
	}
	if u, whole := findUser(out, user); !whole || u == nil || u.values["password"] == nil || u.values["password"].text != hash {
		return "", false, fmt.Errorf("the users are written in a way that is not changed here: write it yourself, as in\n[[access.user]]\nname = %s\npassword = %q",
			quoteTOML(user), hash)
	}
	return out, added, nil
}

// findUser is the table of a user; nil if there is none. whole is false if text
// is not TOML.
func findUser(text, user string) (u *node, whole bool) {
	root, whole := parseDocument([]byte(text), func(int, string) {})
	if access := root.values["access"]; access != nil && access.values["user"] != nil {
		for _, u := range access.values["user"].list {
			if name := u.values["name"]; name != nil && name.kind == stringKind && name.text == user {
				return u, whole
			}
		}
	}
	return nil, whole
}

// putPassword changes the line of the user's password, or puts one behind that of
// its name. What is written in another form comes out wrong, or unchanged.
func putPassword(text string, u *node, hash string) string {
	lines := strings.Split(text, "\n")
	if p := u.values["password"]; p != nil {
		line := &lines[p.line-1]
		*line = passwordLine.ReplaceAllString(*line, "${1}"+strings.ReplaceAll(strconv.Quote(hash), "$", "$$")+"${3}")
	} else {
		line := &lines[u.values["name"].line-1]
		indent := (*line)[:len(*line)-len(strings.TrimLeft(*line, " \t"))]
		end := ""
		if strings.HasSuffix(*line, "\r") {
			end = "\r"
		}
		*line += "\n" + indent + "password = " + strconv.Quote(hash) + end
	}
	return strings.Join(lines, "\n")
}

// quoteTOML is s as a string of TOML, whose escapes are not those of Go.
func quoteTOML(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
