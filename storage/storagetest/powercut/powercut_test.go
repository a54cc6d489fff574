//go:build linux && (amd64 || arm64)

package powercut

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	cuts     = flag.Int("cuts", shortCuts, "how many times the power is cut")
	images   = flag.Int("images", shortImages, "how many disks are tried after each cut")
	syncMode = flag.String("sync", "", "always or spill in all lives; default: by the seed, in each life anew")
	seed     = flag.Uint64("seed", 0, "repeat the decisions of a run; 0 is a new one")
)

// startWait is how long the program may take until its first promise.
const startWait = 60 * time.Second

// long is from how many cuts on the run is the long form.
const long = 40

// chain is how many cuts one disk suffers before a new one is taken.
const chain = 5

// trial is a disk with the history of the program on it.
type trial struct {
	*rig
	h     *history
	rng   *rand.Rand
	life  int
	again bool // commits have failed: repetitions are allowed
	early bool // negative control
	spill bool // the next life runs in spill mode
	// atWork: the clock of a cut begins with the first promise, not with the
	// start of the program, and then these faults begin.
	atWork *faults

	cuts, recoveryCuts, images int
	spills, direct             int // lives in spill mode, and messages that went without the disk
	promised, lost             uint64
	faults                     []string
}

func newTrial(t *testing.T, s uint64) *trial {
	if s == 0 {
		s = rand.Uint64() >> 32
	}
	t.Logf("-seed=%d", s)
	return &trial{rig: newRig(t), h: newHistory(), rng: rand.New(rand.NewPCG(s, 1))}
}

func (c *trial) report() {
	c.t.Helper()
	c.count()
	c.t.Logf("%d cuts (%d of them before the store was open, %d with spill), %d images (%d repaired by e2fsck), %d messages promised (%d at least without the disk), %d lost, %d faults",
		c.cuts, c.recoveryCuts, c.spills, c.images, c.repaired, c.promised, c.direct, c.lost, len(c.faults))
}

// count adds up what was promised on one disk.
func (c *trial) count() {
	for _, n := range c.h.safe {
		c.promised += n
	}
	c.direct += c.h.direct
	c.h = newHistory()
}

// fresh takes a new disk.
func (c *trial) fresh() {
	c.count()
	c.do(order{Do: "fill"})
	c.life = 0
}

// cutOnce runs the program until the power goes: as faults say, or after the
// time given, whichever is first. It keeps the disk for images.
func (c *trial) cutOnce(f faults, after time.Duration) {
	c.t.Helper()
	c.cuts++
	c.life++
	if c.spill = c.rng.IntN(2) == 0; *syncMode != "" {
		c.spill = *syncMode == "spill"
	}
	if c.spill = c.spill && !c.early; c.spill {
		c.spills++
	}
	c.h.opened = false
	c.do(order{Do: "arm", Faults: f})
	if err := c.mount(); err != nil {
		if !c.do(order{Do: "look"}).Off {
			c.t.Fatal(err)
		}
	} else {
		c.work(after)
	}
	if !c.h.opened {
		c.recoveryCuts++
	}
	c.unmount()
	c.do(order{Do: "save"})
}

// work runs the program until the power is off, and then hears it out: what it
// was promised after the cut has to be there too.
func (c *trial) work(after time.Duration) {
	c.t.Helper()
	cmd := c.program(fmt.Sprint(c.life))
	out, err := cmd.StdoutPipe()
	c.must(err)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	c.must(cmd.Start())
	var bad []string
	heard, working := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(heard)
		lines, first := bufio.NewScanner(out), sync.OnceFunc(func() { close(working) })
		for lines.Scan() {
			if err := c.h.hear(lines.Text()); err != nil {
				bad = append(bad, err.Error())
			}
			if strings.HasPrefix(lines.Text(), "safe ") {
				first()
			}
		}
	}()
	if c.atWork != nil {
		begun := time.Now()
		select {
		case <-working:
			a := c.do(order{Do: "look"})
			c.t.Logf("from mount to the first promise: %d writes, %d flushes; %v of it in the program", a.Writes, a.Syncs, time.Since(begun).Round(time.Millisecond))
			c.do(order{Do: "arm", Faults: *c.atWork})
		case <-heard:
		case <-time.After(startWait):
			c.t.Errorf("nothing was promised within %v", startWait)
		}
	}
	c.do(order{Do: "await", Wait: after})
	ended := false
	select {
	case <-heard:
		ended = true
	default:
	}
	off := c.do(order{Do: "look"}).Off
	c.do(order{Do: "cut"})
	_ = cmd.Process.Kill() // it may have ended, which Wait tells
	<-heard
	err = cmd.Wait()
	// Where commits fail it may give up with an error, but it must not crash.
	gaveUp := c.again && cmd.ProcessState.ExitCode() == 1
	if ended && !off && !gaveUp {
		c.faults = append(c.faults, fmt.Sprintf("the program has ended by itself, with the power on: %v %.1500s", err, stderr.String()))
	}
	c.faults = append(c.faults, bad...)
}

// program is the program under test, over the mounted disk.
func (c *trial) program(life string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envStore+"="+filepath.Join(c.mnt, "store"), envLife+"="+life)
	if c.early {
		cmd.Env = append(cmd.Env, envEarly+"=1")
	}
	if c.spill {
		cmd.Env = append(cmd.Env, envSpill+"=1")
	}
	return cmd
}

// try makes one disk of what the cut has left, and looks what is on it.
func (c *trial) try(kind int, s uint64) {
	c.t.Helper()
	c.images++
	c.do(order{Do: "image", Kind: kind, Seed: s})
	var faults []string
	var lost uint64
	if err := c.mount(); err != nil {
		faults, lost = []string{err.Error()}, c.h.promised(nil)
	} else {
		cmd := c.program("0")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if err != nil {
			lines = append(lines, fmt.Sprintf("the program ended with %v: %.600s", err, stderr.String()))
		}
		faults, lost = c.h.check(lines, c.again)
	}
	c.unmount()
	c.lost += lost
	for _, f := range faults {
		c.faults = append(c.faults, fmt.Sprintf("cut %d, image of kind %d, seed %d: %s", c.cuts, kind, s, f))
	}
}

// tryAll makes some images; the disk goes on from the last.
func (c *trial) tryAll(n int) {
	c.t.Helper()
	var kind int
	var s uint64
	first := c.rng.IntN(keepKinds)
	for i := range n {
		kind, s = (first+i)%keepKinds, c.rng.Uint64()
		c.try(kind, s)
	}
	c.do(order{Do: "image", Kind: kind, Seed: s})
}

func (c *trial) mustHold() {
	c.t.Helper()
	c.report()
	for _, f := range c.faults {
		c.t.Error(f)
	}
}

// Half of the cuts are by the clock, a quarter inside a write request under
// load, the rest inside one of the first: while the journal or the store's log
// is replayed, or while the store is made. Up to the first promise there are
// about thirty.
func TestEverythingPromisedIsThereAfterPowerCuts(t *testing.T) {
	c := newTrial(t, *seed)
	for n := range *cuts {
		if n%chain == 0 || n%8 == 3 {
			c.fresh()
		}
		var f faults
		after := 5 * time.Second
		switch {
		case n%2 == 0:
			after = time.Duration(30+c.rng.IntN(500)) * time.Millisecond
		case n%4 == 1:
			f.CutAt = 50 + c.rng.IntN(600)
		default:
			f.CutAt = 1 + c.rng.IntN(35)
		}
		c.cutOnce(f, after)
		c.tryAll(*images)
	}
	c.mustHold()
}
