//go:build linux && (amd64 || arm64)

package powercut

import (
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

const sector = 512

// disk is a disk with a volatile write cache, in memory. What is written is
// read back at once, and is safe only after a flush that began behind it.
type disk struct {
	mu      sync.Mutex
	live    []byte        // what a read sees
	durable []byte        // what was flushed
	pending []cached      // what was not, in the order of arrival
	moved   int           // how many writes have left pending since the start
	off     chan struct{} // closed when the power is off
	writes  int           // since arm
	larges  int           // of these, at least tableWrite long
	syncs   int           // since arm
	faults  faults

	// saved is the disk at the last cut: what every image is made from.
	saved struct {
		durable []byte
		pending []cached
	}
	scratch []byte // image's
}

// cached is one write request.
type cached struct {
	at   int64
	data []byte
}

// tableWrite is the length in bytes of requests that only tables are written
// with: a commit writes less.
const tableWrite = 128 << 10

// faults are what goes wrong; zero is a disk without faults.
type faults struct {
	CutAt     int           // cut inside this write request, counted from arm
	FailWrite int           // this write request answers EIO and is lost
	FailLarge int           // this one of those that write a table does
	FailSync  int           // from this flush on all answer EIO
	SlowSync  time.Duration // how long each flush takes
	// Negative controls: a disk on which nothing can be safe.
	IgnoreSync bool    // a flush does nothing
	Forget     float64 // this part of what was flushed is gone for ever
}

func newDisk(content []byte) *disk {
	d := &disk{}
	d.fill(content)
	return d
}

// fill makes content what is durable, with the power on and no faults.
func (d *disk) fill(content []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = append(d.durable[:0], content...)
	d.live = append(d.live[:0], content...)
	d.pending, d.moved = nil, 0
	d.off = make(chan struct{})
	d.faults, d.writes, d.larges, d.syncs = faults{}, 0, 0, 0
}

func (d *disk) arm(f faults) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults, d.writes, d.larges, d.syncs = f, 0, 0, 0
}

func (d *disk) isOff() bool {
	select {
	case <-d.off:
		return true
	default:
		return false
	}
}

// cut switches the power off: from now on every request answers EIO.
func (d *disk) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutLocked()
}

func (d *disk) cutLocked() {
	if !d.isOff() {
		close(d.off)
	}
}

func (d *disk) whenOff() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

func (d *disk) read(b []byte, at int64) (int, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isOff() {
		return 0, syscall.EIO
	}
	if at >= int64(len(d.live)) {
		return 0, 0
	}
	return copy(b, d.live[at:]), 0
}

func (d *disk) write(b []byte, at int64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isOff() || at < 0 || at+int64(len(b)) > int64(len(d.live)) {
		return syscall.EIO
	}
	d.writes++
	if d.writes == d.faults.FailWrite {
		return syscall.EIO
	}
	if len(b) >= tableWrite {
		if d.larges++; d.larges == d.faults.FailLarge {
			return syscall.EIO
		}
	}
	copy(d.live[at:], b)
	d.pending = append(d.pending, cached{at, append([]byte(nil), b...)})
	if d.writes == d.faults.CutAt {
		// Inside the request: it may be there in part, and nobody is told.
		d.cutLocked()
		return syscall.EIO
	}
	return 0
}

// sync makes durable what had arrived before it.
func (d *disk) sync() syscall.Errno {
	d.mu.Lock()
	d.syncs++
	f := d.faults
	upTo, off, failed := d.moved+len(d.pending), d.off, f.FailSync > 0 && d.syncs >= f.FailSync
	d.mu.Unlock()
	if f.SlowSync > 0 {
		t := time.NewTimer(f.SlowSync)
		defer t.Stop()
		select {
		case <-t.C:
		case <-off:
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.isOff() || failed:
		return syscall.EIO
	case f.IgnoreSync:
		return 0
	}
	for d.moved < upTo && len(d.pending) > 0 {
		w := d.pending[0]
		d.pending[0] = cached{} // or its bytes live as long as the array
		d.pending, d.moved = d.pending[1:], d.moved+1
		if f.Forget == 0 || rand.Float64() >= f.Forget {
			copy(d.durable[w.at:], w.data)
		}
	}
	return 0
}

// save keeps the disk as the cut has left it.
func (d *disk) save() (pending int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saved.durable = append(d.saved.durable[:0], d.durable...)
	d.saved.pending = d.pending
	return len(d.pending)
}

// What of the cache survives a cut.
const (
	keepNone     = iota
	keepAll      // everything was written just in time
	keepSectors  // any sectors
	keepRequests // any whole requests
	keepPrefix   // the oldest, and the first sectors of the next
	keepKinds
)

// image switches the power on again, over what was durable at the cut and a
// part of what was not. The same kind and seed give the same content.
func (d *disk) image(kind int, seed uint64) {
	d.scratch = append(d.scratch[:0], d.saved.durable...)
	content := d.scratch
	rng := rand.New(rand.NewPCG(seed, uint64(kind)))
	part := []float64{0.05, 0.5, 0.95}[rng.IntN(3)]
	first := len(d.saved.pending)
	if kind == keepPrefix {
		first = rng.IntN(len(d.saved.pending) + 1)
	}
	for i, w := range d.saved.pending {
		sectors := (len(w.data) + sector - 1) / sector
		torn := sectors
		switch {
		case kind == keepNone, kind == keepRequests && rng.Float64() >= part, kind == keepPrefix && i > first:
			continue
		case kind == keepPrefix && i == first:
			torn = rng.IntN(sectors + 1)
		}
		for s := range torn {
			if kind == keepSectors && rng.Float64() >= part {
				continue
			}
			from, to := s*sector, min(len(w.data), (s+1)*sector)
			copy(content[w.at+int64(from):], w.data[from:to])
		}
	}
	d.fill(content)
}
