package storage

import (
	"encoding/binary"
	"slices"
	"sort"
	"time"

	"holdfast"
)

// urgency is the order in which lanes are served.
var urgency = [holdfast.LaneCount]holdfast.Lane{holdfast.High, holdfast.Normal, holdfast.Low}

// entry is one message in memory.
type entry struct {
	pos   uint64
	route uint32
	size  uint32
	msg   *holdfast.Message
	again bool
	// qos0: it was published with QoS 0, whatever it is delivered with.
	qos0 bool
	// at is the age of the store when it came; 0 if nobody knows.
	at int64
	// void: the commit failed after the item was handed out early; the store
	// no longer has it.
	void bool
	// back says where it came from if no publisher has just sent it.
	back *comeback
	// place is where it waits for the disk in spill mode, or did; nil for what
	// was written at once.
	place *place
	// handed is when it was handed out, in spill mode.
	handed time.Duration
}

// lane is one log of a queue. All of it is guarded by Store.mu.
type lane struct {
	q  *Queue
	id holdfast.Lane

	// next is the position of the next message, committed the one behind the
	// last that is on disk.
	next, committed uint64
	// written is the position behind the last that was given to a transaction;
	// what is behind it and not settled waits in memory (spill.go). These are
	// their number and their bytes.
	written      uint64
	waiting      int
	waitingBytes int64
	// Everything below low is settled, and what is in settled beside it.
	// durableLow is the mark that is on disk.
	low, durableLow uint64
	settled         rangeSet
	settledCount    uint64
	// ahead is the position behind the last message that came to its end while one
	// before it had not.
	ahead uint64
	// bytes counts what is not settled; mostBytes is the most of it since the
	// lane was last about empty.
	bytes, mostBytes int64
	// unsaved: the row of the lane is older than all this.
	unsaved bool

	// afloat are messages whose publishers wait for their end, where nothing can
	// be written (unsafe.go).
	afloat map[uint64]*place

	// chunks are those with rows on disk; the last is being written.
	chunks     []chunk
	chunkBytes int
	// swept: below it every batch of the last chunk was deleted.
	swept uint64
	// open is the batch in the open transaction.
	open *batch

	// redo are the items that were released, by position.
	redo []entry
	// out are the items that were handed out.
	out map[uint64]entry
	// read is the position of the next item to be handed out.
	read uint64
	// fresh is that of the next to be handed out ahead of it (fresh.go); 0: none
	// ever was.
	fresh uint64
	// loaded are items from disk.
	loaded []entry
	// tail are the items from tailBase to next.
	tail      []entry
	tailBase  uint64
	tailBytes int
	// opened is what next was when the store opened: what is below may have
	// been handed out before.
	opened uint64
}

type chunk struct {
	id    uint32
	first uint64
	saved bool // its row is on disk, or about to be
}

func newLane(q *Queue, id holdfast.Lane) *lane {
	return &lane{q: q, id: id, next: 1, committed: 1, written: 1, low: 1, durableLow: 1, read: 1, tailBase: 1, opened: 1, swept: 1}
}

func (l *lane) depth() uint64 { return l.next - l.low - l.settledCount }

// uncommittedLocked is how much of what is not settled is not on disk yet.
func (l *lane) uncommittedLocked() (n uint64) {
	for pos := l.settled.after(max(l.committed, l.low)); pos < l.next; pos = l.settled.after(pos + 1) {
		n++
	}
	return n
}

// laneVersion is that of the row of a lane; firstLaneVersion had no ahead.
const (
	laneVersion      = 2
	firstLaneVersion = 1
)

// stateLocked is the row of the lane. It ends before the first message that
// waits in memory: a crash must not leave positions without a message.
func (l *lane) stateLocked(seq uint64) []byte {
	next, settled := l.next, l.settled
	if l.waiting > 0 {
		next = l.settled.after(max(l.written, l.low))
		settled = l.settled.below(next)
	}
	b := make([]byte, 0, 64+6*len(settled.r))
	b = append(b, laneVersion)
	b = binary.AppendUvarint(b, seq)
	b = binary.AppendUvarint(b, next)
	b = binary.AppendUvarint(b, l.low)
	b = binary.AppendUvarint(b, uint64(max(l.bytes-l.waitingBytes, 0)))
	b = binary.AppendUvarint(b, uint64(l.chunkBytes))
	b = binary.AppendUvarint(b, l.swept)
	b = binary.AppendUvarint(b, l.ahead)
	return seal(settled.appendTo(b, l.low))
}

