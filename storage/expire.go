package storage

import (
	"time"

	"holdfast"
)

// Messages that are too old, or whose Message Expiry Interval has passed, are
// dropped when they would be handed out, and, by the age that a queue allows,
// so that the backlog of a dead link shrinks too, by a look at the head of each
// lane now and then. A lane is in the order of arrival, so what is behind a
// head that is young enough is young enough too, unless routes with different
// ages share the lane: those behind an older head wait for their turn.

const (
	reasonExpired = "expired"
	// expireReads is how often one sweep reads from disk, about 128 KiB each.
	expireReads = 16
	// expireMost and expireLeast bound the time between two sweeps.
	expireMost, expireLeast = time.Minute, time.Second
)

// maxAgeOf is the age that a message of r may reach, in ms; 0 is any.
func (q *Queue) maxAgeOf(r *route) int64 {
	age := q.o.MaxAge
	if own := q.o.RouteMaxAge[r.name]; own > 0 && (age <= 0 || own < age) {
		age = own
	}
	return age.Milliseconds()
}

// leastAge is the smallest of all of the queue's ages, or 0.
func (o *QueueOptions) leastAge() time.Duration {
	least := max(0, o.MaxAge)
	for _, age := range o.RouteMaxAge {
		if age > 0 && (least == 0 || age < least) {
			least = age
		}
	}
	return least
}

// expiredLocked reports whether e is too old to be handed out.
func (q *Queue) expiredLocked(e *entry, now int64) bool {
	if e.at == 0 || int(e.route) >= len(q.routes) {
		return false
	}
	age := q.maxAgeOf(q.routes[e.route])
	return age > 0 && now-e.at > age
}

// lapsedLocked reports whether the Message Expiry Interval of e has passed
// before its delivery has begun [MQTT-3.3.2-5].
func (q *Queue) lapsedLocked(l *lane, e *entry) bool {
	p := e.msg.Properties
	if p == nil || !p.HasExpiry || e.at == 0 || e.again && e.pos >= l.opened {
		return false
	}
	if _, begun := q.released[e.pos]; begun && l.id == holdfast.Normal {
		return false
	}
	if _, begun := q.far.items[holdfast.NewItemID(l.id, e.pos)]; begun {
		return false
	}
	_, ok := e.msg.After(q.waitedLocked(e))
	return !ok
}

// agedLocked is the message of e with what is left of its expiry.
func (q *Queue) agedLocked(e *entry) *holdfast.Message {
	p := e.msg.Properties
	if p == nil || !p.HasExpiry || e.at == 0 {
		return e.msg
	}
	m, ok := e.msg.After(q.waitedLocked(e))
	if !ok { // its delivery had begun in time, and goes on
		m, _ = e.msg.After(time.Duration(p.Expiry) * time.Second)
	}
	return m
}

// waitedLocked is how long e has surely been in the store.
func (q *Queue) waitedLocked(e *entry) time.Duration {
	return time.Duration(max(0, q.s.age.now()-e.at)) * time.Millisecond
}

// expireHeadsLocked drops expired heads of l; load is true if the next must be
// read first.
func (q *Queue) expireHeadsLocked(l *lane, now int64) (dropped bool, load bool) {
	for {
		if q.heldLocked() {
			return dropped, false
		}
		head, load := l.headLocked()
		if load || head == nil || !q.expiredLocked(head, now) {
			return dropped, load
		}
		q.dropHeadLocked(l, reasonExpired)
		dropped = true
	}
}

// expire is the sweep. It is called by the committer.
func (s *Store) expire() {
	s.mu.Lock()
	var queues []*Queue
	backlog := false
	for _, q := range s.byID {
		if q.o.leastAge() > 0 {
			queues = append(queues, q)
		}
	}
	s.mu.Unlock()
	more := false
	for _, q := range queues {
		for _, l := range q.lanes {
			for reads := 0; ; reads++ {
				s.mu.Lock()
				stop := s.closed || s.crashed || s.failed != nil || q.removed
				var load bool
				if !stop {
					var dropped bool
					if dropped, load = q.expireHeadsLocked(l, s.age.now()); dropped {
						s.lazyLocked()
					}
					backlog = backlog || l.depth() > 0
				}
				s.mu.Unlock()
				if stop || !load {
					break
				}
				if reads == expireReads {
					more = true
					break
				}
				if err := q.readAhead(l); err != nil {
					s.o.Logger.Warn("storage: look for expired messages", "queue", q.name, "error", err)
					break
				}
			}
		}
	}
	s.mu.Lock()
	if backlog && s.failed == nil && s.ageIsOldLocked() {
		s.noteAgeLocked()
		s.lazyLocked()
	}
	s.expireAt = time.Time{}
	if more {
		s.expireAt = time.Now().Add(s.o.AckDelay)
	}
	s.mu.Unlock()
}

// expireEveryLocked is the time between two sweeps; 0 if no message expires.
func (s *Store) expireEveryLocked() time.Duration {
	least := time.Duration(0)
	for _, q := range s.byID {
		if age := q.o.leastAge(); age > 0 && (least == 0 || age < least) {
			least = age
		}
	}
	if least == 0 {
		return 0
	}
	if s.o.ExpireEvery > 0 {
		return s.o.ExpireEvery
	}
	return min(max(least/10, expireLeast), expireMost)
}
