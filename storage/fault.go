package storage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
)

// Badger reads its tables through a mapping. Where the disk cannot read them the
// kernel sends SIGBUS, which ends the process, and so at each start again. Whoever
// reads a table has the runtime make a panic of that, which becomes an error, and
// the name of the table is noted in a file beside it: an opening looks at every
// byte of such tables, takes what can be read into new ones, and sets them aside.

// faultsName is the file with the names of tables to be looked at, one a line.
const faultsName = "faults"

// maxFaults bounds the tables that are noted.
const maxFaults = 64

// errFault is in the error of a read that met what the disk cannot read.
var errFault = errors.New("storage: a part of a table cannot be read")

// memoryFault is what the runtime panics with then.
type memoryFault interface {
	error
	Addr() uintptr
}

// faults takes note of the faults of one store. A nil one takes none.
type faults struct {
	dir string
	log *slog.Logger
	met chan struct{} // one token: the store must be looked at

	mu    sync.Mutex
	noted []string
}

func newFaults(dir string, log *slog.Logger) *faults {
	return &faults{dir: dir, log: log, met: make(chan struct{}, 1)}
}

// catch makes errors of faults in the function that calls it, thus:
//
//	defer f.catch(&err)()
func (f *faults) catch(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		p := recover()
		if p == nil {
			return
		}
		m, ok := p.(memoryFault)
		if !ok {
			panic(p)
		}
		f.note(m)
		*err = fmt.Errorf("%w: %w", errFault, m)
	}
}

// note writes down the table in which a fault was met, and has the store looked
// at. A crash before it is written meets the fault again.
func (f *faults) note(m memoryFault) {
	if f == nil {
		return
	}
	name := "?"
	if maps, err := os.ReadFile("/proc/self/maps"); err == nil {
		name = mappedFile(maps, m.Addr())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.noted) < maxFaults {
		f.noted = append(f.noted, name)
		f.log.Error("storage: the disk cannot read a part of a file, which will be looked at; check the card or disk", "file", name)
		if err := writeSynced(filepath.Join(f.dir, faultsName), []byte(strings.Join(f.noted, "\n")+"\n")); err != nil {
			f.log.Error("storage: the name of a file that cannot be read was not noted", "error", err)
		}
	}
	select {
	case f.met <- struct{}{}:
	default:
	}
}

// mended forgets what was noted: an opening has looked at it.
func (f *faults) mended() error {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noted = nil
	select {
	case <-f.met:
	default:
	}
	if err := os.RemoveAll(filepath.Join(f.dir, faultsName)); err != nil {
		return fmt.Errorf("storage: forget the files that could not be read: %w", err)
	}
	return nil
}

// mappedFile finds the name of the file that is mapped at addr in what proc(5)
// says of a process; "?" if there is none.
func mappedFile(maps []byte, addr uintptr) string {
	lines := bufio.NewScanner(bytes.NewReader(maps))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		first, err := strconv.ParseUint(from, 16, 64)
		end, endErr := strconv.ParseUint(to, 16, 64)
		if err == nil && endErr == nil && uint64(addr) >= first && uint64(addr) < end {
			return filepath.Base(fields[5])
		}
	}
	return "?"
}

// readFaults returns the files that were noted; all is true if any may be meant.
func readFaults(dir string) (names map[string]bool, all bool) {
	b, err := readWhole(filepath.Join(dir, faultsName), 1<<20)
	if err != nil {
		return nil, !errors.Is(err, os.ErrNotExist)
	}
	names = map[string]bool{}
	for name := range strings.Lines(string(b)) {
		name = strings.TrimSpace(name)
		names[name] = true
		all = all || name == "?"
	}
	return names, all || len(names) == 0
}
