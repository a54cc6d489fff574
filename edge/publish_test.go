package edge

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

func TestPubackIsSentOnlyWhenTheMessageIsSafe(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	c := b.connect("sensor")
	disk.hold()
	c.publish("t", "1", 1, 10)
	eventually(t, "the message is with the disk", func() bool { return disk.waiting() == 1 })
	c.expectNothing()
	disk.letGo()
	c.expectAck(packet.PUBACK, 10)
}

func TestPubrecIsSentOnlyWhenMessageAndPacketIdentifierAreSafe(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	c := b.connect("sensor", durable)
	disk.hold()
	c.publish("t", "1", 2, 10)
	eventually(t, "the message is with the disk", func() bool { return disk.waiting() == 1 })
	c.expectNothing()
	disk.letGo()
	c.expectAck(packet.PUBREC, 10)
	if got := disk.sessions["sensor"].Inbound; len(got) != 1 || got[0] != 10 {
		t.Fatalf("packet identifiers on disk: %v", got)
	}
	disk.hold()
	c.ack(packet.PUBREL, 10)
	eventually(t, "the release is with the disk", func() bool { return disk.waiting() == 1 })
	c.expectNothing()
	disk.letGo()
	c.expectAck(packet.PUBCOMP, 10)
	if got := disk.sessions["sensor"].Inbound; len(got) != 0 {
		t.Fatalf("packet identifiers on disk after PUBREL: %v", got)
	}
}

func TestQoS0IsDeliveredThoughItCannotBeKept(t *testing.T) {
	for _, err := range []error{holdfast.ErrFull, holdfast.ErrTooLarge, errDisk} {
		t.Run(err.Error(), func(t *testing.T) {
			disk := newFakeDisk()
			b := startBroker(t, disk)
			s, p := b.connect("sub"), b.connect("pub")
			s.subscribe(1, "a", 1)
			disk.set(func() { disk.refuse = err })
			p.publish("a", "x", 0, 0)
			s.expectPublish("a", "x", 0)
			p.expectNothing() // it is still connected
			if n := b.srv.Stats().NotKeptQoS0; n != 1 {
				t.Errorf("not_kept_qos0 is %d", n)
			}
		})
	}
}

func TestAcknowledgementsLeaveInTheOrderOfThePublishes(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	c := b.connect("sensor")
	disk.hold()
	for id := uint16(1); id <= 4; id++ {
		c.publish("t", "x", 1+byte(id%2), id)
	}
	eventually(t, "all are with the disk", func() bool { return disk.waiting() == 4 })
	disk.letGo(3, 1, 0, 2)
	c.expectAck(packet.PUBREC, 1)
	c.expectAck(packet.PUBACK, 2)
	c.expectAck(packet.PUBREC, 3)
	c.expectAck(packet.PUBACK, 4)
}

func TestARepeatedPublishJoinsTheOneThatIsPending(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		t.Run(fmt.Sprintf("with QoS %d on the same connection there is one acknowledgement", qos), func(t *testing.T) {
			disk := newFakeDisk()
			b := startBroker(t, disk)
			c := b.connect("sensor")
			disk.hold()
			c.publish("t", "x", qos, 7)
			c.publish("t", "x", qos, 7, dup)
			c.expectNothing() // both were handled
			disk.letGo()
			c.expectAck([]packet.Type{1: packet.PUBACK, 2: packet.PUBREC}[qos], 7)
			c.expectNothing()
			if n := len(disk.accepted); n != 1 {
				t.Fatalf("%d copies were stored", n)
			}
		})
		t.Run(fmt.Sprintf("with QoS %d the acknowledgement goes to the session's new connection", qos), func(t *testing.T) {
			disk := newFakeDisk()
			b := startBroker(t, disk)
			c := b.connect("sensor", durable)
			disk.hold()
			c.publish("t", "x", qos, 7)
			eventually(t, "the message is with the disk", func() bool { return disk.waiting() == 1 })
			c = b.connect("sensor", durable)
			c.publish("t", "x", qos, 7, dup)
			c.expectNothing()
			disk.letGo()
			c.expectAck([]packet.Type{1: packet.PUBACK, 2: packet.PUBREC}[qos], 7)
			if n := len(disk.accepted); n != 1 {
				t.Fatalf("%d copies were stored", n)
			}
		})
	}
}

