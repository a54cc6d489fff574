package edge

import (
	"fmt"

	"holdfast/edge/packet"
)

const (
	// maxAliases is how many topic aliases a client may set, and how many are
	// used towards it at most.
	maxAliases = 32
	// maxAliasBytes bounds the topics behind the aliases that a client sets.
	maxAliasBytes = 64 << 10
	// aliasCost is what an alias adds to a packet at most: its three bytes, and
	// one each by which the two lengths in front may grow.
	aliasCost = 5
	// An alias costs four bytes, nearly always. Shorter topics do not gain by one, and longer
	// ones would be kept in memory for it.
	minAliasedTopic, maxAliasedTopic = 5, 1024
)

// heardAliases are the topic aliases that a client has set on its connection
// (MQTT 5, 3.3.2.3.4). Only its reader uses them.
type heardAliases struct {
	topics []string // by alias - 1
	bytes  int
}

// resolve returns the topic name that a PUBLISH means, given the one in it, and
// notes its alias.
func (h *heardAliases) resolve(topic string, alias uint16) (string, error) {
	switch {
	case alias == 0:
		return topic, nil
	case alias > maxAliases:
		return "", &packet.Error{Code: packet.TopicAliasInvalid,
			Text: fmt.Sprintf("a topic alias above the maximum of %d [MQTT-3.3.2-9]", maxAliases)}
	}
	if h.topics == nil {
		h.topics = make([]string, maxAliases)
	}
	known := &h.topics[alias-1]
	if topic == "" {
		if *known == "" {
			return "", &packet.Error{Code: packet.ProtocolError, Text: "a topic alias that was never set (MQTT 5, 3.3.2.3.4)"}
		}
		return *known, nil
	}
	h.bytes += len(topic) - len(*known)
	if h.bytes > maxAliasBytes {
		return "", &packet.Error{Code: packet.QuotaExceeded,
			Text: fmt.Sprintf("the topics behind the topic aliases have more than %d bytes", maxAliasBytes)}
	}
	*known = topic
	return topic, nil
}

// toldAliases are the topic aliases that were told to a client in one of the
// two streams of packets to it: what publishers append, and what is taken from
// the session by who writes. Each stream has its own numbers, since packets of one
// may overtake those of the other on their way to the socket.
type toldAliases struct {
	next, last uint16
	byTopic    map[string]uint16
	scratch    packet.Properties
}

// newToldAliases has the numbers from first to last; nil if there are none.
func newToldAliases(first, last uint16) *toldAliases {
	if last < first {
		return nil
	}
	return &toldAliases{next: first, last: last, byTopic: make(map[string]uint16)}
}

// use returns the alias of a topic, 0 if there is none, and whether the client
// knows it already.
func (a *toldAliases) use(topic string) (alias uint16, known bool) {
	if a == nil || len(topic) < minAliasedTopic || len(topic) > maxAliasedTopic {
		return 0, false
	}
	if alias, known = a.byTopic[topic]; known || a.next > a.last {
		return alias, known
	}
	alias = a.next
	a.next++
	a.byTopic[topic] = alias
	return alias, false
}

// appendPublish appends p, whose topic is the same as topic, as this client
// takes it. ok is false if it is larger than the client takes: nothing is
// appended, and it counts as sent [MQTT-3.1.2-25].
func (c *conn) appendPublish(dst []byte, p *packet.Publish, topic string, a *toldAliases) (out []byte, ok bool, err error) {
	if c.maxPacket > 0 {
		switch size := p.Size(c.version); {
		case !c.takes(size):
			c.srv.stats.droppedTooLarge.Add(1)
			return dst, false, nil
		case !c.takes(size + aliasCost):
			a = nil
		}
	}
	alias, known := a.use(topic)
	if alias == 0 {
		out, err = p.Append(dst, c.version)
		return out, err == nil, err
	}
	a.scratch = packet.Properties{}
	if p.Properties != nil {
		a.scratch = *p.Properties
	}
	a.scratch.TopicAlias = alias
	aliased := *p
	if aliased.Properties = &a.scratch; known {
		aliased.Topic = nil
	}
	out, err = aliased.Append(dst, c.version)
	return out, err == nil, err
}
