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
	ready    bool
}

// reserve takes the next place in the order.
func (q *ackQueue) reserve(t packet.Type, id uint16) (slot uint64) {
	q.slots = append(q.slots, ackSlot{packetID: id, typ: t})
	return q.first + uint64(len(q.slots)) - 1
}

// complete marks a slot as ready and appends every acknowledgement that may now
// be sent to dst.
func (q *ackQueue) complete(dst []byte, slot uint64, v packet.Version) []byte {
	q.slots[slot-q.first].ready = true
	n := 0
	for n < len(q.slots) && q.slots[n].ready {
		a := packet.Ack{PacketID: q.slots[n].packetID}
		dst = a.Append(dst, q.slots[n].typ, v)
		n++
	}
	if n > 0 {
		q.first += uint64(n)
		q.slots = append(q.slots[:0], q.slots[n:]...)
	}
	return dst
}

// reserveAck and completeAck are the queue's calls for handlers. completeAck
// runs on the committer's goroutine and never blocks.
func (c *conn) reserveAck(t packet.Type, id uint16) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acks.reserve(t, id)
}

func (c *conn) completeAck(slot uint64) {
	c.send(func(dst []byte) []byte { return c.acks.complete(dst, slot, c.version) })
}
