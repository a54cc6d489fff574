package edge

import (
	"testing"

	"holdfast/edge/packet"
)

func TestAnAcknowledgementMovesNoneOfTheMany(t *testing.T) {
	var q ackQueue
	var w receiveWindow
	const n = 1000
	for i := range n {
		w.begin(packet.PUBACK, uint16(i))
		q.reserve(packet.PUBACK, uint16(i))
	}
	last := &q.slots[n-1]
	var out []byte
	for i := range n / 4 {
		out = q.complete(out, uint64(i), packet.Success, packet.V311, &w)
	}
	if &q.slots[len(q.slots)-1] != last {
		t.Error("all that wait have been moved")
	}
	for i := n/4 + 1; i < n; i++ {
		out = q.complete(out, uint64(i), packet.Success, packet.V311, &w)
	}
	slot := q.reserve(packet.PUBACK, n)
	w.begin(packet.PUBACK, n)
	out = q.complete(out, n/4, packet.Success, packet.V311, &w)
	out = q.complete(out, slot, packet.Success, packet.V311, &w)
	if len(out) != 4*(n+1) || w.n != 0 || q.first != n+1 || len(q.slots) != q.head {
		t.Fatalf("%d bytes, %d are awaited, first %d", len(out), w.n, q.first)
	}
	for i := range n + 1 {
		if id := int(out[4*i+2])<<8 | int(out[4*i+3]); id != i {
			t.Fatalf("acknowledgement %d is for %d", i, id)
		}
	}
}

func TestTheReceiveMaximumCountsAMessageOnce(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.ReceiveMaximum = 2 })
	c := b.connect("c", v5)
	for range 5 {
		c.publish("t", "x", 2, 1, dup)
		c.expectAck(packet.PUBREC, 1)
	}
	for range 3 { // of nothing: they make no room either
		c.ack(packet.PUBREL, 9)
		c.expectCode(packet.PUBCOMP, 9, packet.PacketIdentifierNotFound)
	}
	c.publish("t", "x", 2, 2)
	c.expectAck(packet.PUBREC, 2)
	c.ack(packet.PUBREL, 1)
	c.expectAck(packet.PUBCOMP, 1)
	c.publish("t", "x", 2, 3)
	c.expectAck(packet.PUBREC, 3)
	c.publish("t", "x", 2, 4)
	c.expectDisconnect(packet.ReceiveMaximumExceeded)
}
