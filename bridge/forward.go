package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"holdfast"
)

// queueRetry is the pause after the queue could not be read.
const queueRetry = time.Second

// killWindow is how soon after a message the connection must end for the
// message to be suspected.
const killWindow = 5 * time.Second

// flight is one item between Queue.Next and its end.
type flight struct {
	item holdfast.Item
	size int
	sent time.Time // zero: not given to the upstream yet
	done bool      // the upstream has called back
	why  error     // the upstream in use cannot carry it; see beside
	// Of QoS 2 that goes exactly once: its packet identifier, 0 for none; whether
	// it had it before, and PUBREC has come (guarded by mu once it is sent); and when
	// it has it on disk.
	packetID        uint16
	bound, received bool
	saved           chan error
	prev, next      *flight
}

// forward takes from the queue and publishes, as long as there is a connection.
func (c *connection) forward() {
	if len(c.b.out) == 0 && c.b.queue == nil {
		<-c.ctx.Done()
		return
	}
	for c.await(c.hasRoomLocked) {
		if d := c.b.rate.wait(time.Now()); d > 0 && !wait(c.ctx, d) {
			return
		}
		it, err := c.nextToSend()
		if err == nil {
			c.b.rate.sent(time.Now())
			c.send(it)
			continue
		}
		if c.ctx.Err() != nil {
			return
		}
		// The way down still works, so the connection is kept.
		err = fmt.Errorf("take from the queue: %w", err)
		c.b.status.problem(err)
		c.b.log.Error("the queue cannot be read", slog.Any("error", err))
		wait(c.ctx, queueRetry)
	}
}

// hasRoomLocked reports whether one more may be on its way. Two always may: one
// large message must not make a stop-and-go of it.
func (c *connection) hasRoomLocked() bool {
	return c.inflight < c.window && c.bytes < c.b.windowBytes && (c.inflight < 2 || c.bytes < c.pace.limit)
}

// lowEvery: of this many messages one is of the low lane, if it has any, so that
// it goes on under any load.
const lowEvery = 20

// nextToSend waits for the next message that is not left out.
func (c *connection) nextToSend() (holdfast.Item, error) {
	t := c.b.thin
	for {
		if it, ok := t.next(); ok {
			if lanes, _ := c.plan.lanes(); !lanes.Has(it.ID.Lane()) { // it has turned
				t.comeBack(it)
				continue
			}
			return it, nil
		}
		at, held := t.wake()
		if held && !at.After(time.Now()) {
			// A newer one of its topic may be the next in its stream.
			it, ok, err := c.pollInTurn()
			if err != nil {
				return it, err
			}
			but := -1
			if ok {
				but = t.take(it)
			}
			t.due(time.Now(), but)
			continue
		}
		ctx, cancel := c.ctx, context.CancelFunc(func() {})
		if held {
			ctx, cancel = context.WithDeadline(ctx, at)
		}
		it, err := c.nextInOrder(ctx)
		due := errors.Is(err, context.DeadlineExceeded) && c.ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			t.take(it)
		case !due && !errors.Is(err, errTurned):
			return it, err
		}
	}
}

// leaveOut drops a message that its route does not want to go.
func (b *Bridge) leaveOut(id holdfast.ItemID, reason string) { b.queue.Drop(id, reason) }

// letBack gives messages back to the queue.
func (b *Bridge) letBack(ids ...holdfast.ItemID) { b.queue.Release(ids...) }

// unthinned counts that a bound of sampling was met.
func (b *Bridge) unthinned() {
	b.status.unthinned.Add(1)
	now, last := time.Now().UnixNano(), b.status.unthinnedAt.Load()
	if (last == 0 || now-last > int64(unthinnedLog)) && b.status.unthinnedAt.CompareAndSwap(last, now) {
		b.log.Warn("too many topics or bytes for sample and on_change: more messages go than they would let; make their filters narrower or sample shorter",
			slog.Int("topics", maxThin), slog.Int("held", maxHeld), slog.Int("held_bytes", maxHeldBytes))
	}
}

// next takes the next item from the queue.
func (c *connection) next(ctx context.Context) (holdfast.Item, error) {
	it, ok, err := c.lowInTurn()
	if !ok && err == nil {
		it, err = c.waitForNext(ctx)
	}
	if err == nil && it.ID.Lane() == holdfast.Low {
		c.sinceLow = 0
	}
	return it, err
}

