package edge

import "holdfast/edge/packet"

// ackQueue sends PUBACK and PUBREC in the order in which the PUBLISH packets
// came [MQTT-4.6.0-2, MQTT-4.6.0-3], although messages become safe in any
// order: an acknowledgement that is ready waits for those before it.
//
// The owner locks.
type ackQueue struct {
	slots []ackSlot
	first uint64 // number of slots[0]; numbers never repeat within a connection
}

type ackSlot struct {
	packetID uint16
	typ      packet.Type // PUBACK or PUBREC
	code     packet.ReasonCode
	ready    bool
}

// reserve takes the next place in the order.
func (q *ackQueue) reserve(t packet.Type, id uint16) (slot uint64) {
	q.slots = append(q.slots, ackSlot{packetID: id, typ: t})
	return q.first + uint64(len(q.slots)) - 1
}

// complete marks a slot as ready and appends every acknowledgement that may now
// be sent to dst. settled counts those after which nothing more comes: PUBACK,
// and PUBREC with a refusal.
func (q *ackQueue) complete(dst []byte, slot uint64, code packet.ReasonCode, v packet.Version) (out []byte, settled int) {
	s := &q.slots[slot-q.first]
	s.ready, s.code = true, code
	n := 0
	for n < len(q.slots) && q.slots[n].ready {
		s := &q.slots[n]
		a := packet.Ack{PacketID: s.packetID, Code: s.code}
		dst = a.Append(dst, s.typ, v)
		if s.typ == packet.PUBACK || s.code.Failed() {
			settled++
		}
		n++
	}
	if n > 0 {
		q.first += uint64(n)
		q.slots = append(q.slots[:0], q.slots[n:]...)
	}
	return dst, settled
}

// reserveAck and completeAck are the queue's calls for handlers. completeAck
// runs on the committer's goroutine and never blocks.
func (c *conn) reserveAck(t packet.Type, id uint16) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.receiving++
	return c.acks.reserve(t, id)
}

func (c *conn) completeAck(slot uint64, code packet.ReasonCode) {
	c.send(func(dst []byte) []byte {
		out, settled := c.acks.complete(dst, slot, code, c.version)
		c.receiving = max(0, c.receiving-settled)
		return out
	})
}

// receivesTooMuch reports whether the client has sent more QoS 1 and 2 messages
// without waiting for their end than it may (MQTT 5, 3.2.2.3.3).
func (c *conn) receivesTooMuch() bool {
	if c.version != packet.V5 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.receiving > c.srv.limits.ReceiveMaximum
}
