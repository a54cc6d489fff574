package main

import (
	"math"
	"testing"
)

func TestTheMemoryLimitFitsTheBoard(t *testing.T) {
	for _, tc := range []struct{ total, want int64 }{
		{64 << 20, leastMemory},
		{128 << 20, 32 << 20},
		{512 << 20, mostMemory},
		{math.MaxInt64, mostMemory},
	} {
		if got := memoryLimit(tc.total); got != tc.want {
			t.Errorf("with %d bytes: %d, want %d", tc.total, got, tc.want)
		}
	}
}

func TestMemoryIsReadAsTheKernelWritesIt(t *testing.T) {
	if got := meminfoTotal([]byte("MemTotal:         439044 kB\nMemFree: 5 kB\n")); got != 439044<<10 {
		t.Errorf("meminfo: %d", got)
	}
	for _, odd := range []string{"", "MemTotal:", "MemTotal: x kB", "MemTotal: 99999999999999999999 kB", "MemTotal: -5 kB"} {
		if got := meminfoTotal([]byte(odd)); got != math.MaxInt64 {
			t.Errorf("meminfo %q: %d", odd, got)
		}
	}
	for text, want := range map[string]int64{"134217728\n": 128 << 20, "max\n": math.MaxInt64, "": math.MaxInt64, "-1": math.MaxInt64} {
		if got := cgroupLimit([]byte(text)); got != want {
			t.Errorf("memory.max %q: %d", text, got)
		}
	}
}
