package storage

import (
	"time"

	"holdfast"
)

// settle ends an item that was handed out or released. book counts it; extra
// bytes of rows are added by book to the transaction that records the end.
func (q *Queue) settle(id holdfast.ItemID, extra int, book func(e entry, r *route)) {
	s := q.s
	var wakes []func()
	s.mu.Lock()
	if s.closed || s.crashed || q.removed || id.Lane() >= holdfast.LaneCount {
		s.stats.Unknown++
		s.mu.Unlock()
		return
	}
	l := q.lanes[id.Lane()]
	paused := l.pausedLocked()
	e, ok := l.outLocked(id.Position())
	if !ok {
		s.stats.Unknown++
		s.mu.Unlock()
		return
	}
	if extra > 0 && e.place.ram() {
		s.spillLocked() // what book writes stands for a message on disk
	}
	ram := e.place.ram()
	if ram {
		s.dirtyLocked(q)
	} else {
		// One transaction has the new mark, the counts and the rows of book: a
		// crash before it hands the item out again, and counts it once.
		s.touchLocked(q, extra+64)
	}
	r := q.routes[e.route]
	if e.void {
		r.count(e)
	} else {
		l.settleLocked(e.pos, e.size)
	}
	book(e, r)
	q.bookedLocked(r)
	if e.place.afloat() {
		var err error
		if extra > 0 && s.unsafeLocked() {
			err = errUnsafe // what book has written is not safe either
		}
		s.landLocked(e.place, err)
	}
	q.forgetReleasedLocked(l, e.pos)
	if paused && !l.pausedLocked() {
		wakes = q.wakeLocked(wakes)
	}
	s.activity++
	if !ram {
		s.lazyLocked()
	}
	s.mu.Unlock()
	for _, f := range wakes {
		f()
	}
}

// forgetReleasedLocked removes the row of a position with PUBREC, together with
// what ends it.
func (q *Queue) forgetReleasedLocked(l *lane, pos uint64) {
	if _, ok := q.released[pos]; ok && l.id == holdfast.Normal {
		delete(q.released, pos)
		q.s.addLocked(op{key: releasedKey(q.id, pos), own: true})
	}
}

// Ack says that the far side has the item, or for QoS 0 that it was written to
// a link believed alive. An item that is not handed out is ignored and counted.
func (q *Queue) Ack(id holdfast.ItemID) {
	q.settle(id, 0, func(e entry, r *route) {
		q.ackedLocked(id)
		if e.handed > 0 {
			q.lag = time.Since(q.s.born) - e.handed
		}
		if e.msg.QoS == 0 {
			r.Unconfirmed++
		} else {
			r.Delivered++
		}
	})
}

// Drop takes the item out of the queue, counted as dropped under reason.
func (q *Queue) Drop(id holdfast.ItemID, reason string) {
	q.settle(id, 0, func(_ entry, r *route) { r.drop(reason) })
}

// Release gives items back that were handed out; they come again before all
// others, in their old order, with Again set.
func (q *Queue) Release(ids ...holdfast.ItemID) {
	s := q.s
	s.mu.Lock()
	for _, id := range ids {
		if id.Lane() >= holdfast.LaneCount || q.removed {
			continue
		}
		l := q.lanes[id.Lane()]
		e, ok := l.out[id.Position()]
		if !ok {
			continue
		}
		delete(l.out, id.Position())
		if !e.void && !s.givenLocked(&e) {
			l.redoLocked(e)
		}
	}
	q.leaveLocked()
	wakes := q.wakeLocked(nil)
	s.mu.Unlock()
	for _, f := range wakes {
		f()
	}
}
