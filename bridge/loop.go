package bridge

import (
	"hash/maphash"
	"sync"
	"time"

	"holdfast"
	"holdfast/edge/topic"
)

// How a message is kept from going round.
//
// First, what a bridge brings down has an origin of its own
// (holdfast.BridgeOrigin), and Match never sends it up again. So a circle of
// one bridge ends after one turn.
//
// Second, a broker of MQTT 3.1.1 sends what we publish back to us if we have
// subscribed to it (a route that goes both ways). A broker that knows the
// bridge bit (protocol level 0x84: mosquitto and others) does not; see
// ClientOptions.BridgeBit. Where it is not in use, every publish that may come
// back leaves a mark, and an arrival with the same topic and payload uses up
// one mark and is acknowledged upstream, counted, and not delivered.
//
// Not caught: an echo that comes after echoLimit later publishes or echoPeriod
// later (it is delivered locally once more); a broker or rule that changes the
// topic or payload on the way; a circle through other bridges or rules of the
// far broker that comes in on a topic that we have not just sent. Caught by
// mistake: if the far broker does not echo, the same topic with the same
// payload from somebody else within echoPeriod, once per publish of ours.
const (
	echoLimit  = 1024
	echoPeriod = time.Minute
)

// quiet is implemented by an Upstream that knows whether the far broker sends
// us our own publishes.
type quiet interface{ NoEcho() bool }

// echoes are the marks of the last publishes. Safe for concurrent use.
type echoes struct {
	seed maphash.Seed

	mu    sync.Mutex
	ring  [echoLimit]mark // oldest at head
	head  int
	count int
	live  map[uint64]int // unused marks in ring by hash
}

type mark struct {
	hash uint64
	at   time.Time
	used bool
}

func newEchoes() *echoes {
	return &echoes{seed: maphash.MakeSeed(), live: make(map[uint64]int)}
}

func (e *echoes) hash(name string, payload []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(e.seed)
	h.WriteString(name)
	h.WriteByte(0) // cannot be in a topic
	h.Write(payload)
	return h.Sum64()
}

// sent leaves a mark.
func (e *echoes) sent(name string, payload []byte) {
	h := e.hash(name, payload)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count == echoLimit {
		e.dropLocked()
	}
	e.ring[(e.head+e.count)%echoLimit] = mark{hash: h, at: time.Now()}
	e.count++
	e.live[h]++
}

// came reports whether an arrival is an echo, and uses up its mark.
func (e *echoes) came(name string, payload []byte) bool {
	h := e.hash(name, payload)
	e.mu.Lock()
	defer e.mu.Unlock()
	old := time.Now().Add(-echoPeriod)
	for e.count > 0 && e.ring[e.head].at.Before(old) {
		e.dropLocked()
	}
	if e.live[h] == 0 {
		return false
	}
	for i := range e.count {
		if m := &e.ring[(e.head+i)%echoLimit]; m.hash == h && !m.used {
			m.used = true
			e.forgetLocked(h)
			return true
		}
	}
	return false
}

func (e *echoes) dropLocked() {
	m := &e.ring[e.head]
	if !m.used {
		e.forgetLocked(m.hash)
	}
	e.head = (e.head + 1) % echoLimit
	e.count--
}

func (e *echoes) forgetLocked(h uint64) {
	if e.live[h]--; e.live[h] <= 0 {
		delete(e.live, h)
	}
}

// findEchoes marks the routes whose messages may come back.
func (b *Bridge) findEchoes() {
	for i := range b.out {
		for j := range b.in {
			if topic.Overlap(b.out[i].remoteSpace, b.in[j].remoteFilter) {
				b.out[i].echoes = true
				if b.echoes == nil {
					b.echoes = newEchoes()
				}
			}
		}
	}
}

// markEcho leaves a mark for msg if it may come back.
func (b *Bridge) markEcho(it *holdfast.Item) {
	for i := range b.out {
		if b.out[i].name == it.Route && !b.out[i].echoes {
			return
		}
	}
	// An item of a route that is no longer configured is marked like any other.
	for i := range b.in {
		if topic.Match(b.in[i].remoteFilter, it.Msg.Topic) {
			b.echoes.sent(it.Msg.Topic, it.Msg.Payload)
			return
		}
	}
}

// Echo is a pair of routes of one bridge: what the first sends to the far
// broker matches what the second subscribes to.
type Echo struct{ Out, In string }

// FindEchoes returns the pairs of routes whose remote spaces overlap: those for
// which the bridge bit is wanted. Routes that are not valid are left out.
func FindEchoes(routes []Route) []Echo {
	var found []Echo
	for _, o := range routes {
		for _, i := range routes {
			if o.Direction.out() && i.Direction.in() && o.Validate() == nil && i.Validate() == nil &&
				topic.Overlap(o.RemotePrefix+o.Filter, i.RemotePrefix+i.Filter) {
				found = append(found, Echo{Out: nameOf(o), In: nameOf(i)})
			}
		}
	}
	return found
}

func nameOf(r Route) string {
	if r.Name == "" {
		return r.DefaultName()
	}
	return r.Name
}
