package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"holdfast"
)

// What the upstream in use cannot carry goes by another one, beside it: by the
// first that comes after it in the order of preference, has a client identifier
// of its own (two connections with one end each other) and can be connected to.
// Such a connection subscribes to nothing, has no will, acknowledges nothing that
// comes down, and is closed when it was idle for besideIdle. One that is
// preferred to the upstream in use is only waited for: the bridge goes back to it
// when it works.
//
// Meanwhile the queue goes on, so these messages lose their place in the order.
// At most maxBeside of them wait, or as many bytes as may be on their way, and for
// besideWait at most; then, and where
// there is no such upstream, the encoding of the route helps, or quarantine.
// With Base64 nothing waits for an upstream that was not there just now.
const (
	maxBeside  = 64
	besideWait = 15 * time.Minute
	besideIdle = time.Minute
)

// beside has the messages that the upstream of a connection cannot carry.
type beside struct {
	wake  chan struct{} // capacity 1: list has grown
	ended chan struct{} // closed when run has ended; nil if it was never started; only forward and serve

	// Only run.
	way  int // of up
	up   Upstream
	stop context.CancelCauseFunc // gives up

	// Guarded by mu of the connection.
	ways    []int     // that may be connected to, in their order
	list    []*flight // oldest first; sent is when it was put here
	working bool      // there is a connection
}

// findBeside notes which upstreams may help c.
func (c *connection) findBeside() {
	mine := c.b.upstreams[c.index].ClientID
	for i, u := range c.b.upstreams {
		if i > c.index && u.Beside != nil && u.ClientID != mine {
			c.beside.ways = append(c.beside.ways, i)
		}
	}
	c.beside.wake = make(chan struct{}, 1)
}

// besideFullLocked reports whether no more may wait.
func (c *connection) besideFullLocked() bool {
	bytes := 0
	for _, f := range c.beside.list {
		bytes += f.size
	}
	return len(c.beside.list) >= maxBeside || bytes >= c.b.windowBytes
}

// besideReachableLocked reports whether there is a connection, or there may be
// one soon.
func (c *connection) besideReachableLocked() bool {
	return c.beside.working || slices.ContainsFunc(c.beside.ways, func(i int) bool { return !c.b.heldUntil(i).After(time.Now()) })
}

// besideHopeLocked reports whether a message of this encoding should wait for
// another upstream.
func (c *connection) besideHopeLocked(e Encoding) bool {
	if c.besideReachableLocked() {
		return true
	}
	preferred := slices.ContainsFunc(c.b.upstreams[:c.index], func(u UpstreamOption) bool { return u.CarriesAll })
	return e != Base64 && (preferred || len(c.beside.ways) > 0)
}

// putBeside takes an item that c cannot carry, because of why, if there is hope
// for it. It waits while others are on their way beside.
func (c *connection) putBeside(it holdfast.Item, why error) bool {
	l := &c.beside
	c.await(func() bool { return !c.besideFullLocked() || !c.besideReachableLocked() })
	c.mu.Lock()
	defer c.mu.Unlock()
	// When c has ended it is given back with the others.
	if c.ctx.Err() == nil && (c.besideFullLocked() || !c.besideHopeLocked(c.b.encodings[it.Route])) {
		return false
	}
	l.list = append(l.list, &flight{item: it, size: it.Msg.Size(), sent: time.Now(), why: why})
	if l.ended == nil {
		l.ended = make(chan struct{})
		go func() {
			defer close(l.ended)
			c.runBeside()
		}()
	}
	wakeBeside(l.wake)
	return true
}

func wakeBeside(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// runBeside sends what waits, until c ends.
func (c *connection) runBeside() {
	defer c.hangUpBeside(nil)
	for c.ctx.Err() == nil {
		c.mu.Lock()
		waiting := len(c.beside.list)
		c.mu.Unlock()
		switch {
		case waiting == 0:
			if !c.pauseBeside(besideIdle) {
				c.hangUpBeside(nil)
				c.pauseBeside(0)
			}
		case c.connectBeside():
			c.sendBeside()
		default:
			c.pauseBeside(c.settleBeside())
		}
	}
}

// pauseBeside waits until there is something new, for d at most if that is not
// 0, and reports false if d has passed.
func (c *connection) pauseBeside(d time.Duration) bool {
	var passed <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		passed = t.C
	}
	select {
	case <-c.beside.wake:
	case <-c.ctx.Done():
	case <-passed:
		return false
	}
	return true
}

