package bridge

import (
	"context"
	"log/slog"

	"holdfast"
)

// Options.LiveFirst: what comes while there is a connection goes at once, and the
// backlog behind it with the bandwidth that is left, but at least with
// Options.BackfillShare of the messages as long as there is one. So fresh data is
// there within seconds after an outage of days. Both keep their own order. The
// high lane of either goes before the other lanes of both.
//
// What is older than something sent on its topic goes without RETAIN, and its
// stamp (Route.Stamp) says "late": a value of the past never takes the place of a
// newer one. The newest of maxNewest topics is remembered until the backlog has
// drained; for further topics, and after a restart for everything that stands
// before the last acknowledgement, it is assumed that there was a newer one.
//
// What was on its way when a connection was lost stands in the backlog of the
// next.
const maxNewest = 10_000

// newest knows what was sent ahead. Only Run changes it, between connections or
// while it sends.
type newest struct {
	marks   [holdfast.LaneCount]uint64 // the backlog is before them
	ahead   [holdfast.LaneCount]uint64 // the last that was taken as fresh; what comes before it was passed over
	unknown [holdfast.LaneCount]uint64 // before them something newer may have been sent
	begun   bool
	sent    map[string]holdfast.ItemID // the newest by topic
	crowd   bool                       // there were more topics
}

// mark is called for each connection.
func (b *Bridge) mark() {
	if b.fresh == nil {
		return
	}
	end, settled := b.fresh.Mark()
	b.newest.marks, b.newest.ahead = end, [holdfast.LaneCount]uint64{}
	if !b.newest.begun {
		b.newest.begun, b.newest.unknown = true, settled
	}
}

// late reports whether an item that was just taken is of the backlog. So is what
// came too fast to be taken as fresh: something newer has gone before it.
func (b *Bridge) late(id holdfast.ItemID) bool {
	n := &b.newest
	return b.fresh != nil && id.Position() < max(n.marks[id.Lane()], n.ahead[id.Lane()])
}

// pollFresh is PollFresh, and notes how far it is.
func (b *Bridge) pollFresh(lanes holdfast.Lanes) (it holdfast.Item, ok bool, err error) {
	if it, ok, err = b.fresh.PollFresh(lanes); ok {
		b.newest.ahead[it.ID.Lane()] = it.ID.Position()
	}
	return it, ok, err
}

// stale notes that it is sent, and reports whether something newer of its topic
// was, or may have been.
func (n *newest) stale(it holdfast.Item) bool {
	old, known := n.sent[it.Msg.Topic]
	switch {
	case known && old.Lane() == it.ID.Lane() && old.Position() > it.ID.Position():
		return true
	case known || len(n.sent) < maxNewest:
		if n.sent == nil {
			n.sent = map[string]holdfast.ItemID{}
		}
		n.sent[it.Msg.Topic] = it.ID
	default:
		n.crowd = true
	}
	lane := it.ID.Lane()
	return it.ID.Position() < n.unknown[lane] || n.crowd && !known && it.ID.Position() < n.marks[lane]
}

// drained forgets everything: nothing older is left.
func (n *newest) drained() {
	n.sent, n.crowd = nil, false
}

// poll is the next item without waiting, in the order of the bridge.
func (c *connection) poll() (it holdfast.Item, ok bool, err error) {
	lanes, _ := c.plan.lanes()
	if c.b.fresh == nil {
		return c.b.queue.Poll(lanes)
	}
	high, others := lanes&(1<<holdfast.High), lanes&^(1<<holdfast.High)
	tries := []func() (holdfast.Item, bool, error){
		func() (holdfast.Item, bool, error) { return c.b.pollFresh(high) },
		func() (holdfast.Item, bool, error) { return c.b.queue.Poll(high) },
		func() (holdfast.Item, bool, error) { return c.b.pollFresh(others) },
		func() (holdfast.Item, bool, error) { return c.b.queue.Poll(others) },
	}
	c.owed += c.b.share
	if c.owed >= 100 {
		tries[2], tries[3] = tries[3], tries[2]
	}
	for _, try := range tries {
		if it, ok, err = try(); ok || err != nil {
			break
		}
	}
	if !ok || c.b.late(it.ID) {
		c.owed = max(c.owed-100, 0)
	}
	c.owed = min(c.owed, 100)
	return it, ok, err
}

// pollInTurn is poll, and the low lane when it is its turn.
func (c *connection) pollInTurn() (it holdfast.Item, ok bool, err error) {
	if it, ok, err = c.lowInTurn(); ok || err != nil {
		return it, ok, err
	}
	if it, ok, err = c.poll(); ok && it.ID.Lane() == holdfast.Low {
		c.sinceLow = 0
	}
	return it, ok, err
}

// nextInOrder is next with the fresh before the backlog.
func (c *connection) nextInOrder(ctx context.Context) (it holdfast.Item, err error) {
	if c.b.fresh == nil {
		return c.next(ctx)
	}
	it, ok, err := c.pollInTurn()
	if ok || err != nil {
		return it, err
	}
	c.mu.Lock()
	idle := c.inflight == 0 && len(c.beside.list) == 0
	c.mu.Unlock()
	// A queue that stands still, as during an export, may have a backlog yet.
	if idle && c.b.fresh.Len() == 0 {
		c.b.newest.drained()
	}
	return c.waitForNext(ctx)
}

// inPlace is it as it may be sent now.
func (b *Bridge) inPlace(it holdfast.Item) (_ holdfast.Item, late bool) {
	if b.fresh == nil || !b.newest.stale(it) {
		return it, false
	}
	if it.Msg.Retain {
		m := *it.Msg
		m.Retain = false
		it.Msg = &m
		if b.status.unretained.Add(1) == 1 {
			b.log.Info("messages of the backlog that are older than what was sent go without RETAIN", slog.String("route", it.Route))
		}
	}
	return it, true
}
