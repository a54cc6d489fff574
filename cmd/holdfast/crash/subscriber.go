package crash

import (
	"bytes"
	"context"
	"sync"
	"time"

	"holdfast"
	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
)

// subscriber is a client with a durable session. It lives through all rounds,
// online and offline in turns.
type subscriber struct {
	name    string
	address string
	filters []holdfast.Subscription
	to      *destination
	faults  *faults

	// Only run uses these; runs of one subscriber do not overlap.

	known    bool              // SUBACK has come once: the session must be there
	received map[uint16][]byte // QoS 2: answered with PUBREC and not released
}

// prepare makes the session, so that every later message must arrive.
func (s *subscriber) prepare(ctx context.Context) error {
	c, err := client.Dial(ctx, s.address, packet.Connect{ClientID: s.name})
	if err != nil {
		return err
	}
	if err := c.Subscribe(s.filters...); err != nil {
		c.Conn.Close()
		return err
	}
	s.known = true
	return c.Disconnect()
}

// run takes messages until ctx ends, over any number of connections.
func (s *subscriber) run(ctx context.Context) {
	tick := time.NewTicker(redial)
	defer tick.Stop()
	for ctx.Err() == nil {
		s.connection(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// turns is run with the session offline between its turns: it is online for
// the first duration, offline for the second, and so on, until ctx ends. A
// duration of zero is skipped.
func (s *subscriber) turns(ctx context.Context, durations []time.Duration) {
	for i, d := range durations {
		turn, cancel := context.WithTimeout(ctx, d)
		if i%2 == 0 && d > 0 {
			s.run(turn)
		}
		<-turn.Done()
		cancel()
	}
}

func (s *subscriber) connection(ctx context.Context) {
	c, err := client.Dial(ctx, s.address, packet.Connect{ClientID: s.name})
	if err != nil {
		return
	}
	var closing sync.Once
	hangUp := func() { closing.Do(func() { c.Conn.Close() }) }
	defer context.AfterFunc(ctx, hangUp)()
	defer hangUp()
	if s.known && !c.SessionPresent {
		s.faults.add("%s: the gateway has forgotten the durable session, which had its SUBACK", s.name)
		s.received = nil
		if c.Subscribe(s.filters...) != nil {
			return
		}
	}
	for {
		h, body, err := c.Next()
		if err != nil {
			return
		}
		if !s.take(c, h, body) {
			return
		}
	}
}

func (s *subscriber) take(c *client.Client, h packet.Header, body []byte) (goOn bool) {
	switch h.Type {
	case packet.PUBLISH:
		var p packet.Publish
		if err := p.Decode(h.Flags, body, packet.V311); err != nil {
			s.faults.add("%s: %v", s.name, err)
			return false
		}
		switch p.QoS {
		case 0:
			s.to.arrived(p.Payload)
			return true
		case 1:
			s.to.arrived(p.Payload)
			return c.Ack(packet.PUBACK, p.PacketID) == nil
		}
		return s.exactlyOnce(c, &p)
	case packet.PUBREL:
		var a packet.Ack
		if err := a.Decode(body, packet.V311); err != nil {
			s.faults.add("%s: %v", s.name, err)
			return false
		}
		delete(s.received, a.PacketID)
		return c.Ack(packet.PUBCOMP, a.PacketID) == nil
	default:
		s.faults.add("%s: %v came, which nobody asked for", s.name, h.Type)
		return false
	}
}

// exactlyOnce is the receiver's part of QoS 2 (MQTT 3.1.1, 4.3.3): until PUBREL
// a PUBLISH with the same identifier is the same message, and must be.
func (s *subscriber) exactlyOnce(c *client.Client, p *packet.Publish) bool {
	before, again := s.received[p.PacketID]
	switch {
	case !again:
		s.to.arrived(p.Payload)
		if s.received == nil {
			s.received = map[uint16][]byte{}
		}
		s.received[p.PacketID] = bytes.Clone(p.Payload)
	case !bytes.Equal(before, p.Payload):
		s.faults.add("%s: packet identifier %d was used for another message before its PUBREL: %.20q, now %.20q", s.name, p.PacketID, before, p.Payload)
	case !p.Dup:
		s.faults.add("%s: packet identifier %d was sent again without DUP [MQTT-3.3.1-1]", s.name, p.PacketID)
	}
	return c.Ack(packet.PUBREC, p.PacketID) == nil
}
