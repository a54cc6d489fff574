package edge

import "holdfast/edge/packet"

// ackQueue sends PUBACK and PUBREC in the order in which the PUBLISH packets
// came [MQTT-4.6.0-2, MQTT-4.6.0-3], although messages become safe in any
// order: an acknowledgement that is ready waits for those before it.
//
// The owner locks.
type ackQueue struct {
	slots []ackSlot // those before head have been sent
	head  int
	first uint64 // number of slots[head]; numbers never repeat within a connection
}

// keptSlots is how many empty slots are kept for the next ones.
const keptSlots = 1024

type ackSlot struct {
	packetID uint16
	typ      packet.Type // PUBACK or PUBREC
	code     packet.ReasonCode
	ready    bool
}

// reserve takes the next place in the order.
func (q *ackQueue) reserve(t packet.Type, id uint16) (slot uint64) {
	q.slots = append(q.slots, ackSlot{packetID: id, typ: t})
	return q.first + uint64(len(q.slots)-q.head) - 1
}

// complete marks a slot as ready and appends every acknowledgement that may now
// be sent to dst. w is told of those after which nothing more comes: PUBACK, and
// PUBREC with a refusal.
func (q *ackQueue) complete(dst []byte, slot uint64, code packet.ReasonCode, v packet.Version, w *receiveWindow) (out []byte) {
	s := &q.slots[slot-q.first+uint64(q.head)]
	s.ready, s.code = true, code
	for q.head < len(q.slots) && q.slots[q.head].ready {
		s := &q.slots[q.head]
		a := packet.Ack{PacketID: s.packetID, Code: s.code}
		dst = a.Append(dst, s.typ, v)
		if s.typ == packet.PUBACK || s.code.Failed() {
			w.end(s.typ, s.packetID)
		}
		q.head++
		q.first++
	}
	switch {
	case q.head == len(q.slots) && q.head > keptSlots:
		q.slots, q.head = nil, 0
	case 2*q.head >= len(q.slots):
		// Each slot moves at most as often as it takes to send as many.
		q.slots, q.head = append(q.slots[:0], q.slots[q.head:]...), 0
	}
	return dst
}

// receiveWindow counts the QoS 1 and 2 messages of the client that are not at
// their end on this connection (MQTT 5, 4.9). The owner locks.
type receiveWindow struct {
	n int
	// exactly are the packet identifiers of QoS 2 among them: a repeated PUBLISH
	// does not count twice, nor does a PUBREL that belongs to none end one.
	exactly map[uint16]struct{}
}

func (w *receiveWindow) begin(t packet.Type, id uint16) {
	if t != packet.PUBACK {
		if _, known := w.exactly[id]; known {
			return
		}
		if w.exactly == nil {
			w.exactly = make(map[uint16]struct{})
		}
		w.exactly[id] = struct{}{}
	}
	w.n++
}

// end is called for what has ended the message: PUBACK, PUBREC or PUBCOMP.
func (w *receiveWindow) end(t packet.Type, id uint16) {
	if t != packet.PUBACK {
		if _, known := w.exactly[id]; !known {
			return
		}
		delete(w.exactly, id)
	}
	w.n--
}

// reserveAck and completeAck are the queue's calls for handlers. completeAck
// runs on the committer's goroutine and never blocks.
func (c *conn) reserveAck(t packet.Type, id uint16) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.receiving.begin(t, id)
	return c.acks.reserve(t, id)
}

func (c *conn) completeAck(slot uint64, code packet.ReasonCode) {
	c.send(func(dst []byte) []byte {
		return c.acks.complete(dst, slot, code, c.version, &c.receiving)
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
	return c.receiving.n > c.srv.limits.ReceiveMaximum
}
