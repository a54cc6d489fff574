package storage

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"holdfast"
)

// blocks is what the files of a store take on the disk, besides its reserve.
func blocks(t *testing.T, dir string) (n int64) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil && f.Name() != pillowName {
			n += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
	}
	return n
}

// Files have their space beforehand, and still little is left of a backlog: a
// memtable, a value log, and what cannot be merged yet.
func TestADrainedStoreIsSmall(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{Dir: dir})
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	payload := []byte(strings.Repeat("x", 100_000))
	done := make(chan error, 300)
	for range cap(done) {
		m := &holdfast.Message{Topic: "t", QoS: 1, Payload: payload}
		eventually(t, func() bool {
			return s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err }) == nil
		})
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	full := blocks(t, dir)
	if n := len(drain(t, q)); n != cap(done) {
		t.Fatal(n)
	}
	eventually(t, func() bool { return blocks(t, dir) < 10e6 })
	if full < 25e6 {
		t.Errorf("%d bytes for 30 MB", full)
	}
	t.Logf("%.1f MB with the backlog, %.1f MB without, besides %d MiB of reserve", float64(full)/1e6, float64(blocks(t, dir))/1e6, pillowSize>>20)
}
