package configs

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// checker looks at the values of a Config, whether they come from a file or
// not. Paths are those of source.
type checker struct {
	*source
	c       *Config
	faults  Faults
	remarks Faults
}

func (c *Config) check() *checker {
	k := c.checker()
	k.bounds(reflect.ValueOf(c).Elem(), "")
	k.gateway()
	k.limits()
	k.access()
	k.listeners()
	k.modems()
	k.bridges()
	k.plans()
	return k
}

func (c *Config) checker() *checker {
	src := source{}
	if c.source != nil {
		src = *c.source
	}
	src.faulty = maps.Clone(src.faulty) // a check leaves no trace
	if src.faulty == nil {
		src.faulty = map[string]bool{}
	}
	return &checker{source: &src, c: c}
}

// fault reports what is wrong with the value at path; only the first is told.
func (k *checker) fault(path, format string, args ...any) {
	if !k.faulty[path] {
		k.faulty[path] = true
		k.faults = append(k.faults, Fault{k.file, k.line(path), keyOf(path), fmt.Sprintf(format, args...)})
	}
}

// missing reports that there is nothing at path. Where something there or
// above could not be read, it may be in that.
func (k *checker) missing(path, format string, args ...any) {
	if k.partial {
		return
	}
	for p := path; p != ""; p = above(p) {
		if k.faulty[p] {
			return
		}
	}
	k.fault(path, format, args...)
}

func (k *checker) warn(path, format string, args ...any) {
	k.remarks = append(k.remarks, Fault{k.file, k.line(path), keyOf(path), fmt.Sprintf(format, args...)})
}

// line is where path is in the file, or else where the table is that it would
// be in.
func (k *checker) line(path string) int {
	for p := path; p != ""; p = above(p) {
		if line := k.lines[p]; line > 0 {
			return line
		}
	}
	return 0
}

// above is the path of what path is in.
func above(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}

// bounds checks everything below v that the tags say.
func (k *checker) bounds(v reflect.Value, path string) {
	for _, f := range fields(v.Type()) {
		at, v := join(path, f.Tag.Get("toml")), v.FieldByIndex(f.Index)
		switch {
		case isList(f.Type):
			for i := range v.Len() {
				k.bounds(v.Index(i), fmt.Sprintf("%s[%d]", at, i))
			}
		case v.Kind() == reflect.Struct && f.Type != reflect.TypeFor[Secret]():
			k.bounds(v, at)
		case f.Tag.Get("oneof") != "":
			k.oneOf(v.String(), f.Tag.Get("oneof"), at)
		case f.Tag.Get("word") != "" && v.Int() == int64(Adaptive):
		case f.Tag.Get("min") != "":
			k.between(v, f.Tag.Get("min"), f.Tag.Get("max"), at)
		}
		if f.Tag.Get("vars") != "" {
			k.vars(v.String(), at)
		}
	}
}

func (k *checker) oneOf(word, words, path string) {
	list := strings.Split(words, "|")
	for _, w := range list {
		if w == word {
			return
		}
	}
	all := strings.Join(list, ", ")
	switch near, _ := nearest(word, list); {
	case word == "":
		k.missing(path, "is missing; write one of: %s", all)
	case len(list) == 1:
		k.fault(path, "%s is not known; the only one is %q", quote(word), all)
	case near != "":
		k.fault(path, "%s is not one of: %s; did you mean %q?", quote(word), all, near)
	default:
		k.fault(path, "%s is not one of: %s; write one of them", quote(word), all)
	}
}

// between checks a number against bounds that are written as in the file.
func (k *checker) between(v reflect.Value, low, high, path string) {
	parse := func(s string) int64 { n, _ := strconv.ParseInt(s, 10, 64); return n }
	switch v.Interface().(type) {
	case Size:
		parse = func(s string) int64 { n, _ := ParseSize(s); return int64(n) }
	case time.Duration:
		parse = func(s string) int64 { n, _ := time.ParseDuration(s); return int64(n) }
	}
	n := v.Int()
	if least := parse(low); n < least {
		k.fault(path, "%v is too little; write %s to %s", v.Interface(), low, high)
	} else if n > parse(high) {
		k.fault(path, "%v is too much; write %s to %s", v.Interface(), low, high)
	}
}

