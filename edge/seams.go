package edge

import "holdfast"

// Sink takes accepted messages and makes them safe. The broker calls it for
// every PUBLISH that is allowed, whether anyone is subscribed or not: routes of
// bridges hang behind it.
type Sink interface {
	// Accept must decide before it returns whether every durable destination
	// of p can take it. A non-nil error means that it was refused: it was
	// stored nowhere, and done is never called. After a nil error done must be
	// called exactly once: with nil when p is on disk in all of its durable
	// destinations or was acknowledged by them (at once, if there are none), else with the reason why
	// nobody can promise that.
	//
	// Accept must not block, and may be called by many goroutines at a time;
	// calls of one goroutine must keep their order in every queue. done runs on
	// any goroutine, also before Accept has returned, and does not block.
	Accept(p *holdfast.Publication, done func(error)) error
}

// Store keeps what must outlive the process: sessions, wills, retained messages.
type Store interface {
	// Sessions returns every stored session. It is called once, before the
	// first listener opens.
	Sessions() ([]holdfast.SessionState, error)
	// Wills returns the stored wills by client identifier; called once, like Sessions.
	Wills() (map[string]*holdfast.Will, error)
	// Retained returns every stored retained message; called once, like Sessions.
	// Of one that expires, time.Since(Received) must be how long it has waited.
	Retained() ([]*holdfast.Message, error)
	// Outbox returns the queue of a durable session; the same one for the same
	// client identifier, until the session is reset.
	Outbox(clientID string) (Outbox, error)
	// Change applies c. It must not block; done is called exactly once, on any
	// goroutine, with nil when all of c is on disk. Changes and publications
	// of one goroutine must be applied in the order of the calls. With Save.Detached the absence of the session begins.
	Change(c *holdfast.SessionChange, done func(error))
	// SetWill stores the will of a client, or removes it if will is nil; the
	// rule for done is that of Change.
	SetWill(clientID string, will *holdfast.Will, done func(error))
	// ForgetRetained removes retained messages that have expired. It must not
	// block; what it cannot remove may come again from Retained. Publications of
	// the same topics are applied in the order of the calls.
	ForgetRetained(topics ...string)
}

// Outbox is the queue of one session: it hands out messages oldest first, each
// once until it is released. Positions start at 1 (holdfast.ItemID).
type Outbox interface {
	// TryNext returns the next item to send; ok is false if there is none now.
	// It may read from disk, so the committer must not call it. An item of
	// QoS 0 or 1 may be handed out before it is on disk, one of QoS 2 must not.
	TryNext() (it holdfast.Item, ok bool, err error)
	// Ack says that the subscriber has it (PUBACK, PUBCOMP). It must not block.
	Ack(id holdfast.ItemID)
	// Release gives items back that were handed out and not acknowledged; they
	// come again, in their old order, before all others, with Again set.
	Release(ids ...holdfast.ItemID)
	// Notify sets the function to be called when TryNext may have something;
	// nil for none. It is called on any goroutine and does not block.
	Notify(ready func())
	// Len is the number of items that were not acknowledged.
	Len() int
}

// Access decides who may connect, and what as.
type Access interface {
	// Connect returns what the client may do, or why it may not connect: a
	// *Refusal. It is called by the connection's goroutine and may take some
	// seconds, but must return soon after stop was closed.
	Connect(l *Login, stop <-chan struct{}) (Rights, error)
	// Review is asked about each client that is connected when Access has
	// changed (Server.ReviewAccess): what it may do from now on, or an error if
	// it may stay no longer. was is what Connect or Review has returned before.
	// It must not block.
	Review(l *Login, was Rights) (Rights, error)
}

// Rights are what one client may do; nil means everything. The methods are
// called by many goroutines and must not block.
type Rights interface {
	// Publish and Receive report whether the client may publish to a topic name,
	// and be sent what was published to it.
	Publish(name string) bool
	Receive(name string) bool
	// Subscribe reports whether the client may subscribe to a filter; that of a
	// shared subscription comes without "$share/NAME/".
	Subscribe(filter string) bool
}
