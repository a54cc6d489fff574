package storage

import (
	"sort"
	"time"

	"holdfast"
)

// A queue is read from its oldest message on. With Mark and PollFresh what comes
// later can be read beside it, so that fresh data need not wait until a backlog
// has drained: a second mark goes ahead in each lane, over what is in memory. What
// it has taken the first one leaves out; what it has not, because it was faster
// than its reader, the first one comes to in its time. What was taken ahead and
// is released comes again in its old place.

// Mark lets PollFresh begin behind all that is in the queue now, and returns
// where that is. Below settled something was acknowledged or dropped behind a
// message that was not.
func (q *Queue) Mark() (end, settled [holdfast.LaneCount]uint64) {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	for id, l := range q.lanes {
		l.fresh = l.next
		end[id] = l.next
		if l.ahead > l.low {
			settled[id] = l.ahead
		}
	}
	return end, settled
}

// PollFresh hands out the next item behind Mark of the most urgent lane in lanes;
// ok is false if there is none in memory now.
func (q *Queue) PollFresh(lanes holdfast.Lanes) (it holdfast.Item, ok bool, err error) {
	s := q.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.crashed || q.removed {
		return it, false, holdfast.ErrClosed
	}
	if q.heldLocked() {
		return it, false, nil
	}
	now := int64(0)
	if q.expires {
		now = s.age.now()
	}
	for _, id := range urgency {
		l := q.lanes[id]
		if !lanes.Has(id) || l.fresh == 0 || len(l.settled.r) >= s.o.MaxRanges {
			continue
		}
		if e := l.takeFreshLocked(now); e != nil {
			return holdfast.Item{ID: holdfast.NewItemID(id, e.pos), Route: q.routes[e.route].name, Msg: q.agedLocked(e), Again: e.again}, true, nil
		}
	}
	return it, false, nil
}

func (l *lane) takeFreshLocked(now int64) *entry {
	for l.fresh = l.settled.after(max(l.fresh, l.low, l.tailBase)); l.fresh < l.next; l.fresh = l.settled.after(l.fresh + 1) {
		e := l.tail[l.fresh-l.tailBase]
		if l.aheadLocked(e.pos) || l.q.lapsedLocked(l, &e) || l.q.expires && l.q.expiredLocked(&e, now) {
			continue // the first mark drops what is too old
		}
		if !l.visibleLocked(&e) {
			return nil
		}
		if l.q.s.o.Sync == Spill {
			e.handed = time.Since(l.q.s.born)
		}
		if l.out == nil {
			l.out = map[uint64]entry{}
		}
		l.out[e.pos] = e
		l.fresh = e.pos + 1
		return &e
	}
	return nil
}

// aheadLocked reports whether pos was handed out, or released since.
func (l *lane) aheadLocked(pos uint64) bool {
	if _, out := l.out[pos]; out {
		return true
	}
	i := sort.Search(len(l.redo), func(i int) bool { return l.redo[i].pos >= pos })
	return i < len(l.redo) && l.redo[i].pos == pos
}
