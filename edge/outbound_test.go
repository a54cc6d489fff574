package edge

import (
	"sync/atomic"
	"testing"

	"holdfast"
	"holdfast/edge/packet"
)

// wakingBox wakes its reader for what was released, as the store's queue does,
// and counts how often it is asked.
type wakingBox struct {
	*memoryOutbox
	asked atomic.Int64
}

func (b *wakingBox) TryNext() (holdfast.Item, bool, error) {
	b.asked.Add(1)
	return b.memoryOutbox.TryNext()
}

func (b *wakingBox) Release(ids ...holdfast.ItemID) {
	b.memoryOutbox.Release(ids...)
	b.mu.Lock()
	ready := b.ready
	b.mu.Unlock()
	if ready != nil {
		ready()
	}
}

type wakingDisk struct {
	*fakeDisk
	box *wakingBox
}

func (d wakingDisk) Outbox(string) (Outbox, error) { return d.box, nil }

func TestAPacketIdentifierInUseIsWaitedFor(t *testing.T) {
	disk := wakingDisk{newFakeDisk(), &wakingBox{memoryOutbox: newMemoryOutbox(1 << 30)}}
	b := startBroker(t, disk.fakeDisk, func(o *Options) { o.Store = disk })
	s := b.connect("sub", durable)
	push := func(payload string) {
		disk.box.push(&holdfast.Message{Topic: "a", Payload: []byte(payload), QoS: 1}, true)
	}
	push("first")
	first := s.expectPublish("a", "first", 1)
	disk.box.mu.Lock()
	disk.box.last += maxPacketID - 1 // all of those were acknowledged
	disk.box.mu.Unlock()
	push("second")
	push("third")
	for range 1000 { // long enough for a writer that turns in circles
		s.expectNothing()
	}
	if n := disk.box.asked.Load(); n > 10 {
		t.Errorf("the writer has asked for messages %d times", n)
	}

	s.nc.Close()
	s = b.connect("sub", durable)
	if again := s.expectPublish("a", "first", 1); again.PacketID != first.PacketID {
		t.Fatalf("packet identifier %d, first %d", again.PacketID, first.PacketID)
	}
	s.expectNothing()
	s.ack(packet.PUBACK, first.PacketID)
	if second := s.expectPublish("a", "second", 1); second.PacketID != first.PacketID {
		t.Fatalf("packet identifier %d, want %d", second.PacketID, first.PacketID)
	}
	s.expectPublish("a", "third", 1)
}

func TestAFloodOfQoS0DoesNotKeepAcknowledgedMessagesWaiting(t *testing.T) {
	box := newMemoryOutbox(1 << 20)
	box.push(&holdfast.Message{Topic: "a", Payload: []byte("x"), QoS: 1}, false)
	c := &conn{srv: &Server{limits: Limits{}.withDefaults()}, version: packet.V311, window: 64, sess: newSession("sub", false)}
	c.sess.outbox = box
	flood := make([]byte, 2*fillTarget) // as much has come again while the last was written
	got, err := c.fillFromSession(flood)
	if err != nil || len(got) == len(flood) {
		t.Fatalf("QoS 1 was not sent; error %v", err)
	}
}
