package crash

import (
	"fmt"
	"sync"
)

// keptFaults bounds the list; a broken promise tends to break a thousand times.
const keptFaults = 40

// faults are the violations found so far.
type faults struct {
	mu    sync.Mutex
	round int      // guarded by mu
	list  []string // guarded by mu
	n     int      // guarded by mu
}

func (f *faults) enter(round int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.round = round
}

func (f *faults) add(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n++; len(f.list) < keptFaults {
		f.list = append(f.list, fmt.Sprintf("round %d: ", f.round)+fmt.Sprintf(format, args...))
	}
}

func (f *faults) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

func (f *faults) all() (list []string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.list...), f.n
}
