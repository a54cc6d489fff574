package storage

import (
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// systemClock is the clock of the board.
type systemClock struct{ boot func() string }

func newSystemClock() systemClock {
	return systemClock{sync.OnceValue(func() string {
		id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
		return strings.TrimSpace(string(id))
	})}
}

func (c systemClock) Boot() string { return c.boot() }

func (systemClock) Uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Wall is trusted while the kernel says that it is synchronised (adjtimex(2):
// every NTP client keeps that up).
func (systemClock) Wall() (time.Time, bool) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return time.Now(), err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}
