// Package holdfast is the vocabulary of the gateway: the few types that cross
// the seams between the broker, the bridge, the storage and the modems. It
// imports the standard library only, and every other package may import it.
package holdfast

import "time"

// Message is one application message (MQTT 5, 3.3). A Message that was handed
// to another part must not be changed by anyone: all parts share it.
type Message struct {
	Topic   string
	Payload []byte
	// QoS is the quality of service it is to be delivered with: 0, 1 or 2.
	QoS byte
	// Retain is the RETAIN flag of the publisher.
	Retain bool
	// Origin names who published it: a client identifier, or a BridgeOrigin for
	// what a bridge brought down. Routes and No Local look at it.
	Origin string
	// Received is when the gateway took it, by the gateway's clock.
	Received time.Time
	// Properties are those of MQTT 5 that travel with a message; nil if none.
	Properties *Properties
}

// BridgeOrigin is the Origin of what the bridge of that name brought down. No
// client has it: MQTT strings are without U+0000 [MQTT-1.5.3-2].
func BridgeOrigin(name string) string { return "\x00bridge:" + name }

// Properties are the MQTT 5 properties that the publisher sent and that are
// forwarded unchanged (MQTT 5, 3.3.2.3).
type Properties struct {
	// PayloadUTF8 is the Payload Format Indicator with the value 1, PayloadBytes
	// with 0, which says no more than none at all. One of them at most is set.
	PayloadUTF8, PayloadBytes bool
	// Expiry is the Message Expiry Interval in seconds; HasExpiry tells a
	// present zero from an absent one.
	Expiry          uint32
	HasExpiry       bool
	ContentType     string
	ResponseTopic   string
	CorrelationData []byte
	User            []UserProperty
	// SubscriptionIDs are those of one subscriber, so that they are set in a
	// delivery to it only, never by a publisher [MQTT-3.3.4-6].
	SubscriptionIDs []uint32
}

// UserProperty is one name and value pair; names may repeat and keep their
// order (MQTT 5, 3.3.2.3.7).
type UserProperty struct{ Name, Value string }

// Size is the number of bytes that m counts for against a bound: topic,
// payload, properties, and a fixed part for what keeps it.
func (m *Message) Size() int {
	n := len(m.Topic) + len(m.Payload) + len(m.Origin) + 64
	if p := m.Properties; p != nil {
		n += len(p.ContentType) + len(p.ResponseTopic) + len(p.CorrelationData) + 4*len(p.SubscriptionIDs) + 32
		for _, u := range p.User {
			n += len(u.Name) + len(u.Value) + 32 // the two strings' own
		}
	}
	return n
}

// WithSubscriptionIDs is m for one subscriber, whose subscriptions with these
// identifiers have matched; m itself if there are none.
func (m *Message) WithSubscriptionIDs(ids []uint32) *Message {
	if len(ids) == 0 {
		return m
	}
	out, p := *m, Properties{}
	if m.Properties != nil {
		p = *m.Properties
	}
	p.SubscriptionIDs = ids
	out.Properties = &p
	return &out
}

// After is m when it has waited for that long: its Message Expiry Interval is
// what is left of it [MQTT-3.3.2-6]. ok is false if nothing is: m must not be
// sent any more [MQTT-3.3.2-5]. Seconds are counted when they are over.
func (m *Message) After(waited time.Duration) (out *Message, ok bool) {
	if m.Properties == nil || !m.Properties.HasExpiry {
		return m, true
	}
	life := time.Duration(m.Properties.Expiry) * time.Second
	if waited > life {
		return nil, false
	}
	if waited < time.Second {
		return m, true
	}
	c, p := *m, *m.Properties
	p.Expiry -= uint32(waited / time.Second)
	c.Properties = &p
	return &c, true
}

// Will is the message that is published for a client that is lost.
type Will struct {
	Msg *Message
	// Delay is the Will Delay Interval in seconds (MQTT 5, 3.1.3.2.2).
	Delay uint32
}

// Lane is one of the three lanes of a queue. Order is kept within a lane only.
type Lane byte

// The lanes. The zero value is the one that a message takes unless its route
// says otherwise.
const (
	Normal Lane = iota
	High
	Low
)

// LaneCount is the number of lanes of a queue.
const LaneCount = 3

