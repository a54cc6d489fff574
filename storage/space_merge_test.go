package storage

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"holdfast"
)

// churnChild writes without an end into a queue that drops its oldest, which
// keeps Badger merging, and tells each promise and each refusal.
func churnChild(dir string) {
	s, err := Open(Options{Dir: filepath.Join(dir, "store"), DropEvery: time.Second, ChunkBytes: 2 << 20})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true, MaxBytes: 8 << 20})
	var stop atomic.Bool
	go func() {
		bufio.NewScanner(os.Stdin).Scan()
		stop.Store(true)
	}()
	payload := strings.Repeat("x", 4000)
	var n atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for last := ""; !stop.Load(); <-tick.C {
			if now := s.Stats().Space; now != last {
				fmt.Println(now)
				last = now
			}
		}
	})
	for range 8 {
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for !stop.Load() {
				i := n.Add(1)
				m := &holdfast.Message{Topic: "t", QoS: 1, Payload: fmt.Appendf(nil, "%08d%s", i, payload)}
				done := make(chan error, 1)
				err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err })
				if err == nil {
					err = <-done // for as long as it takes
				}
				if err == nil {
					fmt.Println("safe", i)
					continue
				}
				fmt.Println("refused", i)
				<-tick.C
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		fmt.Println("error", err)
	}
}

// brim takes all of the space that is left, and at once.
func brim(t *testing.T, dir string) (empty func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for at, size := int64(0), int64(16<<20); size >= 4096; {
		switch err := syscall.Fallocate(int(f.Fd()), 0, at, size); {
		case err == nil:
			at += size
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case !errors.Is(err, syscall.EINTR):
			t.Fatal(err)
		}
	}
	return func() {
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// Another program takes the last page while Badger flushes, merges and drops,
// again and again: no store into a map may meet it.
func TestADiskFilledDuringAMergeKillsNobody(t *testing.T) {
	needCorrections(t)
	disk := smallDisk(t, 64<<20)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_CHILD="+disk, "HOLDFAST_TEST_CHURN=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func() (word string, n int, ok bool) {
		if !lines.Scan() {
			return "", 0, false
		}
		word, rest, _ := strings.Cut(lines.Text(), " ")
		if word == "error" {
			t.Fatal(lines.Text())
		}
		fmt.Sscan(rest, &n)
		return word, n, true
	}
	promised, newest := 0, 0
	wait := func(want string, times int) {
		t.Helper()
		for times > 0 {
			word, n, ok := next()
			if !ok {
				text := stderr.String()
				t.Fatalf("the process has died: %v\n%s", cmd.Wait(), text[:min(len(text), 3000)])
			}
			if word == "safe" {
				promised++
				newest = max(newest, n)
			}
			if word == want {
				times--
			}
		}
	}
	for range 6 {
		wait("safe", 1300) // at least one memtable is flushed, and service is back
		empty := brim(t, disk)
		wait("none", 1)
		empty()
	}
	wait("safe", 1300)
	in.Close()
	for {
		word, n, ok := next()
		if !ok {
			break
		}
		if word == "safe" {
			promised++
			newest = max(newest, n)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the process has died: %v\n%s", err, stderr.String())
	}
	s := openTest(t, Options{Dir: filepath.Join(disk, "store")})
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	got := drain(t, q)
	c := q.Ledger()["r"]
	if !c.Balanced() || c.Lost != 0 || s.Stats().Lost != 0 || int(c.Accepted) < promised {
		t.Fatalf("%d are promised, %+v", promised, c)
	}
	there := false
	for _, p := range got {
		there = there || p[:8] == fmt.Sprintf("%08d", newest)
	}
	if !there {
		t.Fatalf("%d was promised and is not there, %d are", newest, len(got))
	}
	t.Logf("%d promised, %d found, %+v", promised, len(got), c)
}
