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

// toldAliases are the topic aliases that were told to a client. What publishers
// append to out and what is taken from the session are two streams of packets; the
// aliases are the same in both. On their way to the socket a packet of the session
// may overtake what is in out since that was taken last, never the other way round.
// So the session uses an alias alone when the packet that has set it is before its
// own, and until then sets it once more. Guarded by conn.mu.
type toldAliases struct {
	next, last uint16
	byTopic    map[string]toldAlias
	// takes counts how often out was taken to be written.
	takes   uint64
	scratch [2]packet.Properties // by stream; only who has the pen uses the session's
}

type toldAlias struct {
	number uint16
	// from is the count of takes from which on the client knows it before any
	// packet of the session.
	from uint64
}

// stream is a way of PUBLISH packets to a client.
type stream byte

const (
	fromPublishers stream = iota // to out, with conn.mu
	fromSession                  // by who has the pen, without conn.mu
)

// newToldAliases has room for most topics; nil if that is 0.
func newToldAliases(most uint16) *toldAliases {
	if most == 0 {
		return nil
	}
	return &toldAliases{next: 1, last: most, byTopic: make(map[string]toldAlias)}
}

// use returns the alias of a topic, 0 if there is none, and whether the client
// knows it already.
func (a *toldAliases) use(topic string, s stream) (alias uint16, known bool) {
	if told, ok := a.byTopic[topic]; ok {
		return told.number, s == fromPublishers || told.from <= a.takes
	}
	if a.next > a.last {
		return 0, false
	}
	told := toldAlias{number: a.next, from: a.takes}
	if s == fromPublishers {
		told.from++
	}
	a.next++
	a.byTopic[topic] = told
	return told.number, false
}

// alias is use for the connection's own, if it has any.
func (c *conn) alias(topic string, s stream) (alias uint16, known bool) {
	if c.aliases == nil || len(topic) < minAliasedTopic || len(topic) > maxAliasedTopic {
		return 0, false
	}
	if s == fromSession {
		c.mu.Lock()
		defer c.mu.Unlock()
	}
	return c.aliases.use(topic, s)
}

// appendPublish appends p, whose topic is the same as topic, as this client
// takes it. ok is false if it is larger than the client takes: nothing is
// appended, and it counts as sent [MQTT-3.1.2-25].
func (c *conn) appendPublish(dst []byte, p *packet.Publish, topic string, s stream) (out []byte, ok bool, err error) {
	aliased := true
	if c.maxPacket > 0 {
		size := p.Size(c.version)
		if !c.takes(size) {
			c.srv.stats.droppedTooLarge.Add(1)
			return dst, false, nil
		}
		aliased = c.takes(size + aliasCost)
	}
	var alias uint16
	var known bool
	if aliased {
		alias, known = c.alias(topic, s)
	}
	if alias == 0 {
		out, err = p.Append(dst, c.version)
		return out, err == nil, err
	}
	scratch := &c.aliases.scratch[s]
	*scratch = packet.Properties{}
	if p.Properties != nil {
		*scratch = *p.Properties
	}
	scratch.TopicAlias = alias
	short := *p
	if short.Properties = scratch; known {
		short.Topic = nil
	}
	out, err = short.Append(dst, c.version)
	return out, err == nil, err
}
