package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"
)

// A deleted row stays deleted wherever the process dies while the logs of
// memtables are removed. Who reads keeps them, as an opening does that loads what
// is there, until after their tables were merged, when nothing else knows of the
// deletion.
func TestNoCrashBringsADeletedRowBack(t *testing.T) {
	t.Parallel()
	old, key := t.TempDir(), []byte("row")
	logs := twoLogs(t, old, key)
	for {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(old)); err != nil {
			t.Fatal(err)
		}
		e := openEngine(t, dir)
		reads, leave, left := make(chan struct{}), make(chan struct{}), make(chan error)
		go func() {
			left <- e.scan([]byte("filling"), nil, false, func(_, _ []byte) bool {
				close(reads)
				<-leave
				return false
			})
		}()
		<-reads
		// Both are flushed and merged into one table that has no trace of the row.
		late := false // the older log was gone before the reader came
		eventually(t, func() bool {
			_, err := os.Stat(filepath.Join(dir, logs[0]))
			late = err != nil
			return late || onlyMerged(t, dir, e)
		})
		crashed := t.TempDir()
		if !late {
			if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
		}
		removed := removals(t, dir)
		close(leave)
		if err := <-left; err != nil {
			t.Fatal(err)
		}
		order := removed()
		if err := e.close(); err != nil {
			t.Fatal(err)
		}
		if late {
			continue
		}
		if !slices.Equal(order, logs) && !slices.Equal(order, []string{logs[1], logs[0]}) {
			t.Fatalf("removed were %q", order)
		}
		for i, name := range order {
			if err := os.Remove(filepath.Join(crashed, name)); err != nil {
				t.Fatal(err)
			}
			after := t.TempDir()
			if err := os.CopyFS(after, os.DirFS(crashed)); err != nil {
				t.Fatal(err)
			}
			e := openEngine(t, after)
			if v, err := e.get(key); v != nil || err != nil {
				t.Errorf("after a crash behind the removal of %q: %q, %v", order[:i+1], v, err)
			}
			if err := e.close(); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
}

func openEngine(t *testing.T, dir string) *badgerEngine {
	t.Helper()
	e, err := openBadger(dir, Options{}.withDefaults().Logger)
	if err != nil {
		t.Fatal(err)
	}
	return e.(*badgerEngine)
}

// twoLogs leaves dir as a crash does: with a memtable's log that has the row, and
// a newer one with its deletion.
func twoLogs(t *testing.T, dir string, key []byte) (logs []string) {
	t.Helper()
	live := t.TempDir()
	e := openEngine(t, live)
	write := func(o op) {
		t.Helper()
		if err := e.commit([]op{o}); err != nil {
			t.Fatal(err)
		}
	}
	take := func(pattern string) {
		t.Helper()
		list, err := filepath.Glob(filepath.Join(live, pattern))
		if err != nil || len(list) == 0 {
			t.Fatal(pattern, err)
		}
		for _, name := range list {
			data, err := os.ReadFile(name)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	write(op{key: key, value: []byte("value")})
	for i := range 12 {
		write(op{key: fmt.Appendf(nil, "filling %d", i), value: bytes.Repeat([]byte("x"), 256<<10)})
	}
	take("*") // the store before the first of them is full
	for i := 0; len(logs) == 0; i++ {
		write(op{key: fmt.Appendf(nil, "filling %d", i), value: bytes.Repeat([]byte("y"), 256<<10)})
		_, err := os.Stat(filepath.Join(live, "00002.mem"))
		if err == nil {
			logs = []string{"00001.mem", "00002.mem"}
		}
	}
	write(op{key: key})
	take(logs[1])
	if err := e.close(); err != nil {
		t.Fatal(err)
	}
	return logs
}

// onlyMerged reports whether there are tables below level 0 only, and no file of
// another one.
func onlyMerged(t *testing.T, dir string, e *badgerEngine) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	tables := e.db.Tables()
	above := func(t badger.TableInfo) bool { return t.Level == 0 }
	return len(tables) > 0 && len(files) == len(tables) && !slices.ContainsFunc(tables, above)
}

// removals watches a folder; the returned function names the logs that were
// removed from it since, in their order.
func removals(t *testing.T, dir string) func() []string {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_DELETE); err != nil {
		t.Fatal(err)
	}
	return func() (names []string) {
		t.Helper()
		defer unix.Close(fd)
		buf := make([]byte, 64<<10)
		n, err := unix.Read(fd, buf)
		if err != nil && err != unix.EAGAIN {
			t.Fatal(err)
		}
		for buf := buf[:max(n, 0)]; len(buf) >= unix.SizeofInotifyEvent; {
			// struct inotify_event: wd, mask, cookie, len, name.
			size := int(binary.NativeEndian.Uint32(buf[12:]))
			name := string(bytes.TrimRight(buf[unix.SizeofInotifyEvent:][:size], "\x00"))
			if filepath.Ext(name) == ".mem" {
				names = append(names, name)
			}
			buf = buf[unix.SizeofInotifyEvent+size:]
		}
		return names
	}
}

// A drop does not wait for a memtable that cannot become a table, which may be for
// ever: nobody would be acknowledged meanwhile.
func TestADropDoesNotWaitForAFlush(t *testing.T) {
	needCorrections(t)
	t.Parallel()
	dir := t.TempDir()
	e := openEngine(t, dir)
	var inTheWay []string
	for n := range 40 {
		inTheWay = append(inTheWay, filepath.Join(dir, fmt.Sprintf("%06d.sst", n)))
		if err := os.Mkdir(inTheWay[n], 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// One memtable and a half.
	for i := range 60 {
		if err := e.commit([]op{{key: fmt.Appendf(nil, "row%d", i), value: make([]byte, 100<<10)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.drop([][]byte{[]byte("row")}); !errors.Is(err, errFlushing) {
		t.Errorf("dropped: %v", err)
	}
	for _, name := range inTheWay {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool {
		err := e.drop([][]byte{[]byte("row")})
		if err != nil && !errors.Is(err, errFlushing) {
			t.Fatal(err)
		}
		return err == nil
	})
	if v, err := e.get([]byte("row1")); v != nil || err != nil {
		t.Errorf("%d bytes are there, %v", len(v), err)
	}
	if err := e.close(); err != nil {
		t.Fatal(err)
	}
}
