package storage

import (
	"context"
	"fmt"
	"sync"
	"time"

	"holdfast"
)

// Queue is a durable queue with three lanes. Order is kept within a lane; an
// item is handed out once until it is released, by this process.
type Queue struct {
	s       *Store
	id      uint32
	name    string // without its namespace
	session bool

	// load lets one goroutine at a time read batches from disk.
	load sync.Mutex
	// asideMu lets one goroutine at a time take messages out of quarantine.
	asideMu sync.Mutex

	// The rest is guarded by Store.mu.

	o       QueueOptions
	expires bool // some of its messages do
	lanes   [holdfast.LaneCount]*lane
	routes  []*route
	routeID map[string]uint32
	// released are the positions with a row of their own until their Ack.
	released map[uint64]struct{}
	// far is the session at the far broker, of a bridge's queue.
	far farSession
	// aside counts what is in quarantine.
	aside int
	// named: the row with the name is written, or about to be.
	named bool
	// removed: the queue is gone, and its id with it.
	removed bool
	// over: the bounds are exceeded, and what has to go is on disk.
	over bool
	// reader: somebody takes with Next. lag is how long the last item that was
	// acknowledged had been out. Both are for spill mode.
	reader bool
	lag    time.Duration
	// busy is the export or purge that goes on; "" for none.
	busy string
	// owed is how many bytes of it have to go for the bound over all queues.
	owed int64
	// touched is the transaction that will write the queue's progress.
	touched *txn
	notify  func()
	waiting chan struct{}
}

func (s *Store) newQueueLocked(id uint32, name string, session bool) *Queue {
	q := &Queue{s: s, id: id, name: name, session: session}
	q.routes, q.routeID = []*route{{}}, map[string]uint32{"": 0}
	for l := range q.lanes {
		q.lanes[l] = newLane(q, holdfast.Lane(l))
	}
	s.byID[id] = q
	if session {
		q.o = s.o.Session
		s.sessions[name] = q
	} else {
		s.named[name] = q
	}
	return q
}

// createLocked makes a queue that is not on disk yet; its name is written
// together with whatever is first written for it.
func (s *Store) createLocked(name string, session bool) *Queue {
	id := s.nextID
	s.nextID++
	return s.newQueueLocked(id, name, session)
}