func (l Lane) String() string {
	switch l {
	case Normal:
		return "normal"
	case High:
		return "high"
	case Low:
		return "low"
	}
	return "unknown"
}

// Lanes is a set of lanes.
type Lanes byte

// AllLanes has every lane in it.
const AllLanes Lanes = 1<<LaneCount - 1

// Has reports whether l is in the set.
func (s Lanes) Has(l Lane) bool { return s&(1<<l) != 0 }

// ItemID is the place of a message in one queue: its lane and, in the lower 60
// bits, its position. Positions of a lane start at 1, grow by one, are never
// used again, and survive restarts.
type ItemID uint64

// NewItemID makes the identifier of position pos (below 1<<60) in lane l.
func NewItemID(l Lane, pos uint64) ItemID { return ItemID(uint64(l)<<60 | pos) }

// Lane is the lane of the item.
func (id ItemID) Lane() Lane { return Lane(id >> 60) }

// Position is the place within the lane.
func (id ItemID) Position() uint64 { return uint64(id) &^ (0xf << 60) }

// Item is one message that a queue has handed out.
type Item struct {
	ID ItemID
	// Route is the bridge route that owns the message; "" in a session's queue.
	Route string
	// Msg has the topic, QoS and RETAIN flag to be sent with. Its Message Expiry
	// Interval is what was left of it when it was handed out [MQTT-3.3.2-6].
	Msg *Message
	// Again is true if the item may have been sent before: it was released, or
	// was handed out before a restart as far as anyone can know.
	Again bool
}

// Subscription is one topic filter of a session with its options (MQTT 5, 3.8.3).
type Subscription struct {
	Filter string
	QoS    byte
	// The rest is MQTT 5 only, zero for 3.1.1.
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
	Identifier        uint32
}

// SessionState is what a durable session is on disk (MQTT 5, 4.1), except for
// its queued messages, which are in the session's queue.
type SessionState struct {
	ClientID string
	// Expiry is the Session Expiry Interval in seconds; NeverExpires for an
	// MQTT 3.1.1 session with CleanSession 0.
	Expiry        uint32
	Subscriptions []Subscription
	// Username is the user whose session it is; "" if nobody knows.
	Username string
	// Inbound are the packet identifiers of QoS 2 messages received and not
	// yet released by PUBREL.
	Inbound []uint16
	// Released are the positions in the session's queue for which PUBREC has
	// come and PUBCOMP has not: only PUBREL may still be sent for them.
	Released []uint64
	// Detached: the session has had no connection since it was saved so. Away
	// is how long that has surely been when the session was read; it is not
	// looked at when it is saved.
	Detached bool
	Away     time.Duration
}

// FarSession is what the queue of a bridge keeps of the bridge's session at a far
// broker, for QoS 2 (MQTT 5, 4.4).
type FarSession struct {
	// Name tells one session from another: the far broker and the client
	// identifier there.
	Name string
	// Bound are the packet identifiers towards the far broker that are in use.
	Bound []Bound
	// Inbound are the packet identifiers of QoS 2 messages received from it and
	// not yet released by PUBREL.
	Inbound []uint16
}

// Bound is a packet identifier that belongs to a message of QoS 2, from before
// its first byte is sent until PUBCOMP.
type Bound struct {
	PacketID uint16
	Item     ItemID
	// Received: PUBREC has come, so that only PUBREL may still be sent.
	Received bool
	// Gone: the message has left the queue without PUBCOMP, as by a rule of the
	// queue. It is not looked at when a Bound is stored.
	Gone bool
}

// FarSessionChange is one change to a FarSession. Its parts are applied in this
// order and made durable together. Fields left zero change nothing.
type FarSessionChange struct {
	// Begin, if not nil, forgets everything and names the session that begins.
	Begin *string
	// Free are packet identifiers that are in use no more. That of an item is
	// free with the queue's Ack of the item, too.
	Free []uint16
	// Bind are packet identifiers of items, new or changed.
	Bind []Bound
	// ForgetInbound are packet identifiers whose PUBREL has come.
	ForgetInbound []uint16
}

// NeverExpires is the Session Expiry Interval of a session without an end
// (MQTT 5, 3.1.2.11.2).
const NeverExpires = 0xFFFFFFFF

