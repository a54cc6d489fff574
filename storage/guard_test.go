package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"holdfast"
)

func openTest(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func fill(t testing.TB, s *Store, q *Queue, from, to int) {
	t.Helper()
	done := make(chan error, 1)
	for i := from; i < to; i++ {
		m := &holdfast.Message{Topic: "t", QoS: 1, Payload: fmt.Appendf(nil, "%06d", i)}
		if err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

func drain(t testing.TB, q *Queue) (payloads []string) {
	t.Helper()
	for {
		it, ok, err := q.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return payloads
		}
		payloads = append(payloads, string(it.Msg.Payload))
		q.Ack(it.ID)
	}
}

func TestAnEmptyMemtableDoesNotKeepItClosed(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	q, _ := s.Queue("bridge/a", QueueOptions{})
	fill(t, s, q, 0, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The next memtable, as a power cut between ftruncate and unlink leaves it.
	name := filepath.Join(dir, "00009.mem")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// Without the guard, in a copy: the attempt changes the file.
	bare := filepath.Join(t.TempDir(), "bare")
	if err := os.CopyFS(bare, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	// In a child, because Badger leaves goroutines behind when it refuses.
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_CHILD="+bare, "HOLDFAST_TEST_BARE=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "refused") {
		t.Fatalf("badger opens it: the guard is not needed any more: %v %s", err, out)
	}
	s = openTest(t, Options{Dir: dir})
	if s.Stats().SetAside != 1 {
		t.Fatal("not counted")
	}
	if _, err := os.Stat(filepath.Join(dir, setAsideDir, "00009.mem")); err != nil {
		t.Fatal(err)
	}
	q, _ = s.Queue("bridge/a", QueueOptions{})
	if n := len(drain(t, q)); n != 100 {
		t.Fatalf("%d messages", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	openTest(t, Options{Dir: dir})
	if _, err := os.Stat(filepath.Join(dir, setAsideDir, "00009.mem.1")); err != nil {
		t.Fatal(err)
	}
}

func TestANewerFormatIsRefusedAndAnOlderOneMadeThisOne(t *testing.T) {
	dir := t.TempDir()
	openTest(t, Options{Dir: dir}).Close()
	for _, format := range []uint64{formatVersion - 1, formatVersion + 1} {
		eng, err := openBadger(dir, Options{}.withDefaults().Logger)
		if err != nil {
			t.Fatal(err)
		}
		is, err := eng.get([]byte{keyFormat})
		if want := seal([]byte{1, formatVersion}); err != nil || !bytes.Equal(is, want) {
			t.Fatalf("%x %v, want %x", is, err, want)
		}
		row := seal(binary.AppendUvarint([]byte{1}, format))
		if err := errors.Join(eng.commit([]op{{key: []byte{keyFormat}, value: row}}), eng.close()); err != nil {
			t.Fatal(err)
		}
		s, err := Open(Options{Dir: dir})
		if format > formatVersion {
			if err == nil || !strings.Contains(err.Error(), "newer holdfast") {
				t.Fatal(err)
			}
			return
		}
		if err = errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASecondOpeningSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	openTest(t, Options{Dir: dir})
	_, err := Open(Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "stop the other gateway") {
		t.Fatal(err)
	}
}

func TestSpaceIsGivenBack(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir, ChunkBytes: 2 << 20})
	q, _ := s.Queue("bridge/a", QueueOptions{})
	m := &holdfast.Message{Topic: "t", QoS: 1, Payload: make([]byte, 20<<10)}
	done := make(chan error, 200)
	for range 10 {
		for range 200 {
			if err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Msg: m}}, func(err error) { done <- err }); err != nil {
				t.Fatal(err)
			}
		}
		for range 200 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	full := tableBytes(t, dir)
	if n := len(drain(t, q)); n != 2000 {
		t.Fatal(n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	empty := tableBytes(t, dir)
	t.Logf("tables: %d KB full, %d KB empty; longest drop %v", full>>10, empty>>10, s.Stats().LongestDrop)
	if full < 20<<20 || empty > 6<<20 {
		t.Fatal("space is not given back")
	}
}

// Also by what stays open, with less in it than fills a chunk.
func TestADrainedBacklogIsGivenBackWhileTheStoreIsOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	q, _ := s.Queue("bridge/a", QueueOptions{})
	m := &holdfast.Message{Topic: "t", QoS: 1, Payload: make([]byte, 100<<10)}
	add := func() {
		t.Helper()
		if err := publishNow(t, s, &holdfast.Publication{Msg: m}, Append{Queue: q, Msg: m}); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		add()
	}
	eventually(t, func() bool { return tableBytes(t, dir) > 4<<20 })
	if n := len(drain(t, q)); n != 100 {
		t.Fatal(n)
	}
	eventually(t, func() bool { return tableBytes(t, dir) < 1<<20 })
	// What comes later is in another chunk, and found after an opening.
	add()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, Options{Dir: dir})
	q, _ = s.Queue("bridge/a", QueueOptions{})
	if n := len(drain(t, q)); n != 1 {
		t.Fatal(n)
	}
}

func tableBytes(t *testing.T, dir string) (n int64) {
	files, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return n
}

// damage changes the value of the nth batch of a closed store.
func damage(t *testing.T, dir string, nth int, change func(v []byte) []byte) {
	t.Helper()
	eng, err := openBadger(dir, Options{}.withDefaults().Logger)
	if err != nil {
		t.Fatal(err)
	}
	defer eng.close()
	var o op
	n := 0
	_ = eng.scan([]byte{keyBatch}, []byte{keyBatch}, false, func(k, v []byte) bool {
		if n++; n == nth {
			o.key = append([]byte(nil), k...)
			o.value = change(append([]byte(nil), v...))
		}
		return n < nth
	})
	if o.key == nil {
		t.Fatal("no such batch")
	}
	if err := eng.commit([]op{o}); err != nil {
		t.Fatal(err)
	}
}

func TestADamagedBatchIsCountedAndSkipped(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(v []byte) []byte
	}{
		{"records", func(v []byte) []byte { v[3] ^= 1; return v }},
		{"trailer", func(v []byte) []byte { v[len(v)-1] ^= 1; return v }},
		{"cut", func(v []byte) []byte { return v[:4] }},
		{"gone", func(v []byte) []byte { return nil }},
	} {
		for _, nth := range []int{1, 5, 20} {
			t.Run(fmt.Sprintf("%s of batch %d", c.name, nth), func(t *testing.T) {
				dir := t.TempDir()
				s := openTest(t, Options{Dir: dir})
				q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
				fill(t, s, q, 0, 20) // one batch each
				s.Close()
				damage(t, dir, nth, c.change)
				s = openTest(t, Options{Dir: dir})
				q, _ = s.Queue("bridge/a", QueueOptions{Ledger: true})
				got := drain(t, q)
				if len(got) != 19 {
					t.Fatalf("%d messages: %v", len(got), got)
				}
				for i, payload := range got {
					if i >= nth-1 {
						i++
					}
					if payload != fmt.Sprintf("%06d", i) {
						t.Fatalf("%v", got)
					}
				}
				c := q.Ledger()["r"]
				if c.Lost != 1 || !c.Balanced() || c.Queued != 0 || q.Len() != 0 || s.Stats().Lost != 1 {
					t.Fatalf("%+v, length %d", c, q.Len())
				}
				fill(t, s, q, 20, 21)
				if got := drain(t, q); len(got) != 1 {
					t.Fatal(got)
				}
			})
		}
	}
}
