package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"holdfast"
)

// ErrBusy: another export or purge of the same queue has not ended.
var ErrBusy = errors.New("busy")

// The long works on a queue, of which one goes on at a time.
const (
	busyExport = "an export"
	busyPurge  = "a purge"
)

// Export is the backlog of a queue while somebody copies it. Until it ends
// nothing of the queue is handed out or dropped: what is copied cannot be sent,
// and what was handed out before is not copied. New messages are taken as usual,
// and are dropped as far as they do not fit. One goroutine uses it.
type Export struct {
	q     *Queue
	ends  [holdfast.LaneCount]uint64
	out   map[holdfast.ItemID]struct{} // handed out when it began
	parts []part
	// Messages and Bytes (by holdfast.Message.Size) are what is to be copied, as
	// far as the queue knows.
	Messages, Bytes int64
	ended           bool
}

// part is a stretch of a lane that was copied.
type part struct {
	lane     *lane
	from, to uint64
	bytes    int64
	routes   []routeCount
}

// beginLocked starts a long work on the queue.
func (q *Queue) beginLocked(what string) error {
	switch {
	case q.removed || q.s.closed || q.s.crashed:
		return fmt.Errorf("storage: queue %q: %w", q.name, holdfast.ErrClosed)
	case q.busy != "":
		return fmt.Errorf("storage: %s of queue %q is under way, wait for its end: %w", q.busy, q.name, ErrBusy)
	}
	q.busy = what
	if q.waitsLocked() {
		q.s.spillLocked() // nothing is acknowledged meanwhile
	}
	return nil
}

// heldLocked: the queue stands still for an export.
func (q *Queue) heldLocked() bool { return q.busy == busyExport }

// Export begins one. The caller must End it.
func (q *Queue) Export() (*Export, error) {
	s := q.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := q.beginLocked(busyExport); err != nil {
		return nil, err
	}
	x := &Export{q: q, out: map[holdfast.ItemID]struct{}{}}
	for i, l := range q.lanes {
		x.ends[i] = l.committed
		x.Messages += int64(l.depth()) - int64(len(l.out)) - int64(l.uncommittedLocked())
		x.Bytes += l.bytes
		for pos := range l.out {
			x.out[holdfast.NewItemID(l.id, pos)] = struct{}{}
		}
	}
	x.Messages = max(x.Messages, 0)
	return x, nil
}

// Skipped is the number of messages that were handed out when the export began
// and are left to whoever has them.
func (x *Export) Skipped() int { return len(x.out) }

// Each calls yield for each message, in the order of Peek. An error of yield
// ends it and is returned.
func (x *Export) Each(ctx context.Context, yield func(Seen) error) (unreadable uint64, err error) {
	x.parts = nil
	for _, id := range urgency {
		l := x.q.lanes[id]
		for pos := uint64(1); pos < x.ends[id]; {
			if err := ctx.Err(); err != nil {
				return unreadable, err
			}
			v, err := x.q.look(l, pos, x.ends[id])
			if err != nil {
				return unreadable, err
			}
			unreadable += v.unreadable
			for i := range v.entries {
				seen := v.seen(i)
				if _, ok := x.out[seen.ID]; ok {
					continue
				}
				if err := yield(seen); err != nil {
					return unreadable, err
				}
				x.copied(l, &v.entries[i], i == 0)
			}
			pos = v.next
		}
	}
	return unreadable, nil
}

// copied notes one message. Parts are as long as what is read at once, so that
// a large backlog is remembered in little space, with the routes of each.
func (x *Export) copied(l *lane, e *entry, begin bool) {
	n := len(x.parts)
	if begin || n == 0 || x.parts[n-1].lane != l || x.parts[n-1].to != e.pos {
		x.parts = append(x.parts, part{lane: l, from: e.pos, to: e.pos})
		n++
	}
	p := &x.parts[n-1]
	p.to++
	p.bytes += int64(e.size)
	for i := range p.routes {
		if p.routes[i].route == e.route {
			p.routes[i].n++
			return
		}
	}
	p.routes = append(p.routes, routeCount{e.route, 1})
}

// Commit takes what Each has yielded out of the queue, counted as exported, and
// waits until that is on disk. It must be called only when the copy is safe: a
// crash before it returns leaves all of the messages in the queue, or none, and
// so does an error. It returns how many there were.
func (x *Export) Commit() (n uint64, err error) {
	q, s := x.q, x.q.s
	s.mu.Lock()
	if err := s.refusalLocked(); err != nil || q.removed || x.ended {
		s.mu.Unlock()
		if err == nil {
			err = fmt.Errorf("storage: queue %q: %w", q.name, holdfast.ErrClosed)
		}
		return 0, err
	}
	// The marks and the counts of all parts are in one transaction.
	s.touchLocked(q, 64+12*min(len(x.parts), s.o.MaxRanges))
	for _, p := range x.parts {
		took := p.lane.settleSpanLocked(p.from, p.to, p.bytes)
		n += took
		q.spreadLocked(took, p.routes, func(r *route, n uint64) { r.Exported += n })
	}
	wakes := x.endLocked()
	done := make(chan error, 1)
	s.waitLocked(func(err error) { done <- err }, 0)
	s.mu.Unlock()
	for _, f := range wakes {
		f()
	}
	return n, <-done
}

// End lets the queue go on. Without Commit everything is as it was.
func (x *Export) End() {
	x.q.s.mu.Lock()
	wakes := x.endLocked()
	x.q.s.mu.Unlock()
	for _, f := range wakes {
		f()
	}
}

func (x *Export) endLocked() []func() {
	if x.ended {
		return nil
	}
	x.ended = true
	x.q.busy = ""
	return x.q.wakeLocked(nil)
}

// settleSpanLocked is the end of all of [from, to) that is not settled yet;
// none of it may be handed out. bytes is the size of all.
func (l *lane) settleSpanLocked(from, to uint64, bytes int64) (n uint64) {
	span := to - from
	if from = max(from, l.low); from >= to {
		return 0
	}
	n = l.settled.add(from, to)
	l.settledCount += n
	l.ahead = max(l.ahead, to)
	mark := l.settled.takeBelow(l.low)
	l.settledCount -= mark - l.low
	l.low = mark
	for pos, p := range l.afloat {
		if pos >= from && pos < to {
			l.q.s.landLocked(p, nil)
		}
	}
	l.redo = slices.DeleteFunc(l.redo, func(e entry) bool { return e.pos >= from && e.pos < to })
	if n < span {
		bytes = bytes / int64(span) * int64(n)
	}
	l.addBytes(-bytes)
	if l.depth() == 0 || l.bytes < 0 {
		l.addBytes(-l.bytes)
	}
	l.unsaved = true
	l.q.s.sweepable[l] = struct{}{}
	return n
}
