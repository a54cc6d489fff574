package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast"
	"holdfast/storage"
)

func TestFsckTellsAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	s, err := storage.Open(storage.Options{Dir: store})
	if err != nil {
		t.Fatal(err)
	}
	q, err := s.Queue("bridge/a", storage.QueueOptions{Ledger: true})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	for range 250 {
		m := &holdfast.Message{Topic: "t", QoS: 1, Payload: bytes.Repeat([]byte("x"), 2000)}
		if err := s.Publish(&holdfast.Publication{Msg: m}, []storage.Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	code, _, stderr := call(t, "fsck", "--data-dir", dir)
	if code != 1 || !strings.Contains(stderr, "by a running gateway: stop it first") {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := call(t, "fsck", "--data-dir", dir, "--verbose")
	if code != 0 || !strings.HasSuffix(stdout, "No damage was found.\n") || !strings.Contains(stdout, "1 table, ") {
		t.Fatalf("exit %d, %s%s", code, stdout, stderr)
	}

	tables, err := filepath.Glob(filepath.Join(store, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatal(tables, err)
	}
	b, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(tables[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store, "00099.mem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = call(t, "fsck", "--data-dir", dir)
	want := filepath.Base(tables[0]) + `: 1 of its 4 blocks are damaged
    at the next start: what can be read of it is taken into a new table, and it is set aside
00099.mem: it is empty: the power went while it was removed
    at the next start: it is set aside; nothing is lost
What cannot be read is counted as lost in the books of its route.
`
	if code != 1 || stdout != want || !strings.Contains(stderr, "the store is damaged") {
		t.Errorf("exit %d, %s\n%s\nwant\n%s", code, stderr, stdout, want)
	}
	if after, err := os.ReadFile(tables[0]); err != nil || !bytes.Equal(after, b) {
		t.Error("it has changed what it was to look at")
	}
	if code, _, stderr := call(t, "fsck", "--data-dir", filepath.Join(dir, "none")); code != 1 || !strings.Contains(stderr, "no such file") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
