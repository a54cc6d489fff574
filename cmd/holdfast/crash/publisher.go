package crash

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
)

// redial is how often a client tries to come back.
const redial = 5 * time.Millisecond

// publisher is a client as MQTT wants it: what was not acknowledged is sent
// again with DUP, in its old order and under its old identifier, after every
// reconnect; with QoS 2 its session is durable. It lives through all rounds.
type publisher struct {
	name    string
	qos     byte
	retain  bool
	durable bool
	window  uint64
	address string
	topic   func(seq uint64) string
	body    func(seq uint64) []byte
	faults  *faults

	mu       sync.Mutex
	next     uint64   // the next new message, from 1; guarded by mu
	inflight []flight // sent and not settled, oldest first; guarded by mu
	acked    uint64   // all up to it have their PUBACK or PUBREC; guarded by mu
	known    bool     // the broker has accepted the session once; guarded by mu
	resent   uint64   // guarded by mu
}

type flight struct {
	seq      uint64
	received bool // QoS 2: PUBREC has come
}

// pace is how a publisher sends in one round.
type pace struct {
	every time.Duration
	burst int
	// hangUp: after so many messages it drops its connection by itself.
	hangUp int
	// settle: send nothing new, and end when everything is acknowledged.
	settle bool
}

// packetID binds the identifier to the number. Identifiers come round soon, so
// that one that is not forgotten in time would be noticed.
func (p *publisher) packetID(seq uint64) uint16 { return uint16(seq%(2*p.window)) + 1 }

func (p *publisher) ackedUpTo() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked
}

// figures are the messages sent, and those that were sent again.
func (p *publisher) figures() (sent, resent uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next - 1, p.resent
}

// run publishes until leave ends; it then waits for the end of its connection,
// which comes with the gateway's, so that no acknowledgement on the way is
// missed. abort ends the connection itself.
func (p *publisher) run(leave, abort context.Context, pc pace) {
	tick := time.NewTicker(redial)
	defer tick.Stop()
	for leave.Err() == nil {
		if p.connection(leave, abort, pc) {
			return
		}
		select {
		case <-tick.C:
		case <-leave.Done():
		}
	}
}

// connection is one connection from CONNECT to its end. settled is true if
// there is nothing left to do.
func (p *publisher) connection(leave, abort context.Context, pc pace) (settled bool) {
	c, err := client.Dial(abort, p.address, packet.Connect{ClientID: p.name, CleanStart: !p.durable})
	if err != nil {
		return false // the gateway is away; run tries again
	}
	defer context.AfterFunc(abort, func() { c.Conn.Close() })()
	defer c.Conn.Close()
	p.mu.Lock()
	if p.durable && p.known && !c.SessionPresent {
		p.faults.add("%s: the broker has forgotten the session of a QoS %d publisher", p.name, p.qos)
	}
	p.known = true
	p.mu.Unlock()

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.read(c)
		c.Conn.Close()
	}()
	defer func() { <-ended }()
	if err := c.Send(p.again(), nil); err != nil {
		return false
	}
	tick := time.NewTicker(pc.every)
	defer tick.Stop()
	left, sent := leave.Done(), 0
	for {
		select {
		case <-ended:
			return false
		case <-left:
			if pc.settle || p.qos == 0 {
				c.Conn.Close()
				return true
			}
			left = nil
			pc.burst = 0 // nothing new; the end comes from the other side
		case <-tick.C:
			if pc.settle && p.idle() {
				c.Disconnect()
				return true
			}
			if pc.settle || pc.burst == 0 {
				continue
			}
			out, n, err := p.fresh(pc.burst)
			if err := c.Send(out, err); err != nil {
				c.Conn.Close()
				return false
			}
			if sent += n; pc.hangUp > 0 && sent >= pc.hangUp {
				return false
			}
		}
	}
}

func (p *publisher) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.inflight) == 0
}

// again makes what has to be sent first on a new connection: [MQTT-4.4.0-1].
func (p *publisher) again() (out []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.inflight {
		p.resent++
		if f.received {
			out = appendAck(out, packet.PUBREL, p.packetID(f.seq))
			continue
		}
		out, _ = p.append(out, f.seq, true)
	}
	return out
}

// fresh makes up to n new messages, as far as the window allows.
func (p *publisher) fresh(n int) (out []byte, made int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; made < n; made++ {
		if len(p.inflight) > 0 && p.next-p.inflight[0].seq >= p.window {
			break
		}
		if out, err = p.append(out, p.next, false); err != nil {
			return nil, made, err
		}
		if p.qos > 0 {
			p.inflight = append(p.inflight, flight{seq: p.next})
		}
		p.next++
	}
	return out, made, nil
}

func (p *publisher) append(out []byte, seq uint64, dup bool) ([]byte, error) {
	q := packet.Publish{Topic: []byte(p.topic(seq)), Payload: p.body(seq), QoS: p.qos, Retain: p.retain}
	if p.qos > 0 {
		q.PacketID, q.Dup = p.packetID(seq), dup
	}
	return q.Append(out, packet.V311)
}

func appendAck(out []byte, t packet.Type, id uint16) []byte {
	a := packet.Ack{PacketID: id}
	return a.Append(out, t, packet.V311)
}

// read takes acknowledgements until the connection ends.
func (p *publisher) read(c *client.Client) {
	for {
		h, body, err := c.Next()
		if err != nil {
			return
		}
		var a packet.Ack
		if err := a.Decode(body, packet.V311); err != nil {
			p.faults.add("%s: %v from the broker: %v", p.name, h.Type, err)
			return
		}
		reply, err := p.acknowledged(h.Type, a.PacketID)
		if err != nil {
			p.faults.add("%s: %v", p.name, err)
			return
		}
		if reply != nil && c.Send(reply, nil) != nil {
			return
		}
	}
}

// acknowledged settles one packet identifier. Acknowledgements must come in
// the order of the messages [MQTT-4.6.0-2] [MQTT-4.6.0-3].
func (p *publisher) acknowledged(t packet.Type, id uint16) (reply []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.IndexFunc(p.inflight, func(f flight) bool { return p.packetID(f.seq) == id })
	if at < 0 {
		return nil, fmt.Errorf("%v for packet identifier %d, which is not in flight", t, id)
	}
	f := &p.inflight[at]
	first := slices.IndexFunc(p.inflight, func(f flight) bool { return !f.received })
	switch {
	case t == packet.PUBACK && p.qos == 1:
		if at != 0 {
			return nil, fmt.Errorf("PUBACK for message %d before %d", f.seq, p.inflight[0].seq)
		}
		p.acked = f.seq
		p.inflight = p.inflight[1:]
	case t == packet.PUBREC && p.qos == 2:
		if !f.received && at != first {
			return nil, fmt.Errorf("PUBREC for message %d before %d", f.seq, p.inflight[first].seq)
		}
		f.received = true
		p.acked = max(p.acked, f.seq)
		return appendAck(nil, packet.PUBREL, id), nil
	case t == packet.PUBCOMP && p.qos == 2 && f.received:
		p.inflight = slices.Delete(p.inflight, at, at+1)
	default:
		return nil, fmt.Errorf("%v for message %d, which has QoS %d", t, f.seq, p.qos)
	}
	return nil, nil
}