// Delivery is one message for one durable session.
type Delivery struct {
	ClientID string
	// QoS is the lower of what was published and what was subscribed.
	QoS byte
	// Retain is the RETAIN flag that the subscriber is to see.
	Retain bool
	// SubscriptionIDs are the Subscription Identifiers of its subscriptions
	// that have matched [MQTT-3.3.4-4].
	SubscriptionIDs []uint32
}

// Inbound names a QoS 2 packet identifier of a durable session; or, if Queue is
// not empty, of the session at a far broker that belongs to the queue of that name.
type Inbound struct {
	ClientID string
	Queue    string
	PacketID uint16
}

// Publication is one accepted message with all of its durable destinations
// inside the broker. It is made safe in all of them at once, or in none.
type Publication struct {
	Msg *Message
	// Sessions are the durable sessions that it is queued for.
	Sessions []Delivery
	// Inbound, if not nil, is recorded together with the message, so that a
	// repeated PUBLISH is known after a restart.
	Inbound *Inbound
	// WillOf, if not empty, is the client identifier whose stored will this
	// message is: the stored will is removed together with its publication.
	WillOf string
	// Unrouted is set by who takes it, before done is called: no bridge wants it.
	Unrouted bool
}

// SessionChange is one change to the stored state of one durable session. Its
// parts are made durable together. Fields left zero change nothing.
type SessionChange struct {
	ClientID string
	// Reset removes everything known of the session, its queue included,
	// before the rest of the change is applied.
	Reset bool
	// Save, if not nil, stores subscriptions, expiry and whether the session
	// is detached from now on (Save.Subscriptions, Save.Expiry and
	// Save.Detached only), and creates the session if there is none.
	Save *SessionState
	// ForgetInbound are packet identifiers whose PUBREL has come.
	ForgetInbound []uint16
	// Released are positions for which PUBREC has come; they are forgotten by
	// the queue's Ack of the same position.
	Released []uint64
	// Append queues messages for this session: retained ones that a new
	// subscription asks for, or Moved ones. Each Message has the QoS and RETAIN
	// to send.
	Append []*Message
	// Moved: those of Append come out of another queue, which keeps them until
	// the change is done. All of them are stored, or the change fails with
	// ErrFull: the session's own bounds have no room; or with ErrClosed: there
	// is no such session.
	Moved bool
}

// Counts is one line of the ledger: what became of the messages of one route
// (accepted + imported = delivered + unconfirmed + queued + dropped +
// quarantined + exported + lost).
type Counts struct {
	Accepted    uint64            `json:"accepted"`
	Imported    uint64            `json:"imported,omitempty"`    // put into the queue from a file
	Delivered   uint64            `json:"delivered"`             // acknowledged by the far side
	Unconfirmed uint64            `json:"delivered_unconfirmed"` // QoS 0, written to a link believed alive
	Dropped     map[string]uint64 `json:"dropped,omitempty"`     // by reason
	Quarantined map[string]uint64 `json:"quarantined,omitempty"` // by reason
	Exported    uint64            `json:"exported,omitempty"`    // carried away in a file
	Lost        uint64            `json:"lost"`                  // corrupt on disk
	Queued      uint64            `json:"queued"`
}

// Taken is the number of messages that the route has ever had: the left side of
// the ledger.
func (c Counts) Taken() uint64 { return c.Accepted + c.Imported }

// Settled is the number of those that have left the queue, whatever the way:
// the right side of the ledger without what is queued.
func (c Counts) Settled() uint64 {
	sum := c.Delivered + c.Unconfirmed + c.Exported + c.Lost
	for _, n := range c.Dropped {
		sum += n
	}
	for _, n := range c.Quarantined {
		sum += n
	}
	return sum
}

// Balanced reports whether every message is accounted for.
func (c Counts) Balanced() bool { return c.Settled()+c.Queued == c.Taken() }

// Add adds the counts of another route.
func (c *Counts) Add(other Counts) {
	c.Accepted += other.Accepted
	c.Imported += other.Imported
	c.Delivered += other.Delivered
	c.Unconfirmed += other.Unconfirmed
	c.Exported += other.Exported
	c.Lost += other.Lost
	c.Queued += other.Queued
	add := func(to *map[string]uint64, from map[string]uint64) {
		for reason, n := range from {
			if *to == nil {
				*to = map[string]uint64{}
			}
			(*to)[reason] += n
		}
	}
	add(&c.Dropped, other.Dropped)
	add(&c.Quarantined, other.Quarantined)
}
