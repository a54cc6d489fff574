package edge

import (
	"slices"
	"sync"
	"time"

	"holdfast"
	"holdfast/edge/packet"
	"holdfast/edge/topic"
)

// retained has the last retained message of each topic, as the store has it.
type retained struct {
	mu    sync.RWMutex
	names topic.Names[*holdfast.Message] // guarded by mu
	bytes int                            // of all of them; guarded by mu
	sys   int                            // how many are of the $SYS tree; guarded by mu
	// expiring are the topics whose message has a Message Expiry Interval.
	// Guarded by mu.
	expiring map[string]struct{}
}

func (r *retained) restore(m *holdfast.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setLocked(m)
}

// fitsLocked reports whether m may be retained under the bounds.
func (r *retained) fitsLocked(m *holdfast.Message, most, mostBytes int) bool {
	if len(m.Payload) == 0 {
		return true
	}
	old, replaces := r.names.Get(m.Topic)
	if replaces {
		return r.bytes-old.Size()+m.Size() <= max(mostBytes, r.bytes)
	}
	return r.names.Len()-r.sys < most && r.bytes+m.Size() <= mostBytes
}

// setLocked keeps m; one with an empty payload clears its topic [MQTT-3.3.1-10].
func (r *retained) setLocked(m *holdfast.Message) {
	var old *holdfast.Message
	if len(m.Payload) == 0 {
		old, _ = r.names.Delete(m.Topic)
	} else {
		old, _ = r.names.Set(m.Topic, m)
		r.bytes += m.Size()
	}
	delete(r.expiring, m.Topic)
	if len(m.Payload) > 0 && m.Properties != nil && m.Properties.HasExpiry {
		if r.expiring == nil {
			r.expiring = make(map[string]struct{})
		}
		r.expiring[m.Topic] = struct{}{}
	}
	if old != nil {
		r.bytes -= old.Size()
	}
}

// forgetLocked removes what is retained of a topic, from the store too: it is not the
// last word any more, and what is cannot be kept [MQTT-3.3.1-5].
func (r *retained) forgetLocked(name string, store Store) {
	old, ok := r.names.Delete(name)
	if !ok {
		return
	}
	r.bytes -= old.Size()
	delete(r.expiring, name)
	store.ForgetRetained(name)
}

// dropExpired removes what has expired, from the store too. The lock is held
// meanwhile, so that a newer message of the same topic comes behind.
func (r *retained) dropExpired(now time.Time, store Store) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var gone []string
	for name := range r.expiring {
		m, _ := r.names.Get(name)
		if _, ok := m.After(now.Sub(m.Received)); !ok {
			r.names.Delete(name)
			r.bytes -= m.Size()
			gone = append(gone, name)
			delete(r.expiring, name)
		}
	}
	if len(gone) > 0 {
		store.ForgetRetained(gone...)
	}
}

// wanted is a topic whose retained message a subscription asks for, with which
// QoS at most, and with which subscription identifiers.
type wanted struct {
	topic string
	qos   byte
	ids   []uint32
}

// also merges what another subscription asks for.
func (w *wanted) also(qos byte, ids ...uint32) {
	w.qos = max(w.qos, qos)
	for _, id := range ids {
		if id != 0 && !slices.Contains(w.ids, id) {
			w.ids = append(w.ids, id)
		}
	}
}

// matching returns the topics with a retained message for any of the filters,
// each once with the highest QoS of them: overlapping filters in one SUBSCRIBE
// do not multiply what is sent.
func (r *retained) matching(filters map[string]holdfast.Subscription) []wanted {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var found []wanted
	at := make(map[string]int)
	for filter, sub := range filters {
		r.names.Match(filter, func(name string, _ *holdfast.Message) bool {
			i, ok := at[name]
			if !ok {
				i = len(found)
				if len(filters) > 1 {
					at[name] = i
				}
				found = append(found, wanted{topic: name})
			}
			found[i].also(sub.QoS, sub.Identifier)
			return true
		})
	}
	return found
}

// appendTo calls queue with the next of the retained messages found that are to be
// queued for a durable session, about most bytes of them, and returns what is left
// of found. Those that go out with QoS 0 are put into rest. Nothing is retained
// meanwhile: a newer message comes behind these in the queue, where an older one
// would look like the last word. One that came since found was made is sent twice.
func (r *retained) appendTo(found []wanted, most int, rest *[]wanted, queue func(kept []*holdfast.Message, more bool)) []wanted {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var kept []*holdfast.Message
	for size := 0; len(found) > 0 && size < most; found = found[1:] {
		w := found[0]
		m, ok := r.names.Get(w.topic)
		if !ok {
			continue
		}
		if m, ok = left(m); !ok {
			continue
		}
		if qos := min(m.QoS, w.qos); qos > 0 {
			m = withDelivery(m, qos, true).WithSubscriptionIDs(w.ids)
			kept = append(kept, m)
			size += m.Size()
		} else {
			*rest = append(*rest, wanted{topic: w.topic, ids: w.ids})
		}
	}
	queue(kept, len(found) > 0)
	return found
}

