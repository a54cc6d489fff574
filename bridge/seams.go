package bridge

import (
	"context"
	"net"

	"holdfast"
)

// Queue is the store-and-forward queue of one bridge. Its messages have the
// topic, QoS and RETAIN flag to be used upstream.
type Queue interface {
	// Next waits for the oldest item of the most urgent lane in lanes that was
	// not handed out yet, and hands it out. It must return an item only when
	// it is on disk, or when its publisher is acknowledged after this Ack at the
	// earliest. It returns ctx.Err() or holdfast.ErrClosed when it ends.
	// After any other error, and after ErrClosed, the bridge asks again a
	// second later.
	Next(ctx context.Context, lanes holdfast.Lanes) (holdfast.Item, error)
	// Poll is Next without the waiting; ok is false if there is no such item now.
	Poll(lanes holdfast.Lanes) (it holdfast.Item, ok bool, err error)
	// Ack says that the far side has the item (for QoS 0: that it was written
	// to a link believed alive). It may be called in any order and must not
	// block; the item is never handed out again by this process.
	Ack(id holdfast.ItemID)
	// Release gives items back, unsent again: they come first, in their old
	// order, with Again set. It must have happened when Release returns.
	Release(ids ...holdfast.ItemID)
	// Drop takes the item out of the queue, counted as dropped under reason.
	Drop(id holdfast.ItemID, reason string)
	// Quarantine takes the item out of the queue and keeps it aside, counted
	// under reason.
	Quarantine(id holdfast.ItemID, reason string)
}

// FreshQueue is a Queue that can be read at two places, for Options.LiveFirst.
type FreshQueue interface {
	Queue
	// Mark lets PollFresh begin behind all that is in the queue now, by lane, and
	// returns that place. Below settled something was acknowledged behind a
	// message that was not, perhaps by an earlier process.
	Mark() (end, settled [holdfast.LaneCount]uint64)
	// PollFresh is Poll for what is behind Mark. What it hands out Next and Poll
	// leave out; what was released it does not hand out again. It may leave out
	// what it would have to read from disk.
	PollFresh(lanes holdfast.Lanes) (it holdfast.Item, ok bool, err error)
	// Len is the number of items that have not ended, handed out or not.
	Len() int
}

// ExactQueue is a Queue that remembers packet identifiers, for Options.FarSession.
type ExactQueue interface {
	Queue
	// FarSession is what is known, in the order of lanes and positions.
	FarSession() holdfast.FarSession
	// ChangeFarSession changes it. It must not block; done is called exactly once,
	// on any goroutine, also before ChangeFarSession returns: with nil when this
	// change and all before it are on disk. FarSession knows it at once.
	ChangeFarSession(c *holdfast.FarSessionChange, done func(error))
	// Take is Poll for one item, with Again set. It is called before Mark.
	Take(id holdfast.ItemID) (it holdfast.Item, ok bool, err error)
}

// ExactLocal is a Local that remembers packet identifiers, for Options.FarSession.
type ExactLocal interface {
	Local
	// PublishOnce is Publish of a message that came with QoS 2 and this packet
	// identifier. When done is called with nil, both are on disk, in one
	// transaction, and FarSession of the bridge's queue has the identifier.
	PublishOnce(msg *holdfast.Message, id uint16, done func(error))
}

// Upstream is one connection to a far broker. It is never reused: after Done
// is closed a new one is made by Connect.
type Upstream interface {
	// Publish sends msg and returns without waiting for the answer. done is
	// called exactly once, on any goroutine, also before Publish returns: nil
	// when the far broker has acknowledged it on this connection (PUBACK,
	// PUBCOMP; for QoS 0 when it was written); an error that wraps
	// holdfast.ErrRefused or holdfast.ErrTooLarge if this message can never go
	// this way: it is put into quarantine at once; any other error if its fate
	// is unknown: the bridge then closes the connection and sends everything
	// unacknowledged again on the next one, as MQTT wants it. again says that
	// it may have been sent before.
	Publish(msg *holdfast.Message, again bool, done func(error))
	// Subscribe asks for a filter and returns when the far broker has granted
	// it, or an error in words that a person can act on. If the error wraps
	// holdfast.ErrRefused, the connection is kept without the subscription.
	Subscribe(ctx context.Context, filter string, qos byte) error
	// Window is the most publishes that may wait for their acknowledgement at
	// once; 0 if the connection has no bound of its own.
	Window() int
	// Done is closed when the connection is lost or closed; every done of a
	// publish has then been called or will be without delay. Err says why.
	Done() <-chan struct{}
	Err() error
	// Close ends the connection and waits for its goroutines. When it returns,
	// every done was called; one that comes later is ignored.
	Close() error
}

