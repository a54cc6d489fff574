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

// forward takes from the queue and publishes, as long as there is a connection.
func (c *connection) forward() {
	if len(c.b.out) == 0 && c.b.queue == nil {
		<-c.ctx.Done()
		return
	}
	defer c.flush()
	for c.await(c.hasRoomLocked) {
		if !c.inRate() {
			return
		}
		it, err := c.nextToSend()
		if err == nil {
			if c.b.rate.every > 0 {
				c.b.rate.sent(time.Now())
			}
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
		c.flush()
		wait(c.ctx, queueRetry)
	}
}

// inRate waits until a message may go. It reports false if the connection has ended
// before.
func (c *connection) inRate() bool {
	if c.b.rate.every == 0 {
		return true
	}
	if d := c.b.rate.wait(time.Now()); d > 0 {
		c.flush()
		return wait(c.ctx, d)
	}
	return true
}

// flush must be called before forward waits for anything: publishes may be kept back
// until then.
func (c *connection) flush() {
	if c.batch != nil {
		c.batch.Flush()
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
	for len(t.rules) == 0 { // nothing is left out
		it, err := c.nextInOrder(c.ctx)
		if errors.Is(err, errTurned) {
			continue
		}
		if lanes, _ := c.plan.lanes(); err == nil && !lanes.Has(it.ID.Lane()) { // it has turned
			c.b.letBack(it.ID)
			continue
		}
		return it, err
	}
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
	if c.more || turn.Done() != nil {
		if it, ok, err := c.b.queue.Poll(lanes); ok || err != nil {
			return it, err
		}
	}
	c.flush()
	c.more = true
	if turn.Done() == nil {
		return c.b.queue.Next(ctx, lanes)
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
		c.flush()
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
	if c.batch == nil || c.exactly != nil { // else whoever calls this flushes before it waits
		c.up.Publish(f.item.Msg, f.item.Again, func(err error) { c.finish(f, err) })
	} else if err := c.batch.PublishMore(f); err != nil {
		c.finish(f, err)
	}
}