// len is how many messages are retained, without the $SYS tree.
func (r *retained) len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.names.Len() - r.sys
}

// waitingRetained are topics whose retained message is still to be sent to a
// client, each once however often it subscribes. The reader adds and the writer
// takes; the committer has nothing to do with its lock.
type waitingRetained struct {
	mu     sync.Mutex
	topics []string
	asked  map[string]*wanted
	moved  time.Time // when one was taken, or the first came
}

// add returns how many topics were added.
func (w *waitingRetained) add(found []wanted) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.topics) == 0 {
		w.moved = time.Now()
	}
	before := len(w.topics)
	defer func() { n = len(w.topics) - before }()
	if w.asked == nil {
		w.asked = make(map[string]*wanted, len(found))
	}
	for i := range found {
		x := &found[i]
		if before := w.asked[x.topic]; before != nil {
			before.also(x.qos, x.ids...)
			continue
		}
		w.topics = append(w.topics, x.topic)
		w.asked[x.topic] = x
	}
	return n
}

// drop empties w, and returns how many there were.
func (w *waitingRetained) drop() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n = len(w.topics)
	w.topics, w.asked = nil, nil
	return n
}

// standsSince is when the last one was taken; ok is false if none waits.
func (w *waitingRetained) standsSince() (t time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.moved, len(w.topics) > 0
}

// take removes the first; ok is false if there is none, or if it may have a QoS
// above 0 and mayAck is false.
func (w *waitingRetained) take(mayAck func() bool) (x wanted, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.topics) == 0 {
		w.topics, w.asked = nil, nil
		return x, false
	}
	x = *w.asked[w.topics[0]]
	if x.qos > 0 && !mayAck() {
		return x, false
	}
	w.topics = w.topics[1:]
	delete(w.asked, x.topic)
	w.moved = time.Now()
	return x, true
}

// sendRetained notes topics whose retained message is to be sent. The writer
// takes them at the client's pace: any number of them may match.
func (c *conn) sendRetained(found []wanted) {
	if len(found) > 0 {
		c.srv.retainedWaiting.Add(int64(c.retained.add(found)))
		c.srv.boundRetainedWaiting(c)
		c.signal()
	}
}

// boundRetainedWaiting ends clients that do not take what they have asked for,
// until the bound is kept; the one that has just asked comes last.
func (s *Server) boundRetainedWaiting(asking *conn) {
	for s.retainedWaiting.Load() > int64(s.limits.MaxRetainedWaiting) {
		s.mu.Lock()
		var worst *conn
		var since time.Time
		for c := range s.conns {
			if t, ok := c.retained.standsSince(); ok && c != asking && (worst == nil || t.Before(since)) {
				worst, since = c, t
			}
		}
		s.mu.Unlock()
		if worst == nil {
			return
		}
		s.retainedWaiting.Add(-int64(worst.retained.drop()))
		if worst.close(errBehind) {
			s.stats.droppedSlow.Add(1)
		}
	}
}

// fillRetained appends retained messages with QoS 0 to buf until it has about
// full bytes, and gives those of QoS 1 and 2 to the outbox of a clean session, a
// window of them at most. It sends what is retained now: a newer message has
// gone to the subscriber by itself, and the older one after it would look like
// the last word.
func (c *conn) fillRetained(buf []byte, full int) []byte {
	room := func() bool { return c.sess.outbox.Len() < c.window }
	for len(buf) < full {
		w, ok := c.retained.take(room)
		if !ok {
			return buf
		}
		c.srv.retainedWaiting.Add(-1)
		buf = c.appendRetained(buf, w)
	}
	return buf
}

func (c *conn) appendRetained(buf []byte, w wanted) []byte {
	if c.denied(w.topic) {
		return buf
	}
	r := &c.srv.retained
	r.mu.RLock()
	defer r.mu.RUnlock()
	m, ok := r.names.Get(w.topic)
	if !ok {
		return buf
	}
	if qos := min(m.QoS, w.qos); qos > 0 {
		c.push(withDelivery(m, qos, true).WithSubscriptionIDs(w.ids), true, nil)
		return buf
	}
	if m, ok = left(m); !ok {
		return buf
	}
	p := packet.Publish{Retain: true, Topic: []byte(w.topic), Payload: m.Payload}
	if m.Properties != nil || len(w.ids) > 0 {
		var properties packet.Properties
		properties.FromMessage(m.Properties)
		properties.SubscriptionIdentifiers = w.ids
		p.Properties = &properties
	}
	out, ok, err := c.appendPublish(buf, &p, w.topic, fromSession)
	if err != nil || !ok {
		return buf
	}
	c.srv.stats.sent.Add(1)
	return out
}
