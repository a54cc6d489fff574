package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"holdfast"
)

// Exactly once (Options.FarSession), for messages of QoS 2 over the one upstream
// of a bridge whose session at the far broker outlives connections on both sides:
//
//	save   the packet identifier belongs to this message     ChangeFarSession
//	send   PUBLISH
//	       PUBREC comes
//	save   it has come                                       ChangeFarSession
//	send   PUBREL
//	       PUBCOMP comes
//	save   the message has left the queue, the identifier is free; one transaction
//
// Whatever was sent before a crash is therefore sent again with the identifier
// that it had, and by it the far broker knows it. What has an identifier goes
// before all else on a new connection [MQTT-4.4.0-1].
//
// Such messages have identifiers of their own, 1 to exactIDs. An identifier may be
// in use at the far broker although nobody here knows: the message was dropped
// meanwhile, or the store has lost its tail. A new message would then be taken for
// a repetition, and be lost. So PUBREL is sent for those of messages that are
// gone, and, on the first connection of a process, for all that are free; they are
// used again when PUBCOMP has come. That is what their number is bounded for.
//
// If the far broker has lost its session, nobody knows what it had: the messages
// are sent anew and may come twice. The same holds if the disk takes nothing.
const exactIDs = 256

// exactly is what goes exactly once on one connection.
type exactly struct {
	c     *connection
	up    exactUpstream
	queue ExactQueue
	// line has the flights in the order in which they are sent: each waits until
	// its identifier is saved, and those behind wait with it.
	line  *fifo[*flight]
	ended chan struct{} // closed when inTurn has ended

	mu   sync.Mutex
	used [exactIDs + 1]bool // by identifier
	// stored: the queue knows it, or has been told.
	stored [exactIDs + 1]bool
	items  map[holdfast.ItemID]holdfast.Bound
}

// errMended ends a connection on which nothing goes exactly once: what it needs on
// disk could not be stored.
var errMended = errors.New("the store works again: messages of QoS 2 need a new connection to go exactly once")

// beginExactly makes sure that the queue and the far broker mean the same session,
// before anything else is sent or looked at. It returns nil, and perhaps why, if
// nothing goes exactly once over up: what comes with QoS 2 is then left at the far
// broker, if up is made for exactly once.
func (b *Bridge) beginExactly(ctx context.Context, up Upstream, dl *downlink) (*exactly, error) {
	queue, ok := b.queue.(ExactQueue)
	if !ok {
		return nil, nil
	}
	exact, ok := up.(exactUpstream)
	if ok {
		ok, _ = exact.Exactly()
	}
	x := &exactly{up: exact, queue: queue, line: newFifo[*flight](), ended: make(chan struct{}), items: map[holdfast.ItemID]holdfast.Bound{}}
	if b.farSession == "" || !ok {
		if b.farSession != "" {
			b.exactClean.Store(false) // what has an identifier goes without it
			b.log.Warn("messages of QoS 2 may come twice: this upstream does not take them exactly once")
		}
		if queue.FarSession().Name == "" {
			return nil, nil
		}
		// Its identifiers are worth nothing once nobody has looked at them.
		return nil, x.save(ctx, &holdfast.FarSessionChange{Begin: new(string)})
	}
	far, change := queue.FarSession(), &holdfast.FarSessionChange{}
	lost := b.farLost.Load()
	if lost || far.Name != b.farSession {
		change.Begin = &b.farSession
	}
	if !lost && far.Name != b.farSession {
		b.countUnsure(far)
	}
	// Also without a change: what earlier connections have changed must be on
	// disk before it is acted upon.
	if err := x.save(ctx, change); err != nil {
		b.exactClean.Store(false) // as above
		return nil, fmt.Errorf("remember the session at the far broker: %w", err)
	}
	if lost {
		b.farLost.Store(false)
		b.exactClean.Store(true)
	}
	b.incoming.know(queue.FarSession().Inbound)
	exact.Begin(dl)
	return x, nil
}

// noteLoss is called with each connection as soon as there is one: if it has begun
// a new session at the far broker, nobody is told so again, and the next one must
// not take that for the old one.
func (b *Bridge) noteLoss(up Upstream) (lost bool) {
	x, ok := up.(exactUpstream)
	if b.farSession == "" || !ok {
		return false
	}
	if _, present := x.Exactly(); present {
		return false
	}
	if !b.farLost.Swap(true) {
		b.countUnsure(b.queue.(ExactQueue).FarSession())
	}
	return true
}

// countUnsure tells of the messages that were sent in a session that is no more.
func (b *Bridge) countUnsure(far holdfast.FarSession) {
	unsure := 0
	for _, bound := range far.Bound {
		if !bound.Gone {
			unsure++
		}
	}
	if unsure > 0 {
		b.status.unsure.Add(uint64(unsure))
		b.log.Warn("the far broker does not know the session that messages of QoS 2 were sent in: they are sent again and may come twice",
			slog.Int("messages", unsure))
	}
}