// batcher is an Upstream that takes and answers many publishes at a time.
type batcher interface {
	Upstream
	// Answers says who is told the ends of what PublishMore has taken, each exactly once
	// and as done of Publish would be; what tell is given is good until it returns. It
	// is called once, before PublishMore. tell is called on any goroutine, on several
	// at once too, but not by PublishMore.
	Answers(tell func([]answer))
	// PublishMore is Publish of the message of f, which may stay here until Publish or
	// Flush is called. If it returns an error, that is the end of it.
	PublishMore(f *flight) error
	// Flush sends what has stayed here.
	Flush()
}

// exactUpstream is an Upstream over which a message can go exactly once, if the
// session at the far broker outlives the connection.
type exactUpstream interface {
	Upstream
	// Exactly reports whether the far broker takes QoS 2 in a session that
	// outlives the connection, and whether it has kept that session (CONNACK).
	// If it does, no other publish has one of the identifiers 1 to exactIDs.
	Exactly() (ok, present bool)
	// PublishExactly is Publish with QoS 2 and this packet identifier; again is the
	// DUP flag. received is called instead of done: with nil when PUBREC has come;
	// then nothing more is sent for it before Release.
	PublishExactly(id uint16, msg *holdfast.Message, again bool, received func(error))
	// Release sends PUBREL, also for an identifier that was not used on this
	// connection. done is called exactly once, like that of Publish: with nil when
	// PUBCOMP has come.
	Release(id uint16, done func(error))
	// Begin says who takes what comes with QoS 2. It may be called once, before
	// everything else: until the first call nothing of that is looked at, and if
	// that is another one it is not answered on this connection.
	Begin(in inbox)
}

// inbox takes what comes with QoS 2 in a session that outlives the connection. Its
// methods are called one at a time, in the order of arrival, and may be held up
// like Receive.
type inbox interface {
	// arrived is Receive with the packet identifier; ack sends PUBREC.
	arrived(id uint16, msg *holdfast.Message, again bool, ack func())
	// released is PUBREL: pubcomp may be called when the identifier is forgotten,
	// on any goroutine.
	released(id uint16, pubcomp func())
}

// Receive is called for each message from upstream, one at a time, in order.
// The message must be acknowledged upstream only when ack was called (P3); ack
// may be called on any goroutine, does not block, and is harmless after the
// connection ended. A nil ack says that it was acknowledged before, as by the client
// inside a module: it does not come again. again is the DUP flag. Receive returns without delay unless
// the local broker is far behind; then it may be held up for a few seconds.
type Receive func(msg *holdfast.Message, again bool, ack func())

// Connect makes one connection. It must give up when ctx ends, and its error
// must say in words what to do. receive may be called before Connect returns.
type Connect func(ctx context.Context, receive Receive) (Upstream, error)

// Dialer makes the network connection under an Upstream: over the board's own
// network, over one interface of it, or through a socket inside a modem.
// network is "tcp", address host:port; the host may be a name, and who resolves
// it, the board or the module, is the Dialer's matter. It must return soon after
// ctx has ended. Close of what it returns must end a Read or Write that waits.
// Where the wire has no deadlines, their setters must do nothing.
// TLS and WebSocket, where wanted, are put on top of it. Its error must let
// errors.As and errors.Is find net.DNSError and the syscall errors if there are
// any: they are put into words by the caller.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Local publishes into the local broker. done is called exactly once, on any
// goroutine, also before Publish returns: with nil when the broker has accepted
// the message under P1; with an error that wraps holdfast.ErrRefused or
// holdfast.ErrTooLarge if it never will: the message is then acknowledged
// upstream, counted as dropped and logged; with any other error if it may take
// it later: it is then offered again. Publish must not block.
type Local interface {
	Publish(msg *holdfast.Message, done func(error))
}
