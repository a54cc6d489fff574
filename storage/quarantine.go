package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"holdfast"
)

// Quarantined is one message that was taken out of a queue and kept aside.
type Quarantined struct {
	ID     holdfast.ItemID
	Route  string
	Reason string
	Since  time.Time // when it was set aside; zero for rows of version 1
	Msg    *holdfast.Message
}

// asideVersion is 2 since there is the time; rows of version 1 have none.
const asideVersion = 2

func encodeAside(m *holdfast.Message, route, reason string, at time.Time) []byte {
	b := make([]byte, 0, messageBound(m)+len(route)+len(reason)+32)
	b = append(b, asideVersion)
	b = appendString(b, route)
	b = appendString(b, reason)
	b = binary.AppendVarint(b, at.UnixNano())
	return seal(appendMessage(b, m, m.QoS, m.Retain))
}

// decodeAside returns what the row says, with the memory of v.
func decodeAside(k, v []byte) (a Quarantined, err error) {
	if len(k) != 14 || k[5] >= holdfast.LaneCount {
		return a, corrupt("key of a message in quarantine")
	}
	a.ID = holdfast.NewItemID(holdfast.Lane(k[5]), binary.BigEndian.Uint64(k[6:]))
	version := byte(asideVersion)
	if len(v) > 0 && v[0] == 1 {
		version = 1
	}
	d, err := unseal(v, version, "message in quarantine")
	if err != nil {
		return a, err
	}
	a.Route, a.Reason = d.string(), d.string()
	if version > 1 {
		a.Since = time.Unix(0, d.varint())
	}
	a.Msg = d.message("")
	if d.bad || len(d.b) != 0 {
		return a, corrupt("message in quarantine")
	}
	return a, nil
}

// Quarantine takes the item out of the queue and keeps it aside, counted under
// reason. Beyond 256 messages of one queue the later ones are counted only.
func (q *Queue) Quarantine(id holdfast.ItemID, reason string) {
	q.s.mu.Lock()
	e, name := q.peekLocked(id)
	q.s.mu.Unlock()
	row := op{key: quarantineKey(q.id, id.Lane(), id.Position()), own: true}
	if e.msg != nil {
		row.value = encodeAside(e.msg, name, reason, time.Now())
	}
	q.settle(id, row.size(), func(e entry, r *route) {
		r.quarantine(reason)
		if q.aside < maxQuarantine && row.value != nil {
			q.aside++
			q.s.putLocked(row)
		}
	})
}

// peekLocked finds an item that was handed out or released, and its route.
func (q *Queue) peekLocked(id holdfast.ItemID) (e entry, route string) {
	if q.removed || id.Lane() >= holdfast.LaneCount {
		return entry{}, ""
	}
	l := q.lanes[id.Lane()]
	e, ok := l.out[id.Position()]
	for i := range l.redo {
		if !ok && l.redo[i].pos == id.Position() {
			e, ok = l.redo[i], true
		}
	}
	if !ok {
		return entry{}, ""
	}
	return e, q.routes[e.route].name
}

// Quarantined calls yield for what the queue keeps aside on disk, by lane and
// position, until it returns false. The message is valid during the call only.
// yield must be quick, and must not call the store.
func (q *Queue) Quarantined(yield func(Quarantined) bool) error {
	prefix := queueKey(keyQuarantine, q.id)
	return q.s.read(func(eng engine) error {
		return eng.scan(prefix, prefix, false, func(k, v []byte) bool {
			a, err := decodeAside(k, v)
			if err != nil {
				q.s.unreadable("message in quarantine", err)
				return true
			}
			return yield(a)
		})
	})
}

// ErrNotThere: what was named is not in quarantine.
var ErrNotThere = errors.New("not in quarantine")

const reasonQuarantined = "quarantined"

// Retry puts messages of the quarantine at the ends of their lanes, those of ids
// or all if there are none, and waits until that is on disk. It returns how many
// it were. One that does not fit the bounds of the queue ends it with
// holdfast.ErrFull. The row aside goes in the transaction that brings the
// message back: a crash leaves it in one of the two places.
func (q *Queue) Retry(ids ...holdfast.ItemID) (n int, err error) {
	return q.unAside(ids, func(a Quarantined, key, value []byte) error {
		if !q.fitsLocked(1, int64(a.Msg.Size())) {
			return q.fullError()
		}
		q.comeBackLocked(a.ID.Lane(), a.Route, a.Msg, &comeback{reason: a.Reason, key: key, value: value})
		// Whether a failed commit has removed it is unknown: uncount writes it again.
		q.s.putLocked(op{key: key})
		return nil
	})
}

// Discard drops messages of the quarantine as Retry puts them back, counted as
// dropped(quarantined).
func (q *Queue) Discard(ids ...holdfast.ItemID) (n int, err error) {
	return q.unAside(ids, func(a Quarantined, key, _ []byte) error {
		r := q.routeLocked(a.Route)
		q.s.touchLocked(q, 256)
		r.unquarantine(a.Reason)
		r.drop(reasonQuarantined)
		r.unsaved = true
		q.s.putLocked(op{key: key, own: true})
		return nil
	})
}

// unAside calls each for rows of the quarantine, with the lock held, and waits
// for the disk now and then, so that little is in memory at a time.
func (q *Queue) unAside(ids []holdfast.ItemID, each func(a Quarantined, key, value []byte) error) (n int, err error) {
	s := q.s
	q.asideMu.Lock()
	defer q.asideMu.Unlock()
	var there []holdfast.ItemID
	if err := q.Quarantined(func(a Quarantined) bool { there = append(there, a.ID); return true }); err != nil {
		return 0, err
	}
	for _, id := range ids {
		if !slices.Contains(there, id) {
			return 0, fmt.Errorf("storage: queue %q has no message %d of lane %v: %w", q.name, id.Position(), id.Lane(), ErrNotThere)
		}
	}
	if len(ids) == 0 {
		ids = there
	}
	for len(ids) > 0 && err == nil {
		batch, size := 0, 0
		for err == nil && batch < len(ids) && size < ImportBytes {
			var took int
			if took, err = q.unAsideOne(ids[batch], each); err == nil {
				size += took
				batch++
			}
		}
		ids = ids[batch:]
		if batch == 0 {
			break
		}
		done := make(chan error, 1)
		s.mu.Lock()
		if refusal := s.refusalLocked(); refusal != nil {
			done <- refusal
		} else {
			s.waitLocked(func(err error) { done <- err }, size)
		}
		s.mu.Unlock()
		if stored := <-done; stored != nil {
			return n, stored
		}
		n += batch
	}
	return n, err
}

func (q *Queue) unAsideOne(id holdfast.ItemID, each func(a Quarantined, key, value []byte) error) (size int, err error) {
	s := q.s
	key := quarantineKey(q.id, id.Lane(), id.Position())
	var value []byte
	if err := s.read(func(eng engine) (err error) { value, err = eng.get(key); return err }); err != nil {
		return 0, err
	}
	a, err := decodeAside(key, value)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refusalLocked(); err != nil {
		return 0, err
	}
	if q.removed {
		return 0, fmt.Errorf("storage: queue %q: %w", q.name, holdfast.ErrClosed)
	}
	if q.waitsLocked() {
		s.spillLocked()
	}
	if err := each(a, key, value); err != nil {
		return 0, err
	}
	q.aside--
	return len(value), nil
}

// putLocked adds a row to the open transaction whatever its size: the caller has
// made room for it, and it must not go into another one.
func (s *Store) putLocked(o op) {
	s.cur.ops = append(s.cur.ops, o)
	s.cur.size += o.size()
}