// braces is {anything} that looks like a variable.
var braces = regexp.MustCompile(`\{[A-Za-z0-9_]*\}`)

var variables = map[string]bool{"{id}": true, "{serial}": true, "{bridge}": true}

func (k *checker) vars(s, path string) {
	for _, v := range braces.FindAllString(s, -1) {
		if !variables[v] {
			k.fault(path, "there is no variable %s; those that there are: {id}, {serial}, {bridge}", quote(v))
		}
	}
}

// identifier is what may stand in topics, client identifiers and file names
// without a second thought.
var identifier = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// leastSysInterval bounds what the $SYS topics cost: there are dozens.
const leastSysInterval = time.Second

func (k *checker) gateway() {
	if id := k.c.Gateway.ID; id != "" && !identifier.MatchString(id) {
		k.fault("gateway.id", "%s cannot be an identifier; write up to 64 letters, digits, '-', '_' and '.'", quote(id))
	}
	if k.c.Gateway.DataDir == "" {
		k.fault("gateway.data_dir", "is empty; write the folder for the gateway's data")
	}
	if every := k.c.Gateway.SysInterval; every > 0 && every < leastSysInterval {
		k.fault("gateway.sys_interval", "%v is too little; write at least %v, or \"0s\" for no such topics", every, leastSysInterval)
	}
}

// limits checks that the bounds fit together: a message of the largest size
// must be able to pass each of them.
func (k *checker) limits() {
	l := &k.c.Limits
	for _, bound := range []struct {
		key  string
		size Size
	}{
		{"max_session_bytes", l.MaxSessionBytes},
		{"max_outbound_bytes", l.MaxOutboundBytes},
		{"max_pending_bytes", l.MaxPendingBytes},
	} {
		// Twice: what keeps a message counts as well.
		if bound.size < 2*l.MaxPacketSize && !k.faulty["limits.max_packet_size"] {
			k.fault("limits."+bound.key, "%v has no room for a message of max_packet_size; write at least %v",
				bound.size, 2*l.MaxPacketSize)
		}
	}
	// A file that has only the other raises this one: Load does.
	written := k.file == "" || k.lines["limits.max_retained_waiting"] > 0
	if written && l.MaxRetainedWaiting < l.MaxRetained && !k.faulty["limits.max_retained_messages"] {
		k.fault("limits.max_retained_waiting", "%d are too few for one device that subscribes to all; write at least max_retained_messages (%d)",
			l.MaxRetainedWaiting, l.MaxRetained)
	}
	var queues Size // without those that have the default
	for i, b := range k.c.Bridges {
		if k.file == "" || k.written(fmt.Sprintf("bridge[%d].queue.max_bytes", i)) {
			queues += b.Queue.MaxBytes
		}
	}
	if k.c.Storage.MaxBytes < queues {
		k.warn("storage.max_bytes", "the queues of the bridges may take %v, but all together only %v; "+
			"lower bridge.queue.max_bytes or raise this", queues, k.c.Storage.MaxBytes)
	}
}

// name checks the name of an element of a list, and that it is the only one.
func (k *checker) name(name, path string, seen map[string]int) {
	at := path + ".name"
	switch line, again := seen[name]; {
	case name == "":
		k.missing(at, `is missing; write name = "..."`)
		return
	case !identifier.MatchString(name):
		k.fault(at, "%s cannot be a name; write up to 64 letters, digits, '-', '_' and '.'", quote(name))
	case again:
		k.fault(at, "%s is taken by %s; choose another", quote(name), lineWords(line))
	}
	seen[name] = k.line(at)
}

func lineWords(line int) string {
	if line == 0 {
		return "another one"
	}
	return fmt.Sprintf("the one in line %d", line)
}
