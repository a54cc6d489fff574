package storage

import (
	"context"
	"time"

	"holdfast"
)

// Purged says what became of a purge.
type Purged struct {
	Dropped uint64
	// InFlight were handed out, and are left to whoever has them.
	InFlight uint64
	// Left are old enough, but lie so scattered among younger messages that the
	// lane would have to remember too many gaps: another purge takes them when
	// some of the others have gone.
	Left uint64
}

const reasonPurged = "purged"

// Purge drops what was received before a moment; all that is there now if it is
// zero. What it drops is counted as dropped(purged), and is on disk when it
// returns. A crash meanwhile leaves a part of it, with the counts of that part.
func (q *Queue) Purge(ctx context.Context, before time.Time) (p Purged, err error) {
	s := q.s
	s.mu.Lock()
	if err = s.refusalLocked(); err == nil {
		err = q.beginLocked(busyPurge)
	}
	var ends [holdfast.LaneCount]uint64
	for i, l := range q.lanes {
		ends[i] = l.committed
	}
	s.mu.Unlock()
	if err != nil {
		return p, err
	}
	for i, l := range q.lanes {
		for pos := uint64(1); pos < ends[i] && err == nil; {
			var v view
			if err = ctx.Err(); err == nil {
				v, err = q.look(l, pos, ends[i])
			}
			if err == nil {
				err = q.purgeView(&v, before, &p)
			}
			pos = v.next
		}
	}
	done := make(chan error, 1)
	s.mu.Lock()
	q.busy = ""
	if refusal := s.refusalLocked(); refusal != nil {
		done <- refusal
	} else {
		s.waitLocked(func(err error) { done <- err }, 0)
	}
	wakes := q.wakeLocked(nil)
	s.mu.Unlock()
	for _, f := range wakes {
		f()
	}
	if stored := <-done; err == nil {
		err = stored
	}
	return p, err
}

// purgeView drops what v shows, as far as nobody has taken it meanwhile.
func (q *Queue) purgeView(v *view, before time.Time, p *Purged) error {
	s, l := q.s, v.lane
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refusalLocked(); err != nil {
		return err
	}
	if q.removed {
		return holdfast.ErrClosed
	}
	s.touchLocked(q, 64+12*min(len(v.entries), s.o.MaxRanges))
	for i := range v.entries {
		e := &v.entries[i]
		if l.goneLocked(e.pos) || !before.IsZero() && !e.msg.Received.Before(before) {
			continue
		}
		if _, out := l.out[e.pos]; out {
			p.InFlight++
			continue
		}
		if e.pos != l.low && !l.settled.has(e.pos-1) && len(l.settled.r) >= s.o.MaxRanges/2 {
			p.Left++
			continue
		}
		_, _ = l.outLocked(e.pos) // it may have been released
		l.settleLocked(e.pos, e.size)
		if p := l.afloat[e.pos]; p != nil {
			s.landLocked(p, nil)
		}
		r := q.routes[e.route]
		r.drop(reasonPurged)
		q.bookedLocked(r)
		p.Dropped++
	}
	s.activity++
	s.lazyLocked()
	return nil
}
