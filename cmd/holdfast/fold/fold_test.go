package fold

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lines is a log in memory.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns what was written since, without times.
func (l *lines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.buf.Reset()
	return l.buf.String()
}

func logTo(l *lines) (*slog.Logger, *Handler) {
	h := New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return slog.New(h), h
}

func TestWhatRepeatsIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		log, _ := logTo(&out)
		log = log.With("part", "bridge")
		for i := range 30 { // one each second, with another error each time
			log.Warn("lost", "bridge", "far", "error", fmt.Errorf("port %d", i), "remote", fmt.Sprint("h:", i))
			time.Sleep(time.Second)
		}
		want := ""
		for i := range burst {
			want += fmt.Sprintf("level=WARN msg=lost part=bridge bridge=far error=\"port %d\" remote=h:%d\n", i, i)
		}
		if got := out.take(); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
		time.Sleep(31 * time.Second)
		if got, want := out.take(), "level=WARN msg=lost part=bridge bridge=far error=\"port 29\" remote=h:29 repeated=27\n"; got != want {
			t.Fatalf("%q, want %q", got, want)
		}
		// Two minutes of silence later it is news again.
		time.Sleep(2 * time.Minute)
		log.Warn("lost", "bridge", "far", "error", errors.New("again"))
		if got, want := out.take(), "level=WARN msg=lost part=bridge bridge=far error=again\n"; got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	})
}

func TestADayOfOneEventIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		log, h := logTo(&out)
		log = log.With("part", "x")
		const all = 24 * 3600
		for range all {
			log.Error("again")
			time.Sleep(time.Second)
		}
		h.Flush()
		got := strings.Split(strings.TrimSpace(out.take()), "\n")
		if len(got) > 24*60/16+10 {
			t.Errorf("%d lines", len(got))
		}
		sum := 0
		for _, line := range got {
			n := 1
			if _, tail, ok := strings.Cut(line, "repeated="); ok {
				fmt.Sscan(tail, &n)
			}
			sum += n
		}
		if sum != all {
			t.Errorf("%d were told of, of %d", sum, all)
		}
	})
}

func TestWhatDiffersIsNotFolded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		log, h := logTo(&out)
		log = log.With("part", "x")
		log.Info("client connected", "client_id", "a")
		log.Info("client connected", "client_id", "b")
		for range 5 {
			log.Info("seldom", "client_id", "a")
			time.Sleep(31 * time.Second)
		}
		log.Warn("client connected", "client_id", "a")
		log.With("bridge", "x").Info("client connected", "client_id", "a")
		log.WithGroup("g").Info("client connected", "client_id", "a")
		for range 2 * burst {
			log.Debug("at", "line", "x")
		}
		if n := strings.Count(out.take(), "\n"); n != 16 {
			t.Errorf("%d lines", n)
		}
		h.Flush()
		if got := out.take(); got != "" {
			t.Errorf("told of nothing: %q", got)
		}
	})
}

func TestWhatTheProgramAnswersIsNotFolded(t *testing.T) {
	var out lines
	log, _ := logTo(&out)
	for range 2 * burst {
		log.Info("configuration read again")
	}
	if n := strings.Count(out.take(), "\n"); n != 2*burst {
		t.Errorf("%d lines", n)
	}
}

func TestTheEventsWatchedAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		log, h := logTo(&out)
		log = log.With("part", "x")
		for i := range 3 * maxEvents {
			log.Warn("x", "client_id", fmt.Sprint(i))
		}
		if n := strings.Count(out.take(), "\n"); n != 3*maxEvents {
			t.Errorf("%d lines", n)
		}
		if n := len(h.seen); n != maxEvents {
			t.Errorf("%d are watched", n)
		}
		h.Flush()
	})
}

func TestManyAtOnce(t *testing.T) {
	var out lines
	log, h := logTo(&out)
	log = log.With("part", "x")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				log.Warn("x")
			}
			h.Flush()
		})
	}
	wg.Wait()
	if !strings.Contains(out.take(), "repeated=") {
		t.Error("nothing was folded")
	}
}