// connectBeside makes a connection if there is none.
func (c *connection) connectBeside() bool {
	l := &c.beside
	if l.up != nil {
		return true
	}
	c.mu.Lock()
	ways, first := slices.Clone(l.ways), l.list[0].item.Msg
	c.mu.Unlock()
	for _, i := range ways {
		if c.b.heldUntil(i).After(time.Now()) || c.ctx.Err() != nil {
			continue
		}
		u := c.b.upstreams[i]
		attempt, cancel := c.b.attempt(c.ctx)
		ctx, stop := context.WithCancelCause(c.ctx)
		giveUp := context.AfterFunc(attempt, func() { stop(context.Cause(attempt)) })
		up, err := u.Beside(ctx, func(*holdfast.Message, bool, func()) {})
		giveUp()
		cancel()
		if err != nil {
			stop(nil)
			if c.ctx.Err() == nil {
				c.b.log.Warn("an upstream cannot carry a message, and another one cannot be connected to",
					slog.String("upstream", u.Name), slog.Any("error", err))
				c.b.hold(i, err)
			}
			continue
		}
		if p, ok := up.(picky); ok && p.Carries(first) != nil { // it is known only now
			_ = up.Close()
			stop(nil)
			c.mu.Lock()
			l.ways = slices.DeleteFunc(l.ways, func(way int) bool { return way == i })
			c.mu.Unlock()
			continue
		}
		c.b.log.Info("what the upstream in use cannot carry goes by another one", slog.String("upstream", u.Name))
		l.up, l.way, l.stop = up, i, stop
		c.mu.Lock()
		l.working = true
		c.mu.Unlock()
		return true
	}
	return false
}

// hangUpBeside closes the connection, if there is one, because of err.
func (c *connection) hangUpBeside(err error) {
	l := &c.beside
	if l.up == nil {
		return
	}
	_ = l.up.Close() // why is in err
	l.stop(nil)
	l.up = nil
	c.mu.Lock()
	l.working = false
	c.mu.Unlock()
	wakeBeside(c.room)
	if err != nil && c.ctx.Err() == nil {
		c.b.log.Warn("the connection beside the one in use is lost", slog.String("upstream", c.b.upstreams[l.way].Name), slog.Any("error", err))
		c.b.hold(l.way, err)
	}
}

// sendBeside publishes what waits and waits for the answers.
func (c *connection) sendBeside() {
	l := &c.beside
	most := c.b.window
	if w := l.up.Window(); w > 0 {
		most = min(most, w)
	}
	c.mu.Lock()
	batch := slices.Clone(l.list[:min(most, len(l.list))])
	c.mu.Unlock()
	finished := make(chan struct{}, len(batch))
	for _, f := range batch {
		if c.b.echoes != nil { // it comes back over the connection in use
			c.b.markEcho(&f.item)
		}
		c.b.status.sent.Add(1)
		l.up.Publish(f.item.Msg, f.item.Again, func(err error) {
			c.finishBeside(f, err)
			finished <- struct{}{}
		})
		f.item.Again = true
	}
	timeout := time.NewTimer(c.b.ackTimeout)
	defer timeout.Stop()
	for range batch {
		select {
		case <-finished:
			continue
		case <-l.up.Done():
		case <-timeout.C:
			c.hangUpBeside(errUnanswered)
			return
		case <-c.ctx.Done():
			return
		}
		err := l.up.Err()
		if err == nil {
			err = errLost
		}
		c.hangUpBeside(err)
		return
	}
	c.mu.Lock()
	left := slices.ContainsFunc(batch, func(f *flight) bool { return !f.done })
	c.mu.Unlock()
	if left {
		c.hangUpBeside(errors.New("the answer to a publish did not come"))
	}
}

// finishBeside is the done of a publish. One whose fate is unknown stays.
func (c *connection) finishBeside(f *flight, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed || f.done {
		return
	}
	switch {
	case err == nil:
		c.b.queue.Ack(f.item.ID)
		c.b.thin.arrived(&f.item)
		c.b.status.acked.Add(1)
		c.b.status.beside.Add(1)
	case errors.Is(err, holdfast.ErrTooLarge):
		c.quarantine(f, ReasonTooLarge, err)
	case errors.Is(err, holdfast.ErrRefused):
		c.quarantine(f, ReasonRefused, err)
	default:
		return
	}
	f.done = true
	c.dropBesideLocked()
}

// dropBesideLocked takes what is done out of the list.
func (c *connection) dropBesideLocked() {
	c.beside.list = slices.DeleteFunc(c.beside.list, func(f *flight) bool { return f.done })
	wakeBeside(c.room)
}

// settleBeside decides about what waits while there is no connection: what need
// not wait goes back to be sent in another form, what has waited too long into
// quarantine. It returns when to look again.
func (c *connection) settleBeside() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	next := now.Add(besideWait)
	for _, i := range c.beside.ways {
		if h := c.b.heldUntil(i); h.Before(next) {
			next = h
		}
	}
	for _, f := range c.beside.list {
		end := f.sent.Add(besideWait)
		switch {
		case !c.besideHopeLocked(c.b.encodings[f.item.Route]):
			c.b.thin.comeBack(f.item)
		case !end.After(now):
			reason := ReasonRefused
			if errors.Is(f.why, holdfast.ErrTooLarge) {
				reason = ReasonTooLarge
			}
			c.quarantine(f, reason, fmt.Errorf("%w; no other upstream was there to carry it for %v", f.why, besideWait))
		default:
			if end.Before(next) {
				next = end
			}
			continue
		}
		f.done = true
	}
	c.dropBesideLocked()
	return max(next.Sub(now), time.Second)
}
