package configs

import (
	"bytes"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
)

var (
	assignment = regexp.MustCompile(`^\s*([A-Za-z0-9_-]+)\s*=\s*(.*)$`)
	loneWord   = regexp.MustCompile(`^\s*([A-Za-z0-9_-]+)\s*[:\s]`)
)

// syntaxText explains a line that is not TOML. It never repeats the value: the
// line may have a password in it.
func syntaxText(line, message string) string {
	line = strings.TrimRight(line, " \t\r")
	if isTOML(line) {
		return "this line is right in itself, but a bracket or quote above it is not closed; close that"
	}
	if m := assignment.FindStringSubmatch(line); m != nil {
		key, value := m[1], m[2]
		switch {
		case value == "" || value[0] == '#':
			return key + " has no value; write one after the =, or take the line out"
		case strings.ContainsRune(`"'`, rune(value[0])) && strings.Count(value, value[:1]) == 1:
			return "the quote that opens the value of " + key + " is not closed; close it in the same line"
		case strings.Contains(message, "escape"):
			return "the value of " + key + ` has a backslash that means nothing; double it, or write the value in '...'`
		case !strings.ContainsRune(`"'[{`, rune(value[0])):
			return "the value of " + key + ` is no number and not true or false; text must be in quotes: ` + key + ` = "..."`
		}
	} else if strings.HasPrefix(strings.TrimSpace(line), "[") {
		return `a table begins with [name], an element of a list with [[name]]; correct the brackets`
	} else if m := loneWord.FindStringSubmatch(line); m != nil {
		return "there is no = after " + m[1] + "; write " + m[1] + ` = value`
	}
	return "not TOML: " + message + "; correct this line"
}

// quoteKey is a key as TOML writes it, shortened if nobody would have meant it.
func quoteKey(key string) string {
	const bare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	if key != "" && strings.Trim(key, bare) == "" && len(key) <= maxShown {
		return key
	}
	return quote(key)
}

func isTOML(line string) bool {
	var all map[string]any
	return toml.Unmarshal([]byte(line), &all) == nil
}

// lineOf is the line of b, a part of the data.
func (d *document) lineOf(b []byte) int {
	offset := cap(d.data) - cap(b)
	return max(1, sort.SearchInts(d.starts, offset+1))
}

func (d *document) lineText(line int) string {
	end := len(d.data)
	if line < len(d.starts) {
		end = d.starts[line]
	}
	return string(bytes.TrimRight(d.data[d.starts[line-1]:end], "\r\n"))
}

func (d *document) invalidLine() int {
	for i := range d.starts {
		if t := d.lineText(i + 1); strings.ContainsRune(t, 0) || !utf8.ValidString(t) {
			return i + 1
		}
	}
	return 1
}
