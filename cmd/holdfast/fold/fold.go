// Package fold keeps a log readable when one thing happens again and again: a
// gateway that is alone for weeks must not fill its card with one line.
package fold

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// burst is how many of an event are passed on before they are folded: what is
	// seldom, or answers a person, is told of at once.
	burst = 3
	// firstWait is how long an event is looked at, and then only counted; the time
	// doubles while more come, up to longestWait.
	firstWait   = time.Minute
	longestWait = 16 * time.Minute
	// maxEvents bounds how many events are watched at a time.
	maxEvents = 256
)

// Handler passes events on to another handler, and folds those that repeat: the
// first few are passed on at once; of those that follow within a minute only the
// latest, when that is over, with the attribute "repeated", which counts them. While
// they come the time grows to 16 minutes. Two records are
// one event if their message, level and strings are equal; errors, numbers and
// times may differ, and so may "remote", which has another port each time. Never
// folded are debug records, and those of a logger to which no string is bound: they
// are of the program itself and answer people. It is safe for concurrent use.
type Handler struct {
	next  slog.Handler
	bound string // the strings among the attributes that are bound
	*events
}

type events struct {
	mu   sync.Mutex
	seen map[string]*event // guarded by mu
}

// event is one that was passed on not long ago.
type event struct {
	wait   time.Duration
	timer  *time.Timer
	told   int // passed on at once, up to burst
	count  int // those behind them
	latest slog.Record
	to     slog.Handler
}

// New returns a handler in front of next.
func New(next slog.Handler) *Handler {
	return &Handler{next: next, events: &events{seen: map[string]*event{}}}
}

// Enabled is that of the handler behind.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// WithAttrs returns a handler that folds together with h.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(h.bound)
	for _, a := range attrs {
		identify(&b, a)
	}
	return &Handler{next: h.next.WithAttrs(attrs), bound: b.String(), events: h.events}
}

// WithGroup returns a handler that folds together with h.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{next: h.next.WithGroup(name), bound: h.bound + "\x00" + name + ".", events: h.events}
}

// identify adds what tells a from the same attribute of another event.
func identify(b *strings.Builder, a slog.Attr) {
	if a.Value.Kind() == slog.KindString && a.Key != "remote" {
		b.WriteString("\x00" + a.Key + "=" + a.Value.String())
	}
}

// Handle passes r on or counts it. The error is that of the handler behind.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo || h.bound == "" {
		return h.next.Handle(ctx, r)
	}
	var b strings.Builder
	b.WriteString(r.Level.String() + r.Message + h.bound)
	r.Attrs(func(a slog.Attr) bool {
		identify(&b, a)
		return true
	})
	key := b.String()
	h.mu.Lock()
	e := h.seen[key]
	switch {
	case e == nil && len(h.seen) < maxEvents:
		e := &event{wait: firstWait, told: 1}
		e.timer = time.AfterFunc(e.wait, func() { h.over(key, e) })
		h.seen[key] = e
	case e == nil:
	case e.told < burst:
		e.told++
	default:
		e.count++
		e.latest, e.to = r.Clone(), h.next
		h.mu.Unlock()
		return nil
	}
	h.mu.Unlock()
	return h.next.Handle(ctx, r)
}

// over is called when the wait of e is over.
func (s *events) over(key string, e *event) {
	s.mu.Lock()
	if s.seen[key] != e {
		s.mu.Unlock()
		return
	}
	tell := e.take()
	if tell == nil {
		delete(s.seen, key)
	} else {
		e.wait = min(2*e.wait, longestWait)
		e.timer.Reset(e.wait)
	}
	s.mu.Unlock()
	if tell != nil {
		tell()
	}
}

// take returns what tells of those that were counted; nil if there are none. The
// caller holds the lock, and calls it without.
func (e *event) take() (tell func()) {
	if e.count == 0 {
		return nil
	}
	r, to := e.latest, e.to
	r.AddAttrs(slog.Int("repeated", e.count))
	e.count = 0
	return func() { _ = to.Handle(context.Background(), r) }
}

// Flush passes on what was counted, and forgets all. Call it when the program
// ends; the handler may be used on.
func (h *Handler) Flush() {
	var tell []func()
	h.mu.Lock()
	for key, e := range h.seen {
		e.timer.Stop()
		if f := e.take(); f != nil {
			tell = append(tell, f)
		}
		delete(h.seen, key)
	}
	h.mu.Unlock()
	for _, f := range tell {
		f()
	}
}
