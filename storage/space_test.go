package storage

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// At each step the rule of that step holds, and on the way back too.
func TestTheReserveOfTheDiskIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Int64
		free.Store(1 << 30)
		const reserve = 64 << 20
		s, err := OpenMemory(Options{Reserve: reserve, space: func() (int64, int64, error) { return free.Load(), 1 << 30, nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		oldest, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
		refusing, _ := s.Queue("bridge/b", QueueOptions{WhenFull: Refuse, Ledger: true})
		n := 0
		publish := func(q *Queue, retain bool) error {
			n++
			m := &holdfast.Message{Topic: "t", QoS: 1, Retain: retain, Payload: fmt.Appendf(nil, "%06d", n)}
			done := make(chan error, 1)
			err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err })
			if err != nil {
				return err
			}
			select {
			case err = <-done:
			case <-time.After(time.Minute):
				err = errors.New("no answer")
			}
			return err
		}
		will := func() error {
			done := make(chan error, 1)
			s.SetWill("c", &holdfast.Will{Msg: &holdfast.Message{Topic: "w"}}, func(err error) { done <- err })
			return <-done
		}
		look := func(bytes int64, level string) {
			t.Helper()
			free.Store(bytes)
			_ = publish(oldest, false) // a commit looks
			time.Sleep(2 * lookEvery)
			if got := s.Stats().Space; got != level {
				t.Fatalf("%s with %d bytes, want %s", got, bytes, level)
			}
		}
		var full = holdfast.ErrFull
		want := func(what string, err, want error) {
			t.Helper()
			if !errors.Is(err, want) || want == nil && err != nil {
				t.Fatalf("%s: %v, want %v", what, err, want)
			}
		}
		for range 3 {
			want("publish", publish(oldest, false), nil)
			want("publish", publish(refusing, true), nil)
		}

		look(reserve-1, "low")
		before := oldest.Len()
		want("drop-oldest while low", publish(oldest, false), nil)
		if oldest.Len() != before || oldest.Ledger()["r"].Dropped["full"] == 0 {
			t.Fatalf("length %d, was %d", oldest.Len(), before)
		}
		want("refuse while low", publish(refusing, false), full)
		want("retained while low", publish(oldest, true), nil)
		want("a will while low", will(), nil)

		look(reserve/4*3-1, "short")
		before = oldest.Len()
		want("drop-oldest while short", publish(oldest, false), nil)
		if oldest.Len() != before {
			t.Fatal("it was stored")
		}
		want("retained while short", publish(oldest, true), full)
		want("a will while short", will(), full)
		it, ok, err := oldest.TryNext() // what is queued drains
		if !ok || err != nil {
			t.Fatal(err)
		}
		oldest.Ack(it.ID)

		commits := s.Stats().Commits
		free.Store(reserve/2 - 1)
		time.Sleep(2 * lookEvery)
		want("none", publish(oldest, false), full)
		want("a will while none", will(), full)
		it, ok, err = oldest.TryNext()
		if !ok || err != nil {
			t.Fatal(err)
		}
		oldest.Ack(it.ID)
		time.Sleep(time.Minute)
		if n := s.Stats().Commits; n > commits+2 {
			t.Fatalf("%d commits without space", n-commits)
		}

		// The way back, with a little more than the way down.
		free.Store(reserve + 1)
		time.Sleep(2 * lookEvery)
		if got := s.Stats().Space; got != "low" {
			t.Fatalf("%s on the way back", got)
		}
		free.Store(2 * reserve)
		time.Sleep(2 * lookEvery)
		want("refuse with space", publish(refusing, true), nil)
		want("a will with space", will(), nil)
		if s.Stats().Space != "ok" {
			t.Fatal(s.Stats().Space)
		}
	})
}

func TestASmallDiskHasASmallerReserve(t *testing.T) {
	for total, want := range map[int64]int64{64 << 20: (64 << 20) / 5 * 2, 256 << 20: 32 << 20, 8 << 30: (8 << 30) / 20} {
		if got := (&Options{}).reserve(total); got != want {
			t.Errorf("%d of %d, want %d", got, total, want)
		}
	}
	if got := (&Options{Reserve: 100}).reserve(1000); got != 100 {
		t.Error(got)
	}
}

func TestTheReserveFileIsThereWhenTheDiskIsNotFarFromFull(t *testing.T) {
	p := newPillow(t.TempDir())
	o := Options{Reserve: 1 << 20}.withDefaults()
	for _, c := range []struct {
		free int64
		want bool
	}{{4 << 30, false}, {1<<30 - 1, true}, {1<<30 + 1, true}, {4 << 30, false}, {1<<30 + 1, false}, {0, true}} {
		p.keep(&o, c.free, 8<<30, false)
		if got := p.missing() == 0; got != c.want {
			t.Errorf("with %d bytes free it is there: %v", c.free, got)
		}
	}
}

func TestACommitWaitsForMoreToGoWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := OpenMemory(Options{CommitInterval: 200 * time.Millisecond, MaxPending: 100 << 10})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		q, _ := s.Queue("bridge/a", QueueOptions{})
		done := make(chan time.Time, 1000)
		publish := func(size int) {
			m := &holdfast.Message{Topic: "t", QoS: 1, Payload: make([]byte, size)}
			if err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Msg: m}}, func(error) { done <- time.Now() }); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		for range 10 {
			publish(10)
			time.Sleep(10 * time.Millisecond)
		}
		for range 10 {
			if d := (<-done).Sub(start); d != 200*time.Millisecond {
				t.Fatalf("after %v", d)
			}
		}
		if n := s.Stats().Commits; n != 1 {
			t.Fatalf("%d commits", n)
		}
		// Half of the pending bound is enough to go at once.
		start = time.Now()
		for range 6 {
			publish(10 << 10)
		}
		if d := (<-done).Sub(start); d != 0 {
			t.Fatalf("after %v", d)
		}
	})
}

// smallDisk is an ext4 file system of its own, made and removed by the test.
func smallDisk(t *testing.T, bytes int64) string {
	t.Helper()
	skip := func(why string) {
		if os.Getenv("CI") != "" && os.Getuid() == 0 {
			if _, err := os.Stat("/dev/loop-control"); err == nil {
				t.Fatal(why)
			}
		}
		t.Skip("NOT TESTED, a full disk: " + why)
	}
	if os.Getuid() != 0 {
		skip("only root may mount a small one")
	}
	dir := t.TempDir()
	image, mount := filepath.Join(dir, "image"), filepath.Join(dir, "mount")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, bytes); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", image).CombinedOutput(); err != nil {
		skip(fmt.Sprintf("mkfs.ext4: %v %s", err, out))
	}
	// The loop device goes with the mount, and the mount, which nobody else
	// sees by a name, with this process, however it ends.
	if out, err := exec.Command("mount", "-o", "loop", image, mount).CombinedOutput(); err != nil {
		skip(fmt.Sprintf("mount: %v %s", err, out))
	}
	root, err := os.Open(mount)
	if out, umount := exec.Command("umount", "-l", mount).CombinedOutput(); err != nil || umount != nil {
		t.Fatalf("umount %s: %v %v %s", mount, err, umount, out)
	}
	t.Cleanup(func() { root.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root.Fd())
}

// diskChild fills its queue until the test has enough of it; a SIGBUS is the
// end of it, which the test sees. Each line says what it was promised.
func diskChild(dir string) {
	s, err := Open(Options{Dir: filepath.Join(dir, "store")})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	rule := Refuse
	if os.Getenv("HOLDFAST_TEST_RULE") == "drop" {
		rule = DropOldest
	}
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true, WhenFull: rule})
	out := bufio.NewWriter(os.Stdout)
	in := bufio.NewScanner(os.Stdin)
	n := 0
	fmt.Sscan(os.Getenv("HOLDFAST_TEST_FROM"), &n)
	payload := strings.Repeat("x", 4000)
	for in.Scan() {
		if in.Text() == "settle" {
			if err := settled(s); err != nil {
				fmt.Fprintln(out, "not settled:", err)
			}
			fmt.Fprintln(out, "end", s.Stats().Space, q.Len())
			out.Flush()
			continue
		}
		refused, most := 0, 0
		fmt.Sscan(in.Text(), &most)
		for i := 0; i < most && refused < 50; i++ {
			done := make(chan error, 1)
			m := &holdfast.Message{Topic: "t", QoS: 1, Payload: fmt.Appendf(nil, "%08d%s", n, payload)}
			err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err })
			if err == nil {
				select {
				case err = <-done:
				case <-time.After(3 * time.Second):
					err = errSpace // it waits for space; the next one is told so
				}
			}
			if err != nil {
				refused++
				continue
			}
			fmt.Fprintln(out, "safe", n)
			n++
		}
		fmt.Fprintln(out, "end", s.Stats().Space, q.Len())
		out.Flush()
	}
	if err := s.Close(); err != nil {
		fmt.Fprintln(out, "closed", err)
	}
	out.Flush()
}

// filler takes all of the space that is left.
func filler(t *testing.T, dir string) func() {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	_ = f.Sync()
	f.Close()
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
}

// settled waits until neither the committer nor Badger has anything to write:
// a page that one of them is just writing when someone else takes the last one
// ends the process.
func settled(s *Store) error {
	const looks = 100 // one after another: the committer may be between two steps
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Minute)
	for calm := 0; calm < looks; {
		if calm++; !calmNow(s) {
			calm = 0
		}
		select {
		case <-tick.C:
		case <-end:
			return errors.New("it is still writing after a minute")
		}
	}
	return nil
}

