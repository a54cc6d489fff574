package bridge

import (
	"math/rand/v2"
	"time"
)

// stablePeriod is how long a connection must have lasted to count as one that
// worked. A connection that ends earlier is a failed attempt: a broker that
// lets a client in and throws it out again (a second client with the same
// identifier, a message it chokes on) must not be hammered.
const stablePeriod = 30 * time.Second

// backoff says how long to wait before the next attempt: exponential, with
// full jitter, so that a thousand gateways that lost the same broker do not
// come back in the same second. It is not safe for concurrent use.
type backoff struct {
	min, max time.Duration
	failures int // attempts since the last connection that was stable
}

// next is the delay before the next attempt: anything between 0 and
// min * 2^failures, at most max.
func (b *backoff) next() time.Duration {
	ceiling := b.max
	if b.failures < 32 { // min << 31 of a second is 68 years
		if c := b.min << b.failures; c > 0 && c < b.max {
			ceiling = c
		}
	}
	b.failures++
	if ceiling <= 0 {
		return 0
	}
	return rand.N(ceiling + 1)
}

// lasted tells how long a connection has held, and whether the far broker has
// acknowledged anything on it. One that was short but did its work keeps the
// delays short too: a link that is cut every few seconds still drains a
// backlog. It does not make them the shortest: two gateways with one client
// identifier throw each other out after a few messages each.
func (b *backoff) lasted(d time.Duration, worked bool) {
	switch {
	case d >= stablePeriod:
		b.failures = 0
	case worked:
		b.failures = min(b.failures, 1)
	}
}
