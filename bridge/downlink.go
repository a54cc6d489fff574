package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"holdfast"
)

// The bounds of what waits for the local broker.
const (
	maxPending      = 1000
	maxPendingBytes = 4 << 20
	// roomWait is how long the upstream's reader is held up when a bound is
	// met. A single connection carries the acknowledgements of our own
	// publishes behind the commands, so these wait too; it must stay well
	// below any keep-alive.
	roomWait = 3 * time.Second
	// A message that the local broker could not take is offered again after
	// retryMin, then ever later up to retryMax.
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
)

// errDownlink ends a connection whose commands the local broker does not take.
// The far broker keeps what was not acknowledged and sends it again.
var errDownlink = errors.New("the local broker does not accept commands as fast as they come")

// downlink takes what one connection brings to the local broker. Messages are
// offered in the order of their arrival; acknowledgements go upstream in the
// same order [MQTT-4.6.0-2], each only after the local broker has accepted the
// message. While one waits to be offered again, no later one is offered.
type downlink struct {
	b    *Bridge
	fail context.CancelCauseFunc // ends the connection

	wake  chan struct{} // has a token when there may be something to offer
	room  chan struct{} // has a token when something has left
	over  chan struct{} // closed when the connection has ended
	ended chan struct{} // closed when the goroutine has ended
	once  sync.Once

	mu      sync.Mutex
	pending []*arrival // in order; those at the front are not settled
	first   uint64     // seq of pending[0]
	next    uint64     // seq of the first that may have to be offered
	bytes   int
	delay   time.Duration // the last one before a message was offered again
	retryAt time.Time     // nothing is offered before
	gone    bool          // the connection has ended: nothing is acknowledged any more
	shut    bool          // what comes now is offered at once, or comes again
}

type arrival struct {
	seq  uint64
	msg  *holdfast.Message // nil: settled, only the acknowledgement is to go
	size int
	ack  func()
	once bool // it does not come again: QoS 0, or acknowledged before
	// packetID is that of a message that is taken exactly once; 0: none.
	packetID uint16
	again    bool // DUP
	state    arrivalState
}

type arrivalState byte

const (
	arrived arrivalState = iota // to be offered
	offered
	settled // to be acknowledged upstream
)

func newDownlink(b *Bridge, fail context.CancelCauseFunc) *downlink {
	d := &downlink{
		b: b, fail: fail,
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
		over: make(chan struct{}), ended: make(chan struct{}),
	}
	go d.run()
	return d
}

// receive is the Receive of the connection. It is held up when a bound is met,
// for roomWait at most; then the connection is ended, since a message cannot be
// given back in any other way. QoS 0 is dropped at once. What was acknowledged
// before waits for room as long as the connection lives, and is offered after that.
func (d *downlink) receive(msg *holdfast.Message, _ bool, ack func()) { d.bring(msg, 0, false, ack) }

func (d *downlink) bring(msg *holdfast.Message, packetID uint16, again bool, ack func()) {
	a := &arrival{ack: ack, packetID: packetID, again: again, once: ack == nil || msg.QoS == 0}
	if ack == nil {
		a.ack = func() {}
	}
	if local, ok := d.b.bringDown(msg); ok {
		a.msg, a.size = local, local.Size()
	} else {
		a.state = settled
	}
	var timeout <-chan time.Time
	for !d.push(a) {
		if msg.QoS == 0 {
			d.b.status.full.Add(1)
			return
		}
		if timeout == nil && !a.once {
			t := time.NewTimer(roomWait)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-d.room:
		case <-d.over:
			if !a.once {
				return
			}
			<-d.ended // it is offered at once then
		case <-timeout:
			d.fail(fmt.Errorf("%w: %d wait for it: see its log for a slow or full disk", errDownlink, d.b.status.pending.Load()))
			return
		}
	}
}

// bringDown maps a message from upstream; ok is false if it goes nowhere.
func (b *Bridge) bringDown(msg *holdfast.Message) (local *holdfast.Message, ok bool) {
	for i := range b.in {
		r := &b.in[i]
		to, ok := r.toLocal(msg.Topic)
		if !ok {
			continue
		}
		if msg.Passed(b.gateway) || b.ownState(msg.Topic, to) || b.echoes != nil && b.echoes.came(msg.Topic, msg.Payload) {
			b.status.loop.Add(1)
			return nil, false
		}
		m := *msg
		m.Topic, m.Retain, m.Origin = to, r.retain && msg.Retain, b.origin
		if m.Received.IsZero() {
			m.Received = time.Now()
		}
		return &m, true
	}
	// Left over from a subscription of an earlier configuration.
	b.status.unrouted.Add(1)
	return nil, false
}

