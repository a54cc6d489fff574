package storage

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"holdfast/storage/storagetest/badcard"
)

// TestMain runs a child's part if it is one, and else checks that no test has
// left a goroutine behind.
func TestMain(m *testing.M) {
	badcard.Serve()
	if dir := os.Getenv("HOLDFAST_TEST_CHILD"); dir != "" {
		child(dir)
		os.Exit(0)
	}
	code := m.Run()
	if theImage.dir != "" {
		os.RemoveAll(filepath.Dir(theImage.dir))
	}
	if code == 0 {
		if left := leaks(); left != "" {
			fmt.Fprintln(os.Stderr, "goroutines left behind:\n"+left)
			code = 1
		}
	}
	os.Exit(code)
}

// leaks waits until only the goroutine of the tests is left.
func leaks() string {
	buf := make([]byte, 1<<20)
	deadline := time.Now().Add(10 * time.Second)
	for {
		stacks := buf[:runtime.Stack(buf, true)]
		if !bytes.Contains(stacks, []byte("holdfast/storage.(*Store)")) && !bytes.Contains(stacks, []byte("badger/v4.(")) {
			return ""
		}
		if time.Now().After(deadline) {
			return string(stacks)
		}
		runtime.Gosched()
	}
}