// lowInTurn is the next item of the low lane, if it is its turn and there is one.
func (c *connection) lowInTurn() (it holdfast.Item, ok bool, err error) {
	if c.sinceLow++; c.sinceLow < lowEvery {
		return it, false, nil
	}
	c.sinceLow = 0
	lanes, _ := c.plan.lanes()
	return c.b.queue.Poll(lanes & (1 << holdfast.Low))
}

// errTurned: other lanes may go now.
var errTurned = errors.New("the data plan has turned")

// waitForNext waits for the oldest item of the lanes that may go.
func (c *connection) waitForNext(ctx context.Context) (holdfast.Item, error) {
	lanes, turn := c.plan.lanes()
	if turn.Done() == nil {
		return c.b.queue.Next(ctx, lanes)
	}
	if it, ok, err := c.b.queue.Poll(lanes); ok || err != nil {
		return it, err
	}
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(turn, cancel)()
	it, err := c.b.queue.Next(until, lanes)
	if err != nil && turn.Err() != nil && ctx.Err() == nil {
		err = errTurned
	}
	return it, err
}

// await waits until met, which is called with c.mu held, and reports false if
// the connection has ended before.
func (c *connection) await(met func() bool) bool {
	for c.ctx.Err() == nil {
		c.mu.Lock()
		ok := met()
		c.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-c.room:
		case <-c.ctx.Done():
		}
	}
	return false
}

// send publishes one item. One that was the oldest when the last connection
// died goes alone: if the connection dies again, it is known who did it.
func (c *connection) send(it holdfast.Item) {
	it, late := c.b.inPlace(it)
	if c.b.stamps[it.Route] {
		it.Msg = c.b.stamped(it, late, c.props)
	}
	if c.via(&it) {
		c.b.queue.Drop(it.ID, reasonLoop)
		return
	}
	if c.encode(&it) {
		return
	}
	f := c.take(it)
	alone := c.b.suspect.is(it.ID)
	if alone && !c.await(func() bool { return c.inflight == 1 }) {
		return
	}
	if c.exactly == nil {
		c.publish(f)
	} else if !c.exactly.bind(f) {
		return
	}
	if alone {
		c.await(func() bool { return c.inflight == 0 })
	}
}

// publish gives an item to the upstream.
func (c *connection) publish(f *flight) {
	if c.b.echoes != nil && !c.quiet {
		c.b.markEcho(&f.item)
	}
	c.mu.Lock()
	f.sent = time.Now()
	if c.unanswered++; c.unanswered == 1 {
		c.progress = f.sent
	}
	c.mu.Unlock()
	c.b.status.sent.Add(1)
	c.plan.spend(f.size)
	if f.packetID > 0 {
		c.exactly.publish(f)
		return
	}
	c.up.Publish(f.item.Msg, f.item.Again, func(err error) { c.finish(f, err) })
}

