package storage

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// badgerLogger gives Badger's talk to slog. What Badger calls information is
// of use to its own developers only. A fault that lasts, like a full disk, is
// told by Badger at each new try: of each kind one in repeatAfter is passed on.
type badgerLogger struct {
	log    *slog.Logger
	faults *faults

	mu   sync.Mutex
	said map[string]*saying // by format: Badger has a fixed number of them
}

// saying is one kind of line.
type saying struct {
	at      time.Time // when it was last passed on
	swallow int       // how often it came since
}

const (
	repeatAfter = time.Minute
	// maxLine bounds the text of one line: Badger tells all tables of a merge.
	maxLine = 400
)

func (l *badgerLogger) say(level slog.Level, format string, args []any) {
	for _, a := range args {
		if m, ok := a.(memoryFault); ok {
			l.faults.note(m) // of a merge: there is nobody else who would be told
		}
	}
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	var more []any
	if level >= slog.LevelWarn {
		n, ok := l.pass(format)
		if !ok {
			return
		}
		if n > 0 {
			more = []any{"repeated", n}
		}
	}
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	if len(text) > maxLine {
		text = strings.ToValidUTF8(text[:maxLine], "") + "..."
	}
	l.log.Log(context.Background(), level, "badger", append([]any{"text", text}, more...)...)
}

// pass reports whether a line of this kind is to be told now, and how many of
// them were not since the last one.
func (l *badgerLogger) pass(format string) (repeated int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.said[format]
	if s == nil {
		if l.said == nil {
			l.said = map[string]*saying{}
		}
		s = &saying{}
		l.said[format] = s
	} else if time.Since(s.at) < repeatAfter {
		s.swallow++
		return 0, false
	}
	repeated = s.swallow
	s.at, s.swallow = time.Now(), 0
	return repeated, true
}

func (l *badgerLogger) Errorf(f string, a ...any)   { l.say(slog.LevelError, f, a) }
func (l *badgerLogger) Warningf(f string, a ...any) { l.say(slog.LevelWarn, f, a) }
func (l *badgerLogger) Infof(f string, a ...any)    { l.say(slog.LevelDebug, f, a) }
func (l *badgerLogger) Debugf(f string, a ...any)   { l.say(slog.LevelDebug-4, f, a) }
