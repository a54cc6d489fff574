package storage

import (
	"context"
	"fmt"
	"slices"

	"holdfast"
)

// Seen is a message that was looked at in a queue and not taken out of it.
type Seen struct {
	ID    holdfast.ItemID
	Route string
	Msg   *holdfast.Message
}

// Peek calls yield for what is in the queue and on disk now, the most urgent of
// lanes first and each from its oldest message on, until yield returns false.
// It takes nothing out, and shows what was handed out too. It returns how many
// messages it could not read; they stay where they are, and are counted as lost
// when the queue itself comes to them. yield is called without a lock.
func (q *Queue) Peek(ctx context.Context, lanes holdfast.Lanes, yield func(Seen) bool) (unreadable uint64, err error) {
	for _, id := range urgency {
		if !lanes.Has(id) {
			continue
		}
		l := q.lanes[id]
		q.s.mu.Lock()
		pos, end := l.low, l.committed
		q.s.mu.Unlock()
		for pos < end {
			if err := ctx.Err(); err != nil {
				return unreadable, err
			}
			v, err := q.look(l, pos, end)
			if err != nil {
				return unreadable, err
			}
			unreadable += v.unreadable
			for i := range v.entries {
				if !yield(v.seen(i)) {
					return unreadable, nil
				}
			}
			pos = v.next
		}
	}
	return unreadable, nil
}

// view is what one look at the disk has shown of a lane.
type view struct {
	lane       *lane
	entries    []entry
	routes     []string // the names of the routes of entries
	next       uint64   // everything before it was looked at
	unreadable uint64
}

func (v *view) seen(i int) Seen {
	e := &v.entries[i]
	return Seen{ID: holdfast.NewItemID(v.lane.id, e.pos), Route: v.routes[i], Msg: e.msg}
}

// look reads a few batches of l from pos on, without touching what the readers
// of the queue have in memory. end must not be beyond what is committed.
func (q *Queue) look(l *lane, pos, end uint64) (view, error) {
	s := q.s
	v := view{lane: l, next: end}
	s.mu.Lock()
	gone := q.removed || s.closed || s.crashed
	pos = l.settled.after(max(pos, l.low))
	chunk := l.chunkOfLocked(pos)
	s.mu.Unlock()
	switch {
	case gone:
		return v, fmt.Errorf("storage: queue %q: %w", q.name, holdfast.ErrClosed)
	case pos >= end:
		return v, nil
	}
	var f found
	err := s.read(func(eng engine) (err error) {
		f, err = readBatches(eng, q.id, l, chunk, pos, end)
		return err
	})
	if err != nil {
		return v, fmt.Errorf("storage: read queue %q: %w", q.name, err)
	}
	v.next = max(min(f.end, end), pos+1)

	s.mu.Lock()
	defer s.mu.Unlock()
	// What was settled meanwhile may be swept already: it is no gap.
	v.entries = slices.DeleteFunc(f.entries, func(e entry) bool { return e.pos < pos || e.pos >= end || l.goneLocked(e.pos) })
	for i := range v.entries {
		if e := &v.entries[i]; int(e.route) >= len(q.routes) {
			e.route = 0 // its row is damaged or missing
		}
		v.routes = append(v.routes, q.routes[v.entries[i].route].name)
	}
	for _, x := range f.lost {
		for p := l.settled.after(max(x.from, pos, l.low)); p < min(x.to, end); p = l.settled.after(p + 1) {
			v.unreadable++
		}
	}
	return v, nil
}