func TestAQoS2MessageIsTakenOnceAcrossReconnectAndRestart(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	c := b.connect("sensor", durable)
	c.publish("t", "x", 2, 7)
	c.expectAck(packet.PUBREC, 7)
	c.nc.Close()

	c = b.connect("sensor", durable)
	c.publish("t", "x", 2, 7, dup)
	c.expectAck(packet.PUBREC, 7)
	b.stop()

	b = startBroker(t, disk)
	c = b.connect("sensor", durable)
	c.publish("t", "x", 2, 7, dup)
	c.expectAck(packet.PUBREC, 7)
	c.ack(packet.PUBREL, 7)
	c.expectAck(packet.PUBCOMP, 7)
	if n := len(disk.accepted); n != 1 {
		t.Fatalf("%d copies were stored", n)
	}
	c.publish("t", "y", 2, 7) // the identifier is free again
	c.expectAck(packet.PUBREC, 7)
	if n := len(disk.accepted); n != 2 {
		t.Fatalf("%d messages were stored, want 2", n)
	}
}

func TestAFailedCommitEndsTheConnectionWithoutAnAcknowledgement(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	c := b.connect("sensor")
	disk.set(func() { disk.fail = errDisk })
	c.publish("t", "x", 1, 7)
	c.expectEnd()
}

func TestARefusedMessageIsParkedUntilThereIsRoom(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	sub := b.connect("sub")
	sub.subscribe(1, "t", 0)
	c := b.connect("sensor")
	disk.set(func() { disk.refuse = holdfast.ErrFull })
	c.publish("t", "x", 1, 7)
	sub.expectNothing()
	disk.set(func() { disk.refuse = nil })
	c.expectAck(packet.PUBACK, 7)
	sub.expectPublish("t", "x", 0)
	sub.expectNothing() // delivered once, not once a try
}

func TestAPublisherIsDisconnectedWhenItsMessageStaysRefused(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk, func(o *Options) { o.Limits.RefuseWait = 50 * time.Millisecond })
	c := b.connect("sensor")
	disk.set(func() { disk.refuse = holdfast.ErrFull })
	c.publish("t", "x", 1, 7)
	c.expectEnd()
	if n := b.srv.Stats().RefusedFull; n != 1 {
		t.Fatalf("refused_full is %d", n)
	}
}

func TestPublishersWaitWhileTooMuchIsPending(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk, func(o *Options) { o.Limits.MaxPendingBytes = 1000 })
	c := b.connect("sensor")
	disk.hold()
	for id := uint16(1); id <= 100; id++ {
		c.publish("t", "0123456789012345678901234567890123456789", 1, id)
		eventually(t, "the message was handled or the connection waits", func() bool {
			return disk.waiting() == int(id) || b.srv.pending.waiting.Load() > 0
		})
	}
	if n := disk.waiting(); n >= 100 || n < 5 {
		t.Fatalf("%d messages were read past the bound", n)
	}
	disk.letGo()
	for id := uint16(1); id <= 100; id++ {
		c.expectAck(packet.PUBACK, id)
	}
	if n := b.srv.Stats().PendingBytes; n != 0 {
		t.Fatalf("%d bytes are still pending", n)
	}
}

func TestInsidePublishersAreToldWhenTheirMessageIsSafe(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	sub := b.connect("sub")
	sub.subscribe(1, "cmd/#", 1)
	done := make(chan error, 1)
	b.srv.Publish(&holdfast.Message{Topic: "cmd/a", Payload: []byte("on"), QoS: 1, Origin: "bridge:x"}, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	sub.expectPublish("cmd/a", "on", 1)
	disk.set(func() { disk.refuse = holdfast.ErrFull })
	b.srv.Publish(&holdfast.Message{Topic: "cmd/a", QoS: 1}, func(err error) { done <- err })
	if err := <-done; !errors.Is(err, holdfast.ErrFull) {
		t.Fatalf("error %v, want ErrFull", err)
	}
}

func TestAPublishOverTheReceiveMaximumLeavesNothingPending(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk, func(o *Options) { o.Limits.ReceiveMaximum = 2 })
	c := b.connect("c", lasting(60))
	disk.hold()
	for id := uint16(1); id <= 3; id++ {
		c.publish("t", "x", 1, id)
	}
	c.expectDisconnect(packet.ReceiveMaximumExceeded)
	disk.letGo()
	c = b.connect("c", lasting(60))
	for id := uint16(1); id <= 3; id++ {
		c.publish("t", "x", 1, id, dup)
		c.expectAck(packet.PUBACK, id)
	}
	c.publish("t", "x", 1, 9)
	c.expectAck(packet.PUBACK, 9)
}
