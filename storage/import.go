package storage

import (
	"errors"
	"fmt"

	"holdfast"
)

// ImportBytes is about how much is given to one Import.
const ImportBytes = 256 << 10

// Import puts messages at the ends of their lanes, counted as imported, and
// waits until they are on disk. It drops nothing to make room, whatever the rule
// of the queue: holdfast.ErrFull says that not all of them fit, and none was
// taken. The Queue of each Append is not looked at. A crash before it returns
// leaves any part of them; only as many as fit one transaction (ImportBytes do)
// are there whole or not at all.
func (q *Queue) Import(list []Append) error {
	s := q.s
	var total int
	var size int64
	for i := range list {
		n := messageBound(list[i].Msg) + recordOverhead
		if n > MaxMessage {
			return tooLarge(n)
		}
		if list[i].Lane >= holdfast.LaneCount {
			return errors.New("storage: there is no such lane")
		}
		total += n
		size += int64(list[i].Msg.Size())
	}
	done := make(chan error, 1)
	s.mu.Lock()
	err := s.refusalLocked()
	switch {
	case err != nil:
	case q.removed:
		err = fmt.Errorf("storage: queue %q was removed: %w", q.name, holdfast.ErrClosed)
	case q.tooManyRoutesLocked(list):
		err = fmt.Errorf("storage: queue %q would have more than %d routes", q.name, maxRoutes)
	case !q.fitsLocked(int64(len(list)), size):
		err = q.fullError()
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	if q.waitsLocked() {
		s.spillLocked()
	}
	s.roomLocked(total)
	back := new(comeback)
	for i := range list {
		a := &list[i]
		q.comeBackLocked(a.Lane, a.Route, a.Msg, back)
	}
	s.waitLocked(func(err error) { done <- err }, total)
	s.mu.Unlock()
	return <-done
}

// tooManyRoutesLocked: list has routes that q has not had before, and there is
// no room for their books.
func (q *Queue) tooManyRoutesLocked(list []Append) bool {
	names := map[string]struct{}{}
	for i := range list {
		if _, ok := q.routeID[list[i].Route]; !ok {
			names[list[i].Route] = struct{}{}
		}
	}
	return len(names) > 0 && len(q.routes)+len(names) > maxRoutes
}

// comeBackLocked appends m to a lane, and counts it by where it comes from. Both
// are in the transaction that is open when it returns.
func (q *Queue) comeBackLocked(lane holdfast.Lane, routeName string, m *holdfast.Message, back *comeback) {
	s, l := q.s, q.lanes[lane]
	r := q.routeLocked(routeName)
	s.touchLocked(q, messageBound(m)+recordOverhead+256)
	l.appendLocked(r.id, &newItem{msg: m, qos: m.QoS, retain: m.Retain})
	e := &l.tail[len(l.tail)-1]
	e.back = back
	r.count(*e)
	s.trimLocked(l)
}

// Fits reports whether a message is small enough to be stored.
func Fits(m *holdfast.Message) bool { return messageBound(m)+recordOverhead <= MaxMessage }

// maxRoutes bounds the routes of a queue that an import may make: the books of
// all of them are looked at with every transaction.
const maxRoutes = 250