// save is ChangeFarSession, and waits for it.
func (x *exactly) save(ctx context.Context, change *holdfast.FarSessionChange) error {
	done := make(chan error, 1)
	x.queue.ChangeFarSession(change, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settle is called before anything else is sent. It sends again what has an
// identifier, and frees the others.
func (x *exactly) settle() {
	go x.inTurn()
	x.mu.Lock()
	bound := x.queue.FarSession().Bound
	// Identifiers beyond the bound are not ours, whoever has put them there.
	bound = slices.DeleteFunc(bound, func(b holdfast.Bound) bool { return b.PacketID == 0 || b.PacketID > exactIDs })
	for _, b := range bound {
		x.used[b.PacketID], x.stored[b.PacketID] = true, true
		if !b.Gone {
			x.items[b.Item] = b
		}
	}
	var doubtful []uint16
	if !x.c.b.exactClean.Load() {
		for id := uint16(1); id <= exactIDs; id++ {
			if !x.used[id] {
				x.used[id] = true
				doubtful = append(doubtful, id)
			}
		}
	}
	x.mu.Unlock()
	for _, b := range bound {
		if b.Gone {
			doubtful = append(doubtful, b.PacketID)
			continue
		}
		// Also if the data plan holds its lane: it is on its way already, and held it
		// would keep its identifier from those that may go.
		it, ok, err := x.queue.Take(b.Item)
		if err != nil {
			x.c.b.log.Error("a message of QoS 2 cannot be read", slog.Any("error", err))
		}
		if ok { // if not, it comes in its turn, and keeps its identifier
			x.c.send(it)
		}
	}
	x.clean(doubtful)
}

// clean has the far broker forget identifiers that no message has.
func (x *exactly) clean(ids []uint16) {
	left := len(ids) // guarded by mu, once the first is released
	if left == 0 {
		x.c.b.exactClean.Store(true)
		return
	}
	c := x.c
	c.mu.Lock()
	c.unproven = true
	if c.unanswered += left; c.unanswered == left {
		c.progress = time.Now()
	}
	c.mu.Unlock()
	for _, id := range ids {
		x.up.Release(id, func(err error) {
			if err != nil {
				return // the connection has ended
			}
			c.mu.Lock()
			c.unanswered, c.progress, c.unproven = c.unanswered-1, time.Now(), false
			c.mu.Unlock()
			x.free(id)
			x.mu.Lock()
			defer x.mu.Unlock()
			if left--; left == 0 {
				x.c.b.exactClean.Store(true)
			}
		})
	}
}

// free lets an identifier be used again, here and on disk.
func (x *exactly) free(id uint16) {
	x.mu.Lock()
	stored := x.stored[id]
	x.stored[id] = false
	x.mu.Unlock()
	if stored {
		x.queue.ChangeFarSession(&holdfast.FarSessionChange{Free: []uint16{id}}, func(error) {}) // at worst it is freed once more
	}
	x.unuse(id)
}

func (x *exactly) unuse(id uint16) {
	x.mu.Lock()
	x.used[id], x.stored[id] = false, false
	x.mu.Unlock()
	signal(x.c.room)
}

// bind gives f its identifier, which it may have had before, and puts it into the
// line. It waits for one to be free, and reports false if the connection has ended
// before.
func (x *exactly) bind(f *flight) bool {
	if f.item.Msg.QoS == 2 && !x.c.await(func() bool { return x.identify(f) }) {
		return false
	}
	if f.packetID > 0 && !f.bound {
		f.saved = make(chan error, 1)
		b := holdfast.Bound{PacketID: f.packetID, Item: f.item.ID}
		x.queue.ChangeFarSession(&holdfast.FarSessionChange{Bind: []holdfast.Bound{b}}, func(err error) { f.saved <- err })
	}
	x.line.push(f)
	return true
}

// identify takes an identifier for f.
func (x *exactly) identify(f *flight) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if b, ok := x.items[f.item.ID]; ok {
		f.packetID, f.bound, f.received = b.PacketID, true, b.Received
		delete(x.items, f.item.ID)
		return true
	}
	for id := uint16(1); id <= exactIDs; id++ {
		if !x.used[id] {
			x.used[id], x.stored[id] = true, true
			f.packetID = id
			return true
		}
	}
	return false
}

// inTurn sends what is in the line, until the connection ends.
func (x *exactly) inTurn() {
	defer close(x.ended)
	for {
		f, ok := x.line.pop(x.c.ctx.Done())
		if !ok {
			return
		}
		if f.saved != nil {
			select {
			case err := <-f.saved:
				if err != nil {
					x.doubt(err)
					x.free(f.packetID)
					f.packetID = 0
				}
			case <-x.c.ctx.Done():
				return
			}
		}
		x.c.publish(f)
	}
}

// doubt notes that a message may come twice because something was not saved.
func (x *exactly) doubt(err error) {
	if x.c.b.status.unsure.Add(1) == 1 {
		x.c.b.log.Error("messages of QoS 2 may come twice: what is known of them cannot be stored", slog.Any("error", err))
	}
}

// publish sends f, or what is left of its delivery.
func (x *exactly) publish(f *flight) {
	if f.received {
		x.release(f)
		return
	}
	x.up.PublishExactly(f.packetID, f.item.Msg, f.bound, func(err error) { x.answered(f, err) })
}

// answered is PUBREC, or the end of the connection.
func (x *exactly) answered(f *flight, err error) {
	if err == nil {
		x.c.mu.Lock()
		f.received, x.c.progress = true, time.Now()
		x.c.mu.Unlock()
		b := holdfast.Bound{PacketID: f.packetID, Item: f.item.ID, Received: true}
		x.queue.ChangeFarSession(&holdfast.FarSessionChange{Bind: []holdfast.Bound{b}}, func(err error) {
			if err != nil {
				x.doubt(err) // only if the process ends before PUBCOMP
			}
			x.release(f)
		})
		return
	}
	x.c.finish(f, err)
	if errors.Is(err, holdfast.ErrRefused) || errors.Is(err, holdfast.ErrTooLarge) || errors.Is(err, errLater) {
		if errors.Is(err, errInUse) {
			x.c.b.exactClean.Store(false)
		}
		x.free(f.packetID) // the far broker has nothing of it
	}
}

func (x *exactly) release(f *flight) {
	x.up.Release(f.packetID, func(err error) {
		x.c.finish(f, err) // its Ack frees the identifier on disk
		if err == nil {
			x.unuse(f.packetID)
		}
	})
}
