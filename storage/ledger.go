package storage

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"holdfast"
)

// route is the ledger of one route of a queue, guarded by Store.mu. Its number
// stands in the batches, so that its row is written no later than they are.
type route struct {
	holdfast.Counts
	id      uint32
	name    string
	unsaved bool
	stored  bool
	// waiting of the accepted are in memory only (spill.go).
	waiting uint64
}

func (r *route) drop(reason string) {
	if r.Dropped == nil {
		r.Dropped = map[string]uint64{}
	}
	r.Dropped[reason]++
}

// queued is the number of messages of the route that are in the queue.
func (r *route) queued() uint64 { return r.Taken() - min(r.Settled(), r.Taken()) }

// comeback says where a message came from that was not accepted from a
// publisher, so that the books can be set right if the commit fails.
type comeback struct {
	reason string // of the quarantine that it was in; "" for an import
	// key and value are its row there.
	key, value []byte
}

// count counts e as a message of the route that came into the queue.
func (r *route) count(e entry) {
	switch {
	case e.back == nil:
		r.Accepted++
	case e.back.key == nil:
		r.Imported++
	default:
		r.unquarantine(e.back.reason)
	}
	r.unsaved = true
}

// uncount undoes count, because the commit has failed. A message that was in
// quarantine is there again: its row is written anew, since nobody knows
// whether the failed commit has removed it.
func (r *route) uncount(q *Queue, e entry) {
	switch {
	case e.back == nil:
		r.Accepted--
	case e.back.key == nil:
		r.Imported--
	default:
		r.quarantine(e.back.reason)
		q.aside++
		q.s.addLocked(op{key: e.back.key, value: e.back.value, own: true})
	}
	r.unsaved = true
}

func (r *route) quarantine(reason string) {
	if r.Quarantined == nil {
		r.Quarantined = map[string]uint64{}
	}
	r.Quarantined[reason]++
}

// unquarantine takes one from the count of a reason. Where the ledger was
// damaged the count may be too small: the message is then taken for an import.
func (r *route) unquarantine(reason string) {
	switch r.Quarantined[reason] {
	case 0:
		r.Imported++
	case 1:
		delete(r.Quarantined, reason)
	default:
		r.Quarantined[reason]--
	}
}

func (q *Queue) routeLocked(name string) *route {
	id, ok := q.routeID[name]
	if !ok {
		id = uint32(len(q.routes))
		q.routes = append(q.routes, &route{id: id, name: name, unsaved: true})
		q.routeID[name] = id
	}
	return q.routes[id]
}

// routeVersion is 2 since there are imported and exported; rows of version 1 end
// before them.
const routeVersion = 2

func (r *route) row(counts bool) []byte {
	b := []byte{routeVersion}
	b = appendString(b, r.name)
	var c holdfast.Counts
	if counts {
		c = r.Counts
		c.Accepted -= r.waiting
	}
	for _, n := range []uint64{c.Accepted, c.Delivered, c.Unconfirmed, c.Lost} {
		b = binary.AppendUvarint(b, n)
	}
	for _, m := range []map[string]uint64{c.Dropped, c.Quarantined} {
		b = binary.AppendUvarint(b, uint64(len(m)))
		for _, reason := range slices.Sorted(maps.Keys(m)) {
			b = appendString(b, reason)
			b = binary.AppendUvarint(b, m[reason])
		}
	}
	b = binary.AppendUvarint(b, c.Imported)
	b = binary.AppendUvarint(b, c.Exported)
	return seal(b)
}

func decodeRoute(v []byte) (*route, error) {
	version := byte(routeVersion)
	if len(v) > 0 && v[0] == 1 {
		version = 1
	}
	d, err := unseal(v, version, "ledger")
	if err != nil {
		return nil, err
	}
	r := &route{name: d.string(), stored: true}
	r.Accepted, r.Delivered, r.Unconfirmed, r.Lost = d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint()
	for _, m := range []*map[string]uint64{&r.Dropped, &r.Quarantined} {
		for range d.uvarint() {
			if d.bad {
				break
			}
			if *m == nil {
				*m = map[string]uint64{}
			}
			reason := d.string()
			(*m)[reason] = d.uvarint()
		}
	}
	if version > 1 {
		r.Imported, r.Exported = d.uvarint(), d.uvarint()
	}
	if d.bad || len(d.b) != 0 {
		return nil, corrupt("ledger")
	}
	return r, nil
}

// reserveLocked is about the size of the rows that sealLocked adds.
func (q *Queue) reserveLocked() int {
	n := 128
	if !q.named {
		n += len(q.name)
	}
	for _, l := range q.lanes {
		if l.next > 1 {
			n += 96 + 6*len(l.settled.r)
		}
	}
	for _, r := range q.routes {
		if !q.o.Ledger && (r.stored || r.id == 0) {
			continue
		}
		n += 128 + len(r.name) + 48*(len(r.Dropped)+len(r.Quarantined))
	}
	return n
}

