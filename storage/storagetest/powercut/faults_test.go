//go:build linux && (amd64 || arm64)

package powercut

import (
	"bytes"
	"testing"
	"time"

	"holdfast/storage"
)

// The recovery on a slow disk takes a while: it is cut in the long form only.
func TestEverythingPromisedIsThereAfterPowerCutsOnASlowDisk(t *testing.T) {
	slow := faults{SlowSync: 300 * time.Millisecond}
	c := newTrial(t, *seed)
	for range max(1, *cuts/7) {
		c.fresh()
		c.atWork = &slow
		c.cutOnce(faults{}, time.Duration(300+c.rng.IntN(1500))*time.Millisecond)
		c.tryAll(*images)
		if c.atWork = nil; *cuts >= long {
			c.cutOnce(slow, time.Duration(c.rng.IntN(6000))*time.Millisecond)
			c.tryAll(*images)
		}
	}
	c.mustHold()
}

// Where a flush takes a while, ext4 commits its journal between the steps in
// which a file is made.
func TestStoreOpensAfterPowerCutsWhileItIsMadeAndOpened(t *testing.T) {
	c := newTrial(t, *seed)
	for n := range max(2, *cuts/3) {
		if n%4 == 0 {
			c.fresh()
		}
		c.cutOnce(faults{SlowSync: 20 * time.Millisecond}, time.Duration(c.rng.IntN(700))*time.Millisecond)
		c.tryAll(*images)
	}
	c.mustHold()
}

// A write that fails is reported by one fdatasync only; the next says that all
// is well. Which write it is decides whether the store comes back or ext4 goes
// read-only; nothing that was promised may depend on it.
func TestEverythingPromisedIsThereAfterAFailedWrite(t *testing.T) {
	c := newTrial(t, *seed)
	c.again = true
	for range max(1, *cuts/5) {
		c.fresh()
		c.cutOnce(faults{FailWrite: 100 + c.rng.IntN(300)}, 900*time.Millisecond)
		c.tryAll(*images)
	}
	c.mustHold()
}

// A table that could not be written whole must not take the place of those that
// it was made of. Most of the large writes are those of merges.
func TestEverythingPromisedIsThereAfterAFailedMerge(t *testing.T) {
	if !storage.Corrected() {
		t.Skip("NOT TESTED: this test was " + storage.Uncorrected)
	}
	c := newTrial(t, *seed)
	c.again = true
	for range max(1, *cuts/10) {
		c.fresh()
		c.cutOnce(faults{FailLarge: 40 + c.rng.IntN(100)}, 4*time.Second)
		c.tryAll(*images)
	}
	c.mustHold()
}

// After a flush that failed ext4 turns read-only, and nothing may be promised
// until the machine was started again.
func TestEverythingPromisedIsThereAfterAFailedFlush(t *testing.T) {
	c := newTrial(t, *seed)
	c.again = true
	for range max(1, *cuts/5) {
		c.fresh()
		c.cutOnce(faults{FailSync: 20 + c.rng.IntN(150)}, 700*time.Millisecond)
		c.tryAll(*images)
	}
	c.mustHold()
}

// The negative controls: each breaks the promise on purpose, and a check that
// does not notice is worth nothing.
func TestBrokenPromisesAreNoticed(t *testing.T) {
	for _, control := range []struct {
		name   string
		faults faults
		early  bool
	}{
		{"a disk that ignores flushes", faults{IgnoreSync: true}, false},
		{"a disk that forgets a third of what was flushed", faults{Forget: 0.3}, false},
		{"a program that is promised before the commit", faults{}, true},
	} {
		t.Run(control.name, func(t *testing.T) {
			c := newTrial(t, *seed)
			c.early = control.early
			for n := 0; n < 6 && c.lost == 0; n++ {
				c.fresh()
				c.cutOnce(control.faults, 500*time.Millisecond)
				for _, kind := range []int{keepNone, keepPrefix} {
					c.try(kind, c.rng.Uint64())
				}
			}
			c.report()
			for _, f := range c.faults {
				t.Log(f)
			}
			if c.lost == 0 {
				t.Error("nothing was noticed")
			}
		})
	}
}

func TestDiskKeepsWhatWasFlushedAndAPartOfTheRest(t *testing.T) {
	blank := make([]byte, 64*sector)
	d := newDisk(blank)
	one, two := bytes.Repeat([]byte{1}, 8*sector), bytes.Repeat([]byte{2}, 8*sector)
	d.write(one, 0)
	if errno := d.sync(); errno != 0 {
		t.Fatal(errno)
	}
	d.write(two, 4*sector)
	d.write(two, 32*sector)
	d.arm(faults{CutAt: 1})
	if errno := d.write(two, 48*sector); errno == 0 || !d.isOff() {
		t.Fatal("the cut did not come in the write")
	}
	if d.sync() == 0 || d.write(one, 0) == 0 {
		t.Error("a disk without power has answered")
	}
	if n := d.save(); n != 3 {
		t.Fatalf("%d writes are pending", n)
	}
	for kind := range keepKinds {
		seen := map[int]bool{} // how many bytes of the pending writes are there
		for s := range uint64(60) {
			d.image(kind, s)
			if !bytes.Equal(d.live[:4*sector], one[:4*sector]) {
				t.Fatalf("kind %d: flushed sectors are gone", kind)
			}
			for at := 0; at < len(d.live); at += sector {
				if s := d.live[at : at+sector]; bytes.Count(s, s[:1]) != sector {
					t.Fatalf("kind %d: a torn sector", kind)
				}
			}
			seen[bytes.Count(d.live, []byte{2})/sector] = true
			again := bytes.Clone(d.live)
			if d.image(kind, s); !bytes.Equal(again, d.live) {
				t.Fatalf("kind %d: the seed does not repeat it", kind)
			}
		}
		switch {
		case kind == keepNone && (len(seen) != 1 || !seen[0]), kind == keepAll && (len(seen) != 1 || !seen[24]):
			t.Errorf("kind %d keeps %v", kind, seen)
		case kind == keepRequests && (len(seen) != 4 || !seen[16]), kind == keepSectors && len(seen) < 8, kind == keepPrefix && len(seen) < 8:
			t.Errorf("kind %d keeps %v", kind, seen)
		}
	}
}
