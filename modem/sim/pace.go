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

// wait returns when n bytes have passed the line at baud bits per second, ten
// bits a byte (start, eight data, stop). It reports false if ctx ended first.
func (p *pace) wait(ctx context.Context, n int, baud int64) bool {
	if baud <= 0 {
		return ctx.Err() == nil
	}
	if now := time.Now(); p.next.Before(now) {
		p.next = now
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
