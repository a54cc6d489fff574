package storage

import (
	"math"
	"time"

	"holdfast"
)

// In spill mode a publication waits in memory, unacknowledged to its publisher,
// for the acknowledgements of its destinations. If they come in time its rows
// are never written; if not, all that waits goes to disk like any other. Nobody
// is told of it before one or the other: a crash meanwhile loses what nobody
// was promised.
//
// Positions are given out in memory. Those of messages that went without the
// disk are simply settled; a row of progress that is written ends before the
// first one that still waits (lane.stateLocked), and so do the counts.

// Sync is when a message is written.
type Sync byte

const (
	// Always writes each message before its done.
	Always Sync = iota
	// Spill lets a message wait in memory, up to SpillAfter, for those who are
	// to get it: its done comes when all of them have acknowledged it, or when
	// it is on disk. It waits only for destinations that are there and answer
	// within SpillAfter. QoS 2, retained messages of QoS 1 and wills do not wait.
	Spill
)

const (
	// booksEvery is how long the ledger on disk may lack what went without the
	// disk, and retainEvery the same for retained values of QoS 0.
	booksEvery  = time.Minute
	retainEvery = 10 * time.Second
	// retainMost bounds the retained values that wait, in bytes.
	retainMost = 256 << 10
)

// afloat is a publication that waits in memory.
type afloat struct {
	places []place
	open   int // places that are not settled
	// done is nil if nobody waits for it: it was QoS 0, or given up.
	done  func(error)
	err   error // what done will be told
	bytes int
	since time.Time
	// never: no acknowledgement makes it safe (unsafe.go). given: it was given up,
	// and is in the hands of those who send it.
	never, given bool
	free         bool // QoS 0: it is done as soon as it was taken

	prev, next *afloat
}

// place is one destination of it.
type place struct {
	of    *afloat // nil when it was settled, or given to a transaction
	lane  *lane
	pos   uint64
	size  uint32
	route uint32
	at    int64
	// written: it has its row, and is waited for nonetheless: the store is
	// volatile.
	written bool
	newItem
}

// afloat reports whether somebody waits for the end of p.
func (p *place) afloat() bool { return p != nil && p.of != nil }

// ram reports whether the message is in memory only.
func (p *place) ram() bool { return p.afloat() && !p.written }

// waits are the publications that wait, oldest first. It is guarded by Store.mu.
type waits struct {
	first, last *afloat
	bytes       int
	// dirty are queues with progress or counts that no transaction has yet.
	dirty map[*Queue]struct{}
	// booksAt and retainAt are when these are due; zero if there are none.
	booksAt, retainAt time.Time
	// retained are values of QoS 0 by their keys.
	retained      map[string]keptValue
	retainedBytes int
}

// needsNoDisk reports whether p is one that is safe when all who are to get it
// have acknowledged it.
func needsNoDisk(p *holdfast.Publication, appends []Append) bool {
	m := p.Msg
	if m.QoS > 1 || m.Retain && m.QoS > 0 || p.Inbound != nil || p.WillOf != "" {
		return false
	}
	for i := range p.Sessions {
		if p.Sessions[i].QoS > 1 {
			return false
		}
	}
	for i := range appends {
		// Nobody acknowledges QoS 0: that it was written to a link is less than
		// the publisher of a message with QoS 1 is promised.
		if appends[i].Msg.QoS > 1 || appends[i].Msg.QoS < m.QoS {
			return false
		}
	}
	return true
}

// mayWaitLocked reports whether p may wait in memory in spill mode: all who are
// to get it are likely to acknowledge it soon.
func (s *Store) mayWaitLocked(p *holdfast.Publication, appends []Append) bool {
	if s.o.Sync != Spill || !needsNoDisk(p, appends) {
		return false
	}
	for i := range p.Sessions {
		if q := s.sessions[p.Sessions[i].ClientID]; q == nil || !q.promptLocked() {
			return false
		}
	}
	for i := range appends {
		if !appends[i].Queue.promptLocked() {
			return false
		}
		for j := range appends[:i] { // where one may have to make room for the other
			if appends[j].Queue == appends[i].Queue {
				return false
			}
		}
	}
	return true
}

// promptLocked reports whether somebody takes from the queue, has everything
// that is on disk, and was quick to acknowledge it.
func (q *Queue) promptLocked() bool {
	if !q.reader && q.notify == nil || q.removed || q.busy != "" || q.lag > q.s.o.SpillAfter {
		return false
	}
	for _, l := range q.lanes {
		if len(l.redo) > 0 || l.settled.after(max(l.read, l.low)) < l.written || l.pausedLocked() {
			return false
		}
	}
	return true
}

