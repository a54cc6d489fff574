package bridge

import (
	"hash/maphash"
	"slices"

	"holdfast"
)

// Route.OnChange: a message whose payload and RETAIN flag are those of the last
// one sent on its topic is dropped(unchanged), whatever order they go in. While
// that one is not acknowledged, the newest equal message waits for its fate: it
// is dropped when the far broker has the other one, and goes if that was refused.
// So nothing is left out for the sake of a message that never arrives.
//
// What was sent is not remembered over a restart or a lost connection. The last
// message of maxThin topics is known; those of further topics all go.

type topicOfRoute struct{ route, topic string }

// changes is used with mu of the thinner.
type changes struct {
	seed   maphash.Seed
	topics map[topicOfRoute]*change
}

// change is what is known of one topic of one route.
type change struct {
	sum     uint64 // of what was sent last
	known   bool   // it is the last at the far broker, or will be
	sent    uint64 // messages of the topic
	arrived uint64 // the last of them that was acknowledged
	flying  []flyingChange
}

// flyingChange was sent and is not acknowledged.
type flyingChange struct {
	id   holdfast.ItemID
	n    uint64          // as change.sent
	same holdfast.ItemID // an equal one that waits for its fate; 0: none
}

// unchangedLocked reports whether it does not go now, and takes care of it then.
// back says that it was let through before.
func (t *thinner) unchangedLocked(it holdfast.Item, back bool) bool {
	key := topicOfRoute{it.Route, it.Msg.Topic}
	e := t.changes.topics[key]
	if e == nil {
		if len(t.changes.topics) >= maxThin {
			t.full()
			return false
		}
		e = &change{}
		t.changes.topics[key] = e
	}
	var h maphash.Hash
	h.SetSeed(t.changes.seed)
	h.Write(it.Msg.Payload)
	if it.Msg.Retain {
		h.WriteByte(1)
	}
	sum := h.Sum64()
	if e.known && e.sum == sum && !back {
		n := len(e.flying)
		if n == 0 {
			t.drop(it.ID, reasonUnchanged)
			return true
		}
		if last := &e.flying[n-1]; last.n == e.sent {
			if last.same != 0 {
				t.drop(last.same, reasonUnchanged)
			}
			last.same = it.ID
			return true
		}
	}
	e.sent++
	e.sum, e.known = sum, true
	e.flying = append(e.flying, flyingChange{id: it.ID, n: e.sent})
	return false
}

// flownLocked is the end of what was sent; arrived says that the far broker has
// it.
func (t *thinner) flownLocked(it holdfast.Item, arrived bool) {
	e := t.changes.topics[topicOfRoute{it.Route, it.Msg.Topic}]
	if e == nil {
		return
	}
	i := slices.IndexFunc(e.flying, func(f flyingChange) bool { return f.id == it.ID })
	if i < 0 {
		return
	}
	f := e.flying[i]
	if e.flying = slices.Delete(e.flying, i, i+1); len(e.flying) == 0 {
		e.flying = nil
	}
	last := f.n == e.sent
	switch {
	case !arrived && last:
		e.known = false
	case arrived && f.n < e.arrived && e.arrived == e.sent:
		e.known = false // it went beside and came behind a later one
	}
	if arrived {
		e.arrived = max(e.arrived, f.n)
	}
	switch {
	case f.same == 0:
	case arrived || !last:
		t.drop(f.same, reasonUnchanged) // or something newer has gone
	default:
		t.release(f.same)
	}
}

// groundLocked forgets what is on its way, and returns what waits for it.
func (c *changes) groundLocked() (ids []holdfast.ItemID) {
	for _, e := range c.topics {
		if e.flying == nil {
			continue
		}
		for _, f := range e.flying {
			if f.same != 0 {
				ids = append(ids, f.same)
			}
		}
		e.flying, e.known = nil, false
	}
	return ids
}
