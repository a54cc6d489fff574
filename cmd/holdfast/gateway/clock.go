package gateway

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// built is when this program was made, in seconds since 1970; the Makefile has
// the linker set it (-X), to the time of the commit.
var built string

// noteClock is how often the time is noted on disk while it can be relied on.
const noteClock = time.Hour

// clock is what certificates are compared with. A board without a battery
// starts in 1970, or where it was switched off, and would find every
// certificate too new, until NTP gets through - by a link that may need TLS.
// So while the system's clock is not synchronised the latest of these counts:
// the system's, that of a module (its network's), the time that was noted last,
// and the time of the build. A clock that is ahead cannot be noticed until it
// is synchronised; then it is right, whatever was noted before.
type clock struct {
	system  func() (now time.Time, synchronised bool)
	modules func() (now time.Time, known bool)
	file    string
	started time.Time // with a monotonic reading
	floor   time.Time // at started
	source  string    // of floor
}

// ClockStatus is the time that TLS goes by.
type ClockStatus struct {
	Now time.Time `json:"now"`
	// Source is "system", "module", "last run" or "build".
	Source       string `json:"source"`
	Synchronised bool   `json:"synchronised"` // the system's clock is
}

// newClock reads the time that an earlier run has noted in dir.
func newClock(dir string, build time.Time, modules func() (time.Time, bool)) *clock {
	c := &clock{system: systemClock, modules: modules, file: filepath.Join(dir, "clock"), started: time.Now()}
	c.floor, c.source = build, "build"
	if noted, err := readClock(c.file); err == nil && noted.After(c.floor) {
		c.floor, c.source = noted, "last run"
	}
	return c
}

// systemClock is the board's clock, and whether the kernel says that it is
// synchronised (adjtimex(2): every NTP client keeps that up).
func systemClock() (time.Time, bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return time.Now(), err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}

// now is bridge.TLSOptions.Clock.
func (c *clock) now() (time.Time, bool) {
	s := c.status()
	return s.Now, s.Synchronised || s.Source == "module"
}

func (c *clock) status() ClockStatus {
	now, synchronised := c.system()
	s := ClockStatus{Now: now.Round(0), Source: "system", Synchronised: synchronised}
	if synchronised {
		return s
	}
	if t, known := c.modules(); known && t.After(s.Now) {
		s.Now, s.Source = t.Round(0), "module"
	}
	if t := c.floor.Add(time.Since(c.started)); t.After(s.Now) {
		s.Now, s.Source = t.Round(0), c.source
	}
	return s
}

// note writes the time down if it can be relied on. A crash leaves the old note
// or the new one.
func (c *clock) note() error {
	now, synchronised := c.system()
	if !synchronised {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(c.file), ".clock-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintln(f, now.UTC().Format(time.RFC3339))
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), c.file)
	}
	return err
}

func readClock(file string) (time.Time, error) {
	f, err := os.Open(file)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339, strings.TrimSpace(string(b)))
}

// buildTime is when this program was made; zero if nobody knows.
func buildTime() time.Time {
	if s, err := strconv.ParseInt(built, 10, 64); err == nil {
		return time.Unix(s, 0)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				return t
			}
		}
	}
	return time.Time{}
}

// makeClock makes the clock, after the modems.
func (g *Gateway) makeClock() {
	g.clock = newClock(g.cfg.Gateway.DataDir, buildTime(), g.moduleTime)
	if s := g.clock.status(); s.Source != "system" {
		g.log.Warn("the board's clock is behind: TLS goes by a later time until it is synchronised",
			"board", time.Now(), "used", s.Now, "source", s.Source)
	}
}

// moduleTime is the latest of what the modules have heard from their networks.
func (g *Gateway) moduleTime() (latest time.Time, known bool) {
	for _, m := range g.modems {
		status := m.Status()
		if t, ok := status.Clock.Now(); ok && t.After(latest) {
			latest, known = t, true
		}
	}
	return latest, known
}

// noteTime notes the time until ctx ends, and then once more.
func (g *Gateway) noteTime(ctx context.Context) {
	tick := time.NewTicker(noteClock)
	defer tick.Stop()
	for {
		if err := g.clock.note(); err != nil {
			g.log.Debug("the time cannot be noted", "error", err) // the store tells of the disk
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			_ = g.clock.note() // as above
			return
		}
	}
}