// spillForLocked gives everything that waits to the open transaction if
// something is about to be written behind it in one of these queues.
func (s *Store) spillForLocked(p *holdfast.Publication, appends []Append) {
	if s.waits.first == nil {
		return
	}
	for i := range p.Sessions {
		if q := s.sessions[p.Sessions[i].ClientID]; q != nil && q.waitsLocked() {
			s.spillLocked()
			return
		}
	}
	for i := range appends {
		if appends[i].Queue.waitsLocked() {
			s.spillLocked()
			return
		}
	}
}

// waitsLocked reports whether something of the queue waits in memory.
func (q *Queue) waitsLocked() bool {
	for _, l := range q.lanes {
		if l.waiting > 0 {
			return true
		}
	}
	return false
}

// waitLocked puts it at the end of its lane, in memory.
func (l *lane) waitLocked(u *afloat, route uint32, it *newItem, at int64) {
	e := l.placeLocked(route, it, at)
	u.places = append(u.places, place{of: u, lane: l, pos: e.pos, size: e.size, route: route, at: at, newItem: *it})
	e.place = &u.places[len(u.places)-1]
	u.open++
	l.waiting++
	l.waitingBytes += int64(e.size)
	l.q.routes[route].waiting++
}

// leaveLocked takes p from what its lane has in memory only.
func (p *place) leaveLocked() {
	l := p.lane
	if p.written {
		delete(l.afloat, p.pos)
	} else {
		l.waiting--
		l.waitingBytes -= int64(p.size)
		l.q.routes[p.route].waiting--
	}
	p.of.open--
	p.of, p.newItem = nil, newItem{}
}

// landLocked is the end of p without the disk. The last of its publication has
// the publisher told; err is why that is not good news, or nil.
func (s *Store) landLocked(p *place, err error) {
	u := p.of
	p.leaveLocked()
	if u.err == nil {
		u.err = err
	}
	if u.open == 0 && !u.never {
		s.unlinkLocked(u)
		s.stats.Direct++
		s.tellLocked(u.done, u.err)
	}
}

// unlinkLocked takes u from those that wait.
func (s *Store) unlinkLocked(u *afloat) {
	w := &s.waits
	if u.prev != nil {
		u.prev.next = u.next
	} else {
		w.first = u.next
	}
	if u.next != nil {
		u.next.prev = u.prev
	} else {
		w.last = u.prev
	}
	u.prev, u.next = nil, nil
	w.bytes -= u.bytes
	s.pending -= u.bytes
}

// desertLocked ends what waits for q, which is removed: nobody is to get it
// there any more.
func (s *Store) desertLocked(q *Queue) {
	for u := s.waits.first; u != nil; {
		next := u.next // landLocked may take u out
		for i := range u.places {
			if p := &u.places[i]; p.afloat() && p.lane.q == q {
				s.landLocked(p, nil)
			}
		}
		u = next
	}
}

// queueUpLocked has the committer look after u, whose places are taken.
func (s *Store) queueUpLocked(u *afloat) {
	s.activity++
	if u.open == 0 && !u.never { // by the rules of full queues nothing of it is kept
		s.tellLocked(u.done, nil)
		return
	}
	w := &s.waits
	if u.prev = w.last; u.prev != nil {
		u.prev.next = u
	} else {
		w.first = u
		s.wakeCommitter() // which sets the clock
	}
	w.last = u
	w.bytes += u.bytes
	s.pending += u.bytes
	s.watchLocked()
	if w.bytes >= s.o.MaxPending/2 {
		s.spillLocked()
	}
}

// spillLocked gives everything that waits to the open transaction, oldest first.
func (s *Store) spillLocked() {
	w := &s.waits
	if w.first == nil || s.unsafeLocked() {
		return
	}
	now := time.Now()
	for u := w.first; u != nil; {
		late := now.Sub(u.since) >= s.o.SpillAfter
		s.roomLocked(u.bytes)
		for i := range u.places {
			p := &u.places[i]
			if !p.ram() {
				continue
			}
			if l := p.lane; late {
				l.q.lag = math.MaxInt64 // until it has acknowledged something in time
			}
			s.writePlaceLocked(p)
		}
		if u.done != nil {
			s.cur.dones = append(s.cur.dones, u.done)
		}
		s.cur.messages++
		s.cur.pending += u.bytes
		next := u.next
		u.prev, u.next = nil, nil
		u = next
	}
	w.first, w.last, w.bytes = nil, nil, 0
	s.stats.Spilled++
	s.urgentLocked()
}