// sealLocked adds the rows of the queue's progress to t. They are true of t
// and of everything before it: positions, marks and counts are in one
// transaction, and a crash leaves all of them old or all of them new.
func (q *Queue) sealLocked(t *txn) {
	q.touched = nil
	if q.removed {
		return
	}
	delete(q.s.waits.dirty, q)
	add := func(key, value []byte) { t.ops = append(t.ops, op{key: key, value: value}) }
	if !q.named {
		q.named = true
		add(metaKey(q.id, metaName), q.nameRow())
		add([]byte{keyCounter}, seal(binary.AppendUvarint([]byte{1}, uint64(q.s.nextID))))
	}
	for _, l := range q.lanes {
		for i := len(l.chunks) - 1; i >= 0 && !l.chunks[i].saved; i-- {
			c := &l.chunks[i]
			c.saved = true
			add(chunkKey(q.id, l.id, c.id), seal(binary.AppendUvarint([]byte{1}, c.first)))
		}
		if l.unsaved {
			l.unsaved = false
			add(laneKey(q.id, l.id), l.stateLocked(q.s.seq))
			t.lows = append(t.lows, laneMark{l, l.low})
		}
	}
	for _, r := range q.routes {
		if r.unsaved && (q.o.Ledger || !r.stored && r.id != 0) {
			r.unsaved, r.stored = false, true
			add(routeKey(q.id, r.id), r.row(q.o.Ledger))
		}
	}
}

// unsavedLocked: nothing of the queue is known to be on disk.
func (q *Queue) unsavedLocked() {
	q.named = false
	for _, l := range q.lanes {
		l.unsaved = true
		for i := range l.chunks {
			l.chunks[i].saved = false
		}
	}
	for _, r := range q.routes {
		r.unsaved, r.stored = true, false
	}
}

func (q *Queue) nameRow() []byte {
	kind := byte(0)
	if q.session {
		kind = 1
	}
	return seal(appendString([]byte{1, kind}, q.name))
}

// Ledger returns the counts by route. Without QueueOptions.Ledger they are those
// since the store was opened, of what was appended since.
func (q *Queue) Ledger() map[string]holdfast.Counts {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	m := map[string]holdfast.Counts{}
	for _, r := range q.routes {
		c := r.Counts
		if c.Taken() == 0 && c.Settled() == 0 {
			continue
		}
		c.Dropped, c.Quarantined = maps.Clone(c.Dropped), maps.Clone(c.Quarantined)
		c.Queued = r.queued()
		m[r.name] = c
	}
	return m
}

// CountDropped counts a message of route that was accepted, and dropped under
// reason without ever being in the queue: sampled, looped.
func (q *Queue) CountDropped(route, reason string) {
	s := q.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.crashed || q.removed {
		return
	}
	r := q.routeLocked(route)
	s.changedLocked(q, 64)
	r.Accepted++
	r.drop(reason)
	r.unsaved = true
}

// loseLocked settles what cannot be read from disk. routes says whose it was if
// the trailer of the batch could be read; else it is taken from the routes that
// have messages queued, the largest first.
func (l *lane) loseLocked(from, to uint64, routes []routeCount) uint64 {
	n := l.forgetLocked(from, to)
	l.q.s.stats.Lost += n
	l.q.spreadLocked(n, routes, func(r *route, n uint64) { r.Lost += n })
	return n
}

// forgetLocked settles positions that cannot be read, and returns how many.
func (l *lane) forgetLocked(from, to uint64) uint64 {
	q := l.q
	if q.removed {
		return 0
	}
	q.s.touchLocked(q, 64)
	from = max(from, l.low)
	var n uint64
	for pos := l.settled.after(from); pos < to; pos = l.settled.after(max(pos, l.low)) {
		end := to
		for _, r := range l.settled.r {
			if r.from > pos {
				end = min(end, r.from)
				break
			}
		}
		n += end - pos
		l.settledCount += l.settled.add(pos, end)
		l.ahead = max(l.ahead, end)
		pos = end
	}
	mark := l.settled.takeBelow(l.low)
	l.settledCount -= mark - l.low
	l.low = mark
	if n == 0 {
		return 0
	}
	if depth := l.depth(); depth == 0 {
		l.addBytes(-l.bytes)
	} else {
		// The sizes are unknown: the average is near enough for a bound.
		l.addBytes(-l.bytes / int64(depth+n) * int64(n))
	}
	l.unsaved = true
	q.s.sweepable[l] = struct{}{}
	return n
}

// spreadLocked counts n settled messages on the routes that they belonged to:
// on those in routes first, and what these cannot have had on the routes that
// have messages queued, the largest first.
func (q *Queue) spreadLocked(n uint64, routes []routeCount, book func(r *route, n uint64)) {
	left := n
	take := func(r *route, most uint64) {
		most = min(most, left, r.queued())
		if most == 0 {
			return
		}
		book(r, most)
		r.unsaved = true
		left -= most
	}
	for _, c := range routes {
		if int(c.route) < len(q.routes) {
			take(q.routes[c.route], c.n)
		}
	}
	byQueued := slices.Clone(q.routes)
	slices.SortFunc(byQueued, func(a, b *route) int {
		return cmp.Compare(b.queued(), a.queued())
	})
	for _, r := range byQueued {
		take(r, left)
	}
}

// bookedLocked is called when the end of a message was counted on r. If r has come
// to more ends than it had messages, one of its losses was another route's: nobody
// could know that when it was counted.
func (q *Queue) bookedLocked(r *route) {
	r.unsaved = true
	if r.Lost == 0 || r.Settled() <= r.Taken() {
		return
	}
	for _, other := range q.routes {
		if other.queued() > 0 {
			r.Lost--
			other.Lost++
			other.unsaved = true
			return
		}
	}
}
