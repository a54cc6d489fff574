package bridge

import (
	"encoding/base64"

	"holdfast"
)

// Encoding says in which form a route out sends its payloads. Nothing decodes
// them on the way: that is the matter of whoever subscribes at the far broker.
type Encoding byte

// The encodings.
const (
	AsIs   Encoding = iota
	Base64          // where the way to the far broker cannot carry the payload as it is
	// Base64Always is over every upstream, so that nobody has to tell the two
	// apart.
	Base64Always
)

// picky is implemented by an Upstream that cannot carry every message.
type picky interface {
	// Carries says why it can never carry msg, with an error that wraps
	// holdfast.ErrRefused or holdfast.ErrTooLarge; nil if it can. It must not
	// block.
	Carries(msg *holdfast.Message) error
}

// carries says why the upstream of c cannot carry msg; nil if it can.
func (c *connection) carries(msg *holdfast.Message) error {
	if p, ok := c.up.(picky); ok {
		return p.Carries(msg)
	}
	return nil
}

// encode puts a message into the form that its route and this upstream want. If
// the upstream cannot carry that either, it says so when it is published. beside
// reports that it is to go by another one, as it is.
func (c *connection) encode(it *holdfast.Item) (beside bool) {
	e := c.b.encodings[it.Route]
	if e == Base64Always {
		c.inBase64(it)
	}
	why := c.carries(it.Msg)
	if why == nil {
		return false
	}
	if c.putBeside(*it, why) {
		return true
	}
	if e == Base64 {
		c.inBase64(it)
	}
	return false
}

func (c *connection) inBase64(it *holdfast.Item) {
	it.Msg = inBase64(it.Msg)
	c.b.status.encoded.Add(1)
}

func (e Encoding) String() string {
	switch e {
	case AsIs:
		return "none"
	case Base64:
		return "base64"
	case Base64Always:
		return "base64-always"
	}
	return "unknown"
}

// Size is the most bytes of a payload of n bytes in this form.
func (e Encoding) Size(n int) int {
	if e == AsIs {
		return n
	}
	return base64.StdEncoding.EncodedLen(n)
}

// inBase64 is msg with its payload in base64 (RFC 4648, section 4, padded): four
// bytes for each three.
func inBase64(msg *holdfast.Message) *holdfast.Message {
	m := *msg
	m.Payload = base64.StdEncoding.AppendEncode(nil, msg.Payload)
	return &m
}