// calmNow says that nothing waits for a commit or a drop, that each memtable
// but the one in use is a table, and that there are too few tables to merge.
func calmNow(s *Store) bool {
	s.mu.Lock()
	waits := s.urgent || s.lazy || !s.idleAt.IsZero() || len(s.passed)+len(s.removedIDs) > 0
	level := s.disk.level
	s.mu.Unlock()
	if free, total, err := s.o.space(); err != nil || waits && (level < spaceNone || free >= s.o.reserve(total)/2) {
		return false
	}
	// A table is counted before its memtable is removed, and those that were
	// merged until all of that is on disk.
	mems, err := filepath.Glob(filepath.Join(s.o.Dir, "*.mem"))
	if err != nil || len(mems) > 1 {
		return false
	}
	s.engMu.RLock() // held by whoever drops prefixes
	defer s.engMu.RUnlock()
	db := s.eng.(*badgerEngine).db
	return db.Levels()[0].NumTables < db.Opts().NumLevelZeroTables
}

// merged opens and closes a store until its next opening has nothing to merge:
// closing it may make one more table.
func merged(t *testing.T, dir string) {
	t.Helper()
	for range 5 {
		s := openTest(t, Options{Dir: dir})
		if err := errors.Join(settled(s), s.Close()); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "MANIFEST"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := readManifest(b)
		if err != nil {
			t.Fatal(err)
		}
		fresh := 0
		for _, level := range m.tables {
			if level == 0 {
				fresh++
			}
		}
		if fresh < badgerOptions("", nil, nil).NumLevelZeroTables {
			return
		}
	}
	t.Fatal("it leaves something to merge each time")
}

func TestAFullDiskKillsNobodyAndLosesNothing(t *testing.T) {
	t.Parallel()
	for _, rule := range []string{"refuse", "drop"} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t, 64<<20)
			life := 0
			run := func(steps func(say func(what any) (safe int, end string))) {
				t.Helper()
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), "HOLDFAST_TEST_CHILD="+disk, "HOLDFAST_TEST_DISK=1", "HOLDFAST_TEST_RULE="+rule, fmt.Sprint("HOLDFAST_TEST_FROM=", life*1_000_000))
				life++
				cmd.Stderr = os.Stderr
				// It would go on filling its disk if this process were killed.
				cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
				in, _ := cmd.StdinPipe()
				out, _ := cmd.StdoutPipe()
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				lines := bufio.NewScanner(out)
				steps(func(what any) (safe int, end string) {
					t.Helper()
					fmt.Fprintln(in, what)
					for lines.Scan() {
						if strings.HasPrefix(lines.Text(), "safe") {
							safe++
						} else if end, ok := strings.CutPrefix(lines.Text(), "end "); ok {
							t.Logf("%d safe, %s", safe, end)
							return safe, end
						} else {
							t.Fatal(lines.Text())
						}
					}
					t.Fatalf("the process has died: %v", cmd.Wait())
					return 0, ""
				})
				in.Close()
				for lines.Scan() {
					t.Log(lines.Text())
				}
				if err := cmd.Wait(); err != nil {
					t.Fatalf("the process has died: %v", err)
				}
			}
			total := 0
			run(func(say func(any) (int, string)) {
				safe, end := say(20000) // twice the disk
				if rule == "refuse" && (safe == 20000 || strings.HasPrefix(end, "ok")) {
					t.Fatalf("%d are safe, %s", safe, end)
				}
				if safe < 3500 {
					t.Errorf("only %d messages of 4 KB on a disk of 64 MB", safe)
				}
				total += safe
			})
			run(func(say func(any) (int, string)) {
				say("settle")
				empty := filler(t, disk)
				if safe, end := say(1000); safe > 100 {
					t.Errorf("%d more are safe on a full disk, %s", safe, end)
				} else {
					total += safe
				}
				empty()
			})
			// A start on a disk that someone else has filled to the brim.
			merged(t, filepath.Join(disk, "store"))
			empty := filler(t, disk)
			run(func(say func(any) (int, string)) {
				safe, _ := say(100)
				total += safe
			})
			empty()
			s := openTest(t, Options{Dir: filepath.Join(disk, "store")})
			q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
			got := drain(t, q)
			c := q.Ledger()["r"]
			if !c.Balanced() || c.Lost != 0 || s.Stats().Lost != 0 || rule == "refuse" && len(got) < total {
				t.Fatalf("%d of %d, %+v", len(got), total, c)
			}
			for i := 1; i < len(got); i++ {
				if got[i][:8] <= got[i-1][:8] {
					t.Fatalf("%s behind %s", got[i][:8], got[i-1][:8])
				}
			}
			// Service returns when the backlog has gone.
			eventually(t, func() bool { return s.Stats().Space == "ok" })
			fill(t, s, q, 0, 10)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d found of %d promised, %+v", len(got), total, c)
		})
	}
}
