package bridge

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"holdfast"
)

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
	out             outgoing // of client
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

// finish is the done of a publish.
func (c *connection) finish(f *flight, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishLocked(f, err, time.Now())
	signal(c.room)
}

// answered is finish of many.
func (c *connection) answered(list []answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, a := range list {
		c.finishLocked(a.f, a.err, now)
	}
	signal(c.room)
}

// finishLocked tells the queue while c.mu is held, so that nothing is told after serve
// has returned.
func (c *connection) finishLocked(f *flight, err error, now time.Time) {
	if c.sealed || f.done {
		return // too late to count: it is in the queue again
	}
	f.done = true
	switch {
	case err == nil:
		c.b.queue.Ack(f.item.ID)
		c.b.thin.arrived(&f.item)
		c.acked++
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
	c.progress = now
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