func (s *Store) writePlaceLocked(p *place) {
	l, it := p.lane, p.newItem
	l.q.routes[p.route].unsaved = true
	s.touchLocked(l.q, messageBound(it.msg)+recordOverhead+128)
	// Before leaveLocked, which must find the lane as it was.
	l.writeLocked(p.pos, p.route, &it, p.at)
	p.leaveLocked()
}

// spillDue writes what has waited for SpillAfter, and all else with it.
func (s *Store) spillDue() {
	s.mu.Lock()
	s.spillLocked()
	s.mu.Unlock()
	s.work()
}

// dirtyLocked notes that the progress or the counts of q have changed in memory
// only; the counts are written within a minute.
func (s *Store) dirtyLocked(q *Queue) {
	if q.removed {
		return
	}
	w := &s.waits
	if w.dirty == nil {
		w.dirty = map[*Queue]struct{}{}
	}
	w.dirty[q] = struct{}{}
	if q.o.Ledger && w.booksAt.IsZero() {
		w.booksAt = time.Now().Add(booksEvery)
		s.wakeCommitter()
	}
}

// changedLocked has the progress and the counts of q written: with the next
// transaction, or, in spill mode, within a minute.
func (s *Store) changedLocked(q *Queue, n int) {
	if s.o.Sync == Spill {
		s.dirtyLocked(q)
		return
	}
	s.touchLocked(q, n)
	s.lazyLocked()
}

// keepBooksLocked gives what went without the disk to the open transaction.
func (s *Store) keepBooksLocked() {
	w := &s.waits
	for q := range w.dirty {
		s.touchLocked(q, 0)
	}
	w.dirty, w.booksAt = nil, time.Time{}
}

// keptValue is a retained value that waits, and the age of the store when it came.
type keptValue struct {
	msg *holdfast.Message
	at  int64
}

// retainLaterLocked keeps a retained value of QoS 0 for the next time that such
// are written: the one that is there then counts.
func (s *Store) retainLaterLocked(m *holdfast.Message) {
	w := &s.waits
	key := string(hashedKey(keyRetained, m.Topic))
	if w.retained == nil {
		w.retained = map[string]keptValue{}
		w.retainAt = time.Now().Add(retainEvery)
		s.wakeCommitter()
	}
	if old, ok := w.retained[key]; ok {
		w.retainedBytes -= old.msg.Size()
	}
	w.retained[key] = keptValue{m, s.age.now()}
	w.retainedBytes += m.Size()
	if w.retainedBytes >= retainMost {
		w.retainAt = time.Now()
		s.wakeCommitter()
	}
}

// forgetRetainedLocked takes the value of a topic from those that wait: a newer
// one is written.
func (s *Store) forgetRetainedLocked(topic string) {
	if len(s.waits.retained) == 0 {
		return
	}
	key := string(hashedKey(keyRetained, topic))
	if old, ok := s.waits.retained[key]; ok {
		s.waits.retainedBytes -= old.msg.Size()
		delete(s.waits.retained, key)
	}
}

// writeRetainedLocked gives the values to the open transaction. A crash before
// that leaves the older ones, which QoS 0 allows.
func (s *Store) writeRetainedLocked() {
	w := &s.waits
	for key, kept := range w.retained {
		s.addLocked(op{key: []byte(key), value: retainedValue(kept.msg, kept.at), own: true})
	}
	w.retained, w.retainedBytes, w.retainAt = nil, 0, time.Time{}
}

// waitsDueLocked is what has to be done for what waits, or when.
func (s *Store) waitsDueLocked(now time.Time, soonest func(time.Time)) (due func()) {
	w := &s.waits
	if w.first != nil && !s.o.Volatile {
		at := w.first.since.Add(s.o.SpillAfter)
		if !now.Before(at) {
			return s.spillDue
		}
		soonest(at)
	}
	for at, write := range map[*time.Time]func(){&w.booksAt: s.keepBooksLocked, &w.retainAt: s.writeRetainedLocked} {
		switch {
		case at.IsZero():
		case !now.Before(*at):
			return func() {
				s.mu.Lock()
				write()
				s.mu.Unlock()
				s.flush(false)
			}
		default:
			soonest(*at)
		}
	}
	return nil
}
