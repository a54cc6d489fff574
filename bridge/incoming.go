package bridge

import (
	"errors"
	"fmt"
	"sync"

	"holdfast"
)

// What comes down with QoS 2 and Options.FarSession is taken once:
//
//	       PUBLISH comes
//	save   the message, where it goes, and its packet identifier; one transaction
//	send   PUBREC
//	       PUBREL comes
//	save   the identifier is forgotten
//	send   PUBCOMP
//
// A PUBLISH with an identifier that is known is acknowledged and goes nowhere. If it
// comes without DUP it is no repetition [MQTT-3.3.1-1]: the far broker has forgotten
// what we know, and the message is taken for a new one rather than lost. One whose
// first copy is with the local broker yet, from a connection that is lost,
// waits for the same answer.

// incoming are the packet identifiers that the far broker is using. It outlives
// connections.
type incoming struct {
	mu  sync.Mutex
	ids map[uint16]*incomingID // nil: not read from the queue yet
}

type incomingID struct {
	state   incomingState
	waiting []func(error) // copies that want the answer, too
}

type incomingState byte

const (
	incomingPending  incomingState = iota // with the local broker
	incomingReceived                      // safe
	incomingLeaving                       // PUBREL has come, the disk does not know it yet
)

// know sets what the queue has of the session that the connection is in.
func (in *incoming) know(ids []uint16) {
	in.mu.Lock()
	defer in.mu.Unlock()
	old := in.ids
	in.ids = make(map[uint16]*incomingID)
	for _, id := range ids {
		e := &incomingID{state: incomingReceived}
		if o := old[id]; o != nil && o.state == incomingPending {
			e = o // it is in the transaction that is being written
		}
		in.ids[id] = e
	}
}

// offer is asked about a PUBLISH: fresh is a new one, to be ended by settled; else
// either known, or answer will be called with what becomes of the first copy.
func (in *incoming) offer(id uint16, again bool, answer func(error)) (fresh *incomingID, known bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	e := in.ids[id]
	switch {
	case e != nil && e.state == incomingPending:
		e.waiting = append(e.waiting, answer)
		return nil, false
	case e != nil && again:
		return nil, true
	}
	e = &incomingID{}
	in.ids[id] = e
	return e, false
}

// settled is the answer of the local broker. An error frees the identifier.
func (in *incoming) settled(id uint16, e *incomingID, err error) {
	in.mu.Lock()
	e.state = incomingReceived
	if err != nil && in.ids[id] == e {
		delete(in.ids, id)
	}
	waiting := e.waiting
	e.waiting = nil
	in.mu.Unlock()
	for _, answer := range waiting {
		answer(err)
	}
}

// leave begins to forget an identifier; known tells whether there is anything to
// forget.
func (in *incoming) leave(id uint16) (known bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	e := in.ids[id]
	if e == nil || e.state == incomingPending {
		return false
	}
	e.state = incomingLeaving
	return true
}

// left ends leave.
func (in *incoming) left(id uint16, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	e := in.ids[id]
	switch {
	case e == nil || e.state != incomingLeaving:
	case err != nil:
		e.state = incomingReceived
	default:
		delete(in.ids, id)
	}
}

// errForget ends a connection: PUBREL comes again on the next one.
var errForget = errors.New("what has come down cannot be forgotten on disk")

// arrived and released make a downlink an inbox.
func (d *downlink) arrived(id uint16, msg *holdfast.Message, again bool, ack func()) {
	d.bring(msg, id, again, ack)
}

func (d *downlink) released(id uint16, pubcomp func()) {
	if !d.b.incoming.leave(id) {
		pubcomp()
		return
	}
	d.b.queue.(ExactQueue).ChangeFarSession(&holdfast.FarSessionChange{ForgetInbound: []uint16{id}}, func(err error) {
		d.b.incoming.left(id, err)
		if err != nil {
			d.fail(fmt.Errorf("%w: %w", errForget, err))
			return
		}
		pubcomp()
	})
}

// offerOnce offers a message that has a packet identifier, if it is not there yet.
func (d *downlink) offerOnce(a *arrival) {
	fresh, known := d.b.incoming.offer(a.packetID, a.again, func(err error) {
		if err == nil {
			d.known(a)
			return
		}
		d.answer(a, err)
	})
	switch {
	case known:
		d.known(a)
	case fresh != nil:
		d.b.local.(ExactLocal).PublishOnce(a.msg, a.packetID, func(err error) {
			d.b.incoming.settled(a.packetID, fresh, err)
			d.answer(a, err)
		})
	}
}

// known acknowledges a message that the local broker has already.
func (d *downlink) known(a *arrival) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a.state == offered {
		a.state = settled
		d.settleLocked()
	}
}
