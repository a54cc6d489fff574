package sim

import (
	"context"
	"time"
)

// pace holds one direction of the line to its speed.
type pace struct{ next time.Time }

// transfer is how many bytes go in one piece: everything on an unpaced line,
// else what the line carries in 10 ms, so that a slow line is smooth and a fast
// one costs few wake-ups.
func (p *pace) transfer(baud int64) int {
	if baud <= 0 {
		return 4096
	}
	return int(min(max(baud/1000, 16), 1024))
}

// maxLate is how far a line whose timers are late may catch up.
const maxLate = 50 * time.Millisecond

// wait returns when n bytes have passed the line at baud bits per second, ten
// bits a byte (start, eight data, stop). It reports false if ctx ended first.
// idle says that the bytes were not there when the ones before had passed: a line
// loses no time while bytes wait for it, however late this goroutine is woken.
func (p *pace) wait(ctx context.Context, n int, baud int64, idle bool) bool {
	if baud <= 0 {
		return ctx.Err() == nil
	}
	now := time.Now()
	if idle && p.next.Before(now) {
		p.next = now
	} else if late := now.Add(-maxLate); p.next.Before(late) {
		p.next = late
	}
	p.next = p.next.Add(time.Duration(n) * 10 * time.Second / time.Duration(baud))
	t := time.NewTimer(time.Until(p.next))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