// restore reads the row of the lane and returns the number of the transaction
// that wrote it.
func (l *lane) restore(v []byte) (seq uint64, err error) {
	d, first, err := unsealLane(v)
	if err != nil {
		return 0, err
	}
	seq = d.uvarint()
	next, low := d.uvarint(), d.uvarint()
	bytes, chunkBytes, swept := d.uvarint(), d.uvarint(), d.uvarint()
	ahead := uint64(0)
	if !first {
		ahead = d.uvarint()
	}
	set := d.ranges(low)
	if n := len(set.r); first && n > 0 {
		ahead = set.r[n-1].to
	}
	n := set.count()
	if d.bad || len(d.b) != 0 || low == 0 || low > next || next >= 1<<60 || next-low < n || bytes >= 1<<60 || chunkBytes >= 1<<31 {
		return 0, corrupt("lane")
	}
	l.next, l.low, l.chunkBytes, l.swept = next, low, int(chunkBytes), swept
	l.addBytes(int64(bytes) - l.bytes)
	l.settled, l.settledCount, l.ahead = set, n, ahead
	l.startLocked()
	return seq, nil
}

func unsealLane(v []byte) (d decoder, first bool, err error) {
	if d, err = unseal(v, laneVersion, "lane"); err != nil {
		d, err = unseal(v, firstLaneVersion, "lane")
		first = true
	}
	return d, first, err
}

// startLocked begins a life with nothing in memory.
func (l *lane) startLocked() {
	l.committed, l.written, l.read, l.tailBase, l.opened, l.durableLow = l.next, l.next, l.low, l.next, l.next, l.low
}

// addBytes counts n bytes more that are not settled, in the lane and over all.
func (l *lane) addBytes(n int64) {
	l.bytes += n
	l.mostBytes = max(l.mostBytes, l.bytes)
	l.q.s.bytes += n
}

// settleLocked is the end of one position, whatever it was.
func (l *lane) settleLocked(pos uint64, size uint32) {
	if pos == l.low {
		mark := l.settled.takeBelow(pos + 1)
		l.settledCount -= mark - (pos + 1)
		l.low = mark
	} else {
		l.settledCount += l.settled.add(pos, pos+1)
		l.ahead = max(l.ahead, pos+1)
	}
	l.addBytes(-int64(size))
	if l.depth() == 0 || l.bytes < 0 {
		l.addBytes(-l.bytes) // the sizes of what was lost are not known
	}
	l.unsaved = true
	l.q.s.sweepable[l] = struct{}{}
}

// popTailLocked forgets the first item of the tail.
func (l *lane) popTailLocked() {
	e := &l.tail[0]
	l.tailBytes -= int(e.size)
	l.q.s.tailBytes -= int(e.size)
	*e = entry{}
	l.tail = l.tail[1:]
	l.tailBase++
	if len(l.tail) == 0 {
		l.tail = nil
		delete(l.q.s.tails, l)
	}
}

// trimLocked keeps the tails within their bounds: what was committed is on
// disk and can be read from there.
func (s *Store) trimLocked(l *lane) {
	for len(l.tail) > 0 && l.tailBase < l.committed && (l.tailBytes > s.o.TailBytes/4 || s.tailBytes > s.o.TailBytes) {
		l.popTailLocked()
	}
	if s.tailBytes <= s.o.TailBytes {
		return
	}
	for other := range s.tails {
		for len(other.tail) > 0 && other.tailBase < other.committed && s.tailBytes > s.o.TailBytes {
			other.popTailLocked()
		}
		if s.tailBytes <= s.o.TailBytes {
			return
		}
	}
}

// headLocked is the first item that was not handed out, visible or not. load
// is true if it must be read from disk first.
func (l *lane) headLocked() (e *entry, load bool) {
	for {
		l.read = l.settled.after(max(l.read, l.low))
		if l.redoNextLocked() {
			return &l.redo[0], false
		}
		if l.fresh > l.read {
			if _, out := l.out[l.read]; out {
				l.read++
				continue
			}
		}
		for len(l.loaded) > 0 && l.loaded[0].pos < l.read {
			l.loaded = l.loaded[1:]
		}
		for len(l.tail) > 0 && l.tailBase < l.read {
			l.popTailLocked()
		}
		switch {
		case l.read >= l.next:
			return nil, false
		case len(l.loaded) > 0 && l.loaded[0].pos == l.read:
			return &l.loaded[0], false
		case l.read >= l.tailBase:
			return &l.tail[l.read-l.tailBase], false
		default:
			l.loaded = nil
			return nil, true
		}
	}
}