// take notes an item that the queue has handed out. From here on it is ended
// by finish or by giveBack, exactly one of them.
func (c *connection) take(it holdfast.Item) *flight {
	f := &flight{item: it, size: it.Msg.Size()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.prev = c.tail; f.prev != nil {
		f.prev.next = f
	} else {
		c.head = f
	}
	c.tail = f
	c.inflight++
	c.bytes += f.size
	c.b.status.inflight.Store(int64(c.inflight))
	return f
}

// finish is the done of a publish. The queue is told while c.mu is held, so
// that nothing is told after serve has returned.
func (c *connection) finish(f *flight, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed || f.done {
		return // too late to count: it is in the queue again
	}
	f.done = true
	switch {
	case err == nil:
		c.b.queue.Ack(f.item.ID)
		c.b.thin.arrived(f.item)
		c.acked++
		now := time.Now()
		rtt := now.Sub(f.sent)
		c.b.status.answered(f.item.Msg.QoS, rtt)
		if f.item.Msg.QoS > 0 {
			c.pace.answered(now, f.size, rtt, c.bytes >= c.pace.limit*3/4)
			c.b.status.limit.Store(int64(c.pace.limit))
		}
	case errors.Is(err, holdfast.ErrTooLarge):
		c.quarantine(f, ReasonTooLarge, err)
	case errors.Is(err, holdfast.ErrRefused):
		c.quarantine(f, ReasonRefused, err)
	default:
		// MQTT sends again only after a new connection (MQTT 5, 4.4): the item
		// stays unfinished and goes back when this one has ended.
		switch {
		case !errors.Is(err, errLater):
			err = fmt.Errorf("the answer to a publish did not come: %w", err)
		case !errors.Is(err, errFull) && c.putOff == nil:
			c.putOff = f
		}
		c.cancel(err)
		return
	}
	c.progress = time.Now()
	c.removeLocked(f)
}

func (c *connection) removeLocked(f *flight) {
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		c.head = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	} else {
		c.tail = f.prev
	}
	c.inflight--
	if !f.sent.IsZero() {
		c.unanswered--
	}
	c.bytes -= f.size
	c.b.status.inflight.Store(int64(c.inflight))
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// drain gives what is on its way a moment to be acknowledged, so that a
// restart sends less twice.
func (c *connection) drain() {
	t := time.NewTimer(drainGrace)
	defer t.Stop()
	for {
		c.mu.Lock()
		n := c.inflight
		for f := c.head; f != nil; f = f.next {
			if f.sent.IsZero() || f.done {
				n-- // nothing will come for it
			}
		}
		c.mu.Unlock()
		if n <= 0 {
			return
		}
		select {
		case <-c.room:
		case <-t.C:
			return
		case <-c.up.Done():
			return
		}
	}
}

// mayHaveKilled reports whether a message can be why the connection has ended: a
// broker that chokes on it closes soon after it got it. A connection that ended
// much later died of the link, as weak links do all day, and no message is to
// be blamed for that. A slow link is given a second for each kilobyte.
func (f *flight) mayHaveKilled(ended time.Time) bool {
	return ended.Sub(f.sent) < killWindow+time.Duration(f.size)*time.Millisecond
}

// giveBack releases everything unfinished. died is false if it is no message's
// fault that the connection has ended.
func (c *connection) giveBack(died bool, ended time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sealed = true
	if c.acked > 0 {
		c.b.suspect.cleared()
	}
	if f := c.firstToBlameLocked(); died && f != nil && f.mayHaveKilled(ended) && c.b.suspect.killed(f.item.ID, c.b.maxAttempts) {
		c.quarantine(f, ReasonKills, fmt.Errorf("the connection has died %d times in a row with this message as the oldest", c.b.maxAttempts))
		c.removeLocked(f)
	} else if f := c.putOff; f != nil && c.b.suspect.putOff(f.item.ID, ended) {
		c.quarantine(f, ReasonRefused, fmt.Errorf("the broker has not taken it for %v", laterPatience))
		c.removeLocked(f)
	}
	kept := c.b.thin.giveBack()
	ids := make([]holdfast.ItemID, 0, c.inflight+len(kept))
	for f := c.head; f != nil; f = f.next {
		ids = append(ids, f.item.ID)
		c.b.thin.forget(f.item)
	}
	for _, f := range c.beside.list {
		ids = append(ids, f.item.ID)
		c.b.thin.forget(f.item)
	}
	ids = append(ids, kept...)
	if len(ids) > 0 {
		c.b.queue.Release(ids...)
	}
	c.head, c.tail, c.inflight, c.unanswered, c.bytes = nil, nil, 0, 0, 0
	c.b.status.inflight.Store(0)
}

// firstToBlameLocked is the oldest message that was sent and that the far broker
// is not known to have.
func (c *connection) firstToBlameLocked() *flight {
	for f := c.head; f != nil; f = f.next {
		if !f.sent.IsZero() && !f.received {
			return f
		}
	}
	return nil
}

func (c *connection) quarantine(f *flight, reason string, err error) {
	c.b.status.quarantined.Add(1)
	c.b.log.Error("a message is put into quarantine", slog.String("route", f.item.Route),
		slog.String("reason", reason), slog.String("topic", f.item.Msg.Topic),
		slog.Int("bytes", len(f.item.Msg.Payload)), slog.Any("error", err))
	c.b.queue.Quarantine(f.item.ID, reason)
	c.b.thin.forget(f.item)
}