// Queue returns the queue of that name, the same one for the same name, and
// creates it on first use. The options given last count.
func (s *Store) Queue(name string, o QueueOptions) (*Queue, error) {
	if len(name) > 1<<16 {
		return nil, fmt.Errorf("storage: the name of a queue is too long: %w", holdfast.ErrTooLarge)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.crashed {
		return nil, fmt.Errorf("storage: %w", holdfast.ErrClosed)
	}
	q := s.named[name]
	if q == nil {
		q = s.createLocked(name, false)
	}
	q.o, q.expires = o, o.leastAge() > 0
	s.expireAt = time.Time{}
	s.wakeCommitter()
	return q, nil
}

// SessionQueue returns the queue of a durable session, with Options.Session.
func (s *Store) SessionQueue(clientID string) (*Queue, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.crashed {
		return nil, fmt.Errorf("storage: %w", holdfast.ErrClosed)
	}
	return s.sessionLocked(clientID), nil
}

func (s *Store) sessionLocked(clientID string) *Queue {
	if q := s.sessions[clientID]; q != nil {
		return q
	}
	return s.createLocked(clientID, true)
}

// RemoveQueue removes a queue with everything in it. Its readers get
// holdfast.ErrClosed; the same name afterwards makes a new queue.
func (s *Store) RemoveQueue(name string) error {
	var wakes []func()
	s.mu.Lock()
	err := s.refusalLocked()
	if q := s.named[name]; q != nil && err == nil {
		wakes = s.removeLocked(q, wakes)
		s.urgentLocked()
	}
	s.mu.Unlock()
	for _, f := range wakes {
		f()
	}
	return err
}

// removeLocked forgets q. One small row says so on disk; a crash behind it
// leaves rows that no opening looks at, and that a later sweep removes.
func (s *Store) removeLocked(q *Queue, wakes []func()) []func() {
	s.addLocked(op{key: queueKey(keyRemoved, q.id), value: []byte{1}, own: true})
	q.removed = true
	s.desertLocked(q)
	delete(s.waits.dirty, q)
	wakes = q.wakeLocked(wakes)
	for _, l := range q.lanes {
		for len(l.tail) > 0 {
			l.popTailLocked()
		}
		l.loaded, l.redo, l.out = nil, nil, nil
		l.addBytes(-l.bytes)
		delete(s.sweepable, l)
	}
	delete(s.byID, q.id)
	if q.session {
		delete(s.sessions, q.name)
	} else {
		delete(s.named, q.name)
	}
	s.removedIDs = append(s.removedIDs, q.id)
	return wakes
}

// Name is the name that the queue was made with; a client identifier for a
// session's queue.
func (q *Queue) Name() string { return q.name }

// wakeLocked wakes the waiting, and appends the function to be called without
// the lock.
func (q *Queue) wakeLocked(fns []func()) []func() {
	if q.waiting != nil {
		close(q.waiting)
		q.waiting = nil
	}
	if q.notify != nil {
		fns = append(fns, q.notify)
	}
	return fns
}

// Notify sets the function that is called when TryNext may have something; nil
// for none. It is called on any goroutine and must not block. It is not called
// for what is there already: call TryNext once behind Notify.
func (q *Queue) Notify(ready func()) {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	q.notify = ready
	if ready == nil {
		q.leaveLocked()
	}
}

// leaveLocked notes that nobody takes from the queue now, as far as anyone
// knows: what waits for an acknowledgement goes to disk.
func (q *Queue) leaveLocked() {
	q.reader = false
	if q.waitsLocked() {
		q.s.spillLocked()
	}
}

// TryNext hands out the next item of the most urgent lane; ok is false if there
// is none now. It may read from disk; the function of Notify and every done
// must not call it.
func (q *Queue) TryNext() (it holdfast.Item, ok bool, err error) {
	return q.Poll(holdfast.AllLanes)
}

// Poll hands out the next item of the most urgent lane in lanes; ok is false if
// there is none now. It may read from disk.
func (q *Queue) Poll(lanes holdfast.Lanes) (it holdfast.Item, ok bool, err error) {
	it, ok, _, err = q.try(lanes, false)
	return it, ok, err
}

// Next waits for the next item of the most urgent lane in lanes. It returns
// ctx.Err() or holdfast.ErrClosed when it ends.
func (q *Queue) Next(ctx context.Context, lanes holdfast.Lanes) (holdfast.Item, error) {
	for {
		if err := ctx.Err(); err != nil {
			q.s.mu.Lock()
			q.leaveLocked()
			q.s.mu.Unlock()
			return holdfast.Item{}, err
		}
		it, ok, wait, err := q.try(lanes, true)
		if err != nil || ok {
			return it, err
		}
		select {
		case <-ctx.Done():
		case <-wait:
		}
	}
}

// try hands out an item; if there is none and wait is set, it returns a channel
// that is closed when it is worth another try.
func (q *Queue) try(lanes holdfast.Lanes, wait bool) (it holdfast.Item, ok bool, ready chan struct{}, err error) {
	s := q.s
	for {
		s.mu.Lock()
		if s.closed || s.crashed || q.removed {
			s.mu.Unlock()
			return it, false, nil, holdfast.ErrClosed
		}
		q.reader = q.reader || wait
		e, behind := q.handOutLocked(lanes)
		if e != nil {
			it = holdfast.Item{ID: holdfast.NewItemID(e.lane, e.pos), Route: q.routes[e.route].name, Msg: q.agedLocked(&e.entry), Again: e.again}
			s.mu.Unlock()
			return it, true, nil, nil
		}
		if behind == nil || s.failed != nil {
			if wait {
				if q.waiting == nil {
					q.waiting = make(chan struct{})
				}
				ready = q.waiting
			}
			s.mu.Unlock()
			return it, false, ready, nil
		}
		s.mu.Unlock()
		if err := q.readAhead(behind); err != nil {
			if err == errDown {
				continue // and wait for the reopening, which wakes everyone
			}
			return it, false, nil, err
		}
	}
}

type handedOut struct {
	entry
	lane holdfast.Lane
}

// handOutLocked takes the next visible item, or says which lane must be read
// from disk first.
func (q *Queue) handOutLocked(lanes holdfast.Lanes) (*handedOut, *lane) {
	if q.heldLocked() {
		return nil, nil
	}
	now := int64(0)
	if q.expires {
		now = q.s.age.now()
	}
	for _, id := range urgency {
		if !lanes.Has(id) {
			continue
		}
		l := q.lanes[id]
		if l.pausedLocked() {
			continue
		}
		if q.expires {
			if dropped, _ := q.expireHeadsLocked(l, now); dropped {
				q.s.lazyLocked()
			}
		}
		head, load := l.headLocked()
		for head != nil && l.visibleLocked(head) && q.lapsedLocked(l, head) {
			q.dropHeadLocked(l, reasonExpired)
			head, load = l.headLocked()
		}
		if load {
			return nil, l
		}
		if head == nil || !l.visibleLocked(head) {
			continue
		}
		e := l.takeLocked()
		if q.s.o.Sync == Spill {
			e.handed = time.Since(q.s.born)
		}
		if l.out == nil {
			l.out = map[uint64]entry{}
		}
		l.out[e.pos] = e
		return &handedOut{e, id}, nil
	}
	return nil, nil
}

// Len is the number of items that are not acknowledged.
func (q *Queue) Len() int {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	n, _ := q.sizeLocked()
	return int(n)
}

// Depth is Len of one lane.
func (q *Queue) Depth(l holdfast.Lane) int {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	if l >= holdfast.LaneCount {
		return 0
	}
	return int(q.lanes[l].depth())
}

// Bytes is the size of the items that are not acknowledged.
func (q *Queue) Bytes() int64 {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	_, n := q.sizeLocked()
	return n
}

func (q *Queue) sizeLocked() (messages, bytes int64) {
	for _, l := range q.lanes {
		messages += int64(l.depth())
		bytes += l.bytes
	}
	return messages, bytes
}

// OldestReceived is when the oldest item was received that is not acknowledged;
// zero if there is none. It may read from disk.
func (q *Queue) OldestReceived() time.Time {
	for {
		var oldest time.Time
		var behind *lane
		q.s.mu.Lock()
		for _, l := range q.lanes {
			t, ok, load := l.oldestLocked()
			if load {
				behind = l
			}
			if ok && (oldest.IsZero() || t.Before(oldest)) {
				oldest = t
			}
		}
		stop := q.removed || q.s.closed || q.s.crashed || q.s.failed != nil
		q.s.mu.Unlock()
		if behind == nil || stop || q.readAhead(behind) != nil {
			return oldest
		}
	}
}