// push takes a in, or reports that a bound is met.
func (d *downlink) push(a *arrival) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut {
		if a.once && a.state == arrived {
			a.state = offered
			d.mu.Unlock()
			d.b.local.Publish(a.msg, func(err error) { d.answer(a, err) })
			d.mu.Lock()
		}
		return true
	}
	if len(d.pending) > 0 && (len(d.pending) >= maxPending || d.bytes+a.size > maxPendingBytes) {
		return false
	}
	a.seq = d.first + uint64(len(d.pending))
	d.pending = append(d.pending, a)
	d.bytes += a.size
	d.settleLocked()
	signal(d.wake)
	return true
}

// run offers messages to the local broker until the connection has ended.
func (d *downlink) run() {
	defer close(d.ended)
	for {
		a, pause := d.take()
		if a != nil && a.packetID > 0 {
			d.offerOnce(a)
			continue
		}
		if a != nil {
			d.b.local.Publish(a.msg, func(err error) { d.answer(a, err) })
			continue
		}
		if pause <= 0 {
			pause = time.Hour // until woken
		}
		t := time.NewTimer(pause)
		select {
		case <-d.wake:
		case <-t.C:
		case <-d.over:
			t.Stop()
			d.lastOffers()
			return
		}
		t.Stop()
	}
}

// take returns the next message to offer, or how long to wait before there may
// be one.
func (d *downlink) take() (*arrival, time.Duration) {
	select {
	case <-d.over:
		return nil, 0
	default:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if pause := time.Until(d.retryAt); pause > 0 {
		return nil, pause
	}
	for d.next = max(d.next, d.first); d.next < d.first+uint64(len(d.pending)); d.next++ {
		if a := d.pending[d.next-d.first]; a.state == arrived {
			a.state = offered
			d.next++
			return a, 0
		}
	}
	return nil, 0
}

// lastOffers hands over what the far broker will not send again.
func (d *downlink) lastOffers() {
	for {
		d.mu.Lock()
		d.gone = true
		d.b.status.pending.Store(0)
		var rest []*arrival
		for _, a := range d.pending {
			if a.state == arrived && a.once {
				a.state = offered
				rest = append(rest, a)
			}
		}
		d.shut = len(rest) == 0
		d.mu.Unlock()
		if len(rest) == 0 {
			return
		}
		for _, a := range rest {
			d.b.local.Publish(a.msg, func(err error) { d.answer(a, err) })
		}
	}
}

// answer is the done of Local.Publish.
func (d *downlink) answer(a *arrival, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a.state != offered {
		return
	}
	switch {
	case err == nil:
		d.b.status.received.Add(1)
		d.delay = 0
	case errors.Is(err, holdfast.ErrRefused), errors.Is(err, holdfast.ErrTooLarge):
		// Never acknowledged, it would come again at every connection and
		// stand before all others.
		d.b.status.refused.Add(1)
		d.b.log.Error("the local broker has refused a command", slog.String("topic", a.msg.Topic), slog.Any("error", err))
	case a.msg.QoS == 0:
		d.b.status.full.Add(1)
	case a.once && d.gone:
		d.b.status.full.Add(1)
		d.b.log.Error("a command is lost: the local broker cannot take it, and it does not come again",
			slog.String("topic", a.msg.Topic), slog.Any("error", err))
	default:
		a.state = arrived
		d.next = min(d.next, a.seq)
		if time.Until(d.retryAt) <= 0 {
			d.delay = min(max(2*d.delay, retryMin), retryMax)
			d.retryAt = time.Now().Add(d.delay)
			d.b.log.Warn("the local broker cannot take a command now", slog.Any("error", err), slog.Duration("retry", d.delay))
		}
		signal(d.wake)
		return
	}
	a.state = settled
	d.settleLocked()
}

// settleLocked acknowledges upstream what is settled at the front.
func (d *downlink) settleLocked() {
	if d.gone {
		return
	}
	n := 0
	for _, a := range d.pending {
		if a.state != settled {
			break
		}
		a.ack()
		d.bytes -= a.size
		n++
	}
	clear(d.pending[:n])
	d.pending = d.pending[n:]
	d.first += uint64(n)
	d.b.status.pending.Store(int64(len(d.pending)))
	if n > 0 {
		signal(d.room)
	}
}

// end is called when the connection has ended. It returns when nothing more is
// offered to the local broker but what does not come again; what is offered may
// still be answered.
func (d *downlink) end() {
	d.once.Do(func() { close(d.over) })
	<-d.ended
}

// signal leaves a token in a channel with room for one.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
