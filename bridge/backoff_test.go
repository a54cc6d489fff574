package bridge

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestDelaysGrowToTheirBoundWithFullJitter(t *testing.T) {
	b := backoff{min: time.Second, max: time.Minute}
	for n, ceiling := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		ceiling *= time.Second
		var sum, low, high time.Duration = 0, ceiling, 0
		const rounds = 2000
		for range rounds {
			b.failures = n
			d := b.next()
			if d < 0 || d > ceiling {
				t.Fatalf("delay %d is %v, the bound %v", n, d, ceiling)
			}
			sum += d
			low, high = min(low, d), max(high, d)
		}
		if mean := sum / rounds; mean < ceiling*4/10 || mean > ceiling*6/10 {
			t.Errorf("delay %d has mean %v below %v", n, mean, ceiling)
		}
		if low > ceiling/50 || high < ceiling*49/50 {
			t.Errorf("delay %d is between %v and %v only", n, low, high)
		}
	}
	b.failures = 1 << 20
	if d := b.next(); d < 0 || d > time.Minute {
		t.Errorf("after a year: %v", d)
	}
}

func TestOnlyAStableConnectionStartsTheDelaysAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backoff{min: time.Second, max: time.Minute, failures: 6}
		since := time.Now()
		time.Sleep(stablePeriod - time.Nanosecond)
		if b.lasted(time.Since(since), false); b.failures != 6 {
			t.Error("a short one has reset it")
		}
		time.Sleep(time.Nanosecond)
		if b.lasted(time.Since(since), false); b.failures != 0 {
			t.Error("a stable one has not reset it")
		}
		b.failures = 6
		if b.lasted(time.Second, true); b.failures != 1 {
			t.Errorf("a short one that brought acknowledgements left %d failures", b.failures)
		}
	})
}