// redoNextLocked reports whether the first released item is the head. One that
// was handed out ahead waits for its place.
func (l *lane) redoNextLocked() bool { return len(l.redo) > 0 && l.redo[0].pos <= l.read }

// takeLocked removes the head that headLocked has returned.
func (l *lane) takeLocked() entry {
	if l.redoNextLocked() {
		e := l.redo[0]
		l.redo = l.redo[1:]
		if len(l.redo) == 0 {
			l.redo = nil
		}
		return e
	}
	var e entry
	if len(l.loaded) > 0 {
		e = l.loaded[0]
		l.loaded[0] = entry{}
		if l.loaded = l.loaded[1:]; len(l.loaded) == 0 {
			l.loaded = nil
		}
	} else {
		e = l.tail[l.read-l.tailBase]
		l.popTailLocked()
	}
	l.read = e.pos + 1
	return e
}

func (l *lane) visibleLocked(e *entry) bool {
	return e.again || e.pos < l.committed || e.place != nil || l.q.o.Early && e.msg.QoS < 2
}

// pausedLocked: reading ahead would need more ranges than are kept. What lies
// before the last range may still be read: its ends join ranges.
func (l *lane) pausedLocked() bool {
	n := len(l.settled.r)
	return len(l.redo) == 0 && n >= l.q.s.o.MaxRanges && l.read >= l.settled.r[n-1].from
}

// redoLocked puts e among the released items.
func (l *lane) redoLocked(e entry) {
	e.again = true
	i := sort.Search(len(l.redo), func(i int) bool { return l.redo[i].pos >= e.pos })
	l.redo = append(l.redo, entry{})
	copy(l.redo[i+1:], l.redo[i:])
	l.redo[i] = e
}

// outLocked removes an item that was handed out, or was released since.
func (l *lane) outLocked(pos uint64) (entry, bool) {
	if e, ok := l.out[pos]; ok {
		delete(l.out, pos)
		return e, true
	}
	i := sort.Search(len(l.redo), func(i int) bool { return l.redo[i].pos >= pos })
	if i < len(l.redo) && l.redo[i].pos == pos {
		e := l.redo[i]
		l.redo = append(l.redo[:i], l.redo[i+1:]...)
		return e, true
	}
	return entry{}, false
}

// voidLocked takes back the positions of a commit that failed.
func (l *lane) voidLocked(from, to uint64) {
	q := l.q
	void := func(e entry) {
		q.routes[e.route].uncount(q, e)
		l.settleLocked(e.pos, e.size)
	}
	for i := range l.tail {
		if e := l.tail[i]; e.pos >= from && e.pos < to && e.pos >= l.low && !l.settled.has(e.pos) && !l.aheadLocked(e.pos) {
			void(e)
		}
	}
	l.redo = slices.DeleteFunc(l.redo, func(e entry) bool {
		gone := e.pos >= from && e.pos < to
		if gone {
			void(e)
		}
		return gone
	})
	for pos, e := range l.out {
		if pos >= from && pos < to && !e.void {
			void(e)
			e.void = true
			l.out[pos] = e
		}
	}
	l.committed = max(l.committed, to)
}

// chunkOfLocked is the chunk in which pos would be.
func (l *lane) chunkOfLocked(pos uint64) uint32 {
	i := sort.Search(len(l.chunks), func(i int) bool { return l.chunks[i].first > pos })
	if i == 0 {
		return 0
	}
	return l.chunks[i-1].id
}

// oldestLocked is the oldest item in memory of those not settled; load as with
// headLocked.
func (l *lane) oldestLocked() (t time.Time, ok, load bool) {
	pos := uint64(1 << 60)
	for p, e := range l.out {
		if p < pos && !e.void {
			pos, t, ok = p, e.msg.Received, true
		}
	}
	head, load := l.headLocked()
	if head != nil && head.pos < pos {
		return head.msg.Received, true, false
	}
	return t, ok, load && (!ok || l.read < pos)
}
