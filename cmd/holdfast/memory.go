package main

import (
	"bytes"
	"math"
	"os"
	"runtime/debug"
	"strconv"
)

// The bounds of the memory limit. The most is what a gateway with a large
// backlog and a hundred clients runs well with; more would only let garbage
// lie longer. The least keeps the collector from working all the time.
const (
	mostMemory  = 64 << 20
	leastMemory = 24 << 20
)

// limitMemory gives the garbage collector a limit that fits the board, or the
// control group that the process runs in. GOMEMLIMIT in the environment, which
// the runtime has read by then, stays in force.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetMemoryLimit(memoryLimit(totalMemory()))
}

// memoryLimit is a quarter of what there is, within the bounds: the rest is for
// the page cache, which holds the mapped tables of the store.
func memoryLimit(total int64) int64 { return min(max(total/4, leastMemory), mostMemory) }

// totalMemory is the memory of the board or, if less, of the control group; the
// highest number if neither can be read.
func totalMemory() int64 {
	total := int64(math.MaxInt64)
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		total = min(total, meminfoTotal(b))
	}
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if b, err := os.ReadFile(path); err == nil {
			total = min(total, cgroupLimit(b))
		}
	}
	return total
}

// meminfoTotal reads the line "MemTotal:  123 kB" of proc(5).
func meminfoTotal(b []byte) int64 {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) >= 2 && string(f[0]) == "MemTotal:" {
			if kb, err := strconv.ParseInt(string(f[1]), 10, 40); err == nil && kb > 0 {
				return kb << 10
			}
		}
	}
	return math.MaxInt64
}

// cgroupLimit reads memory.max: a number, or "max".
func cgroupLimit(b []byte) int64 {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}
