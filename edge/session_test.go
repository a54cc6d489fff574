package edge

import (
	"testing"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

func TestADurableSessionKeepsItsMessagesInOrder(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	s := b.connect("sub", durable)
	s.subscribe(1, "a", 2)
	s.disconnect()
	p := b.connect("pub")
	for i := range 200 {
		p.publish("a", string(rune('0'+i)), 1, uint16(i+1))
		p.expectAck(packet.PUBACK, uint16(i+1))
	}
	b.stop()
	disk.restart()
	b = startBroker(t, disk)
	s = b.dial()
	if !s.login("sub", durable) {
		t.Fatal("session present is 0 [MQTT-3.2.2-2]")
	}
	for i := range 200 {
		got := s.expectPublish("a", string(rune('0'+i)), 1)
		s.ack(packet.PUBACK, got.PacketID)
	}
	s.expectNothing()
}

func TestUnacknowledgedMessagesComeAgainWithTheirIdentifierAndDup(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	s, p := b.connect("sub", durable), b.connect("pub")
	s.subscribe(1, "a", 1)
	p.publish("a", "1", 1, 1)
	p.publish("a", "2", 1, 2)
	first, second := s.expectPublish("a", "1", 1), s.expectPublish("a", "2", 1)
	if first.Dup || second.Dup {
		t.Fatal("DUP is set in the first delivery [MQTT-3.3.1-3]")
	}
	s.nc.Close()
	s = b.connect("sub", durable)
	again, againTwo := s.expectPublish("a", "1", 1), s.expectPublish("a", "2", 1)
	if !again.Dup || again.PacketID != first.PacketID || !againTwo.Dup || againTwo.PacketID != second.PacketID {
		t.Fatalf("sent again as %v/%d and %v/%d, first as %d and %d [MQTT-4.4.0-1]",
			again.Dup, again.PacketID, againTwo.Dup, againTwo.PacketID, first.PacketID, second.PacketID)
	}
}

func TestAQoS2DeliveryIsExactlyOnceAcrossReconnectAndRestart(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	s, p := b.connect("sub", durable), b.connect("pub")
	s.subscribe(1, "a", 2)
	p.publish("a", "x", 2, 1)
	p.expectAck(packet.PUBREC, 1)
	got := s.expectPublish("a", "x", 2)

	disk.hold()
	s.ack(packet.PUBREC, got.PacketID)
	eventually(t, "PUBREC is with the disk", func() bool { return disk.waiting() == 1 })
	s.expectNothing() // no PUBREL before PUBREC is on disk
	disk.letGo()
	s.expectAck(packet.PUBREL, got.PacketID)
	s.nc.Close()

	s = b.connect("sub", durable)
	s.expectAck(packet.PUBREL, got.PacketID) // not PUBLISH: the client has it
	s.expectNothing()
	b.stop()
	disk.restart()

	b = startBroker(t, disk)
	s = b.connect("sub", durable)
	s.expectAck(packet.PUBREL, got.PacketID)
	s.ack(packet.PUBCOMP, got.PacketID)
	s.expectNothing()
	if box := disk.boxes["sub"]; box.Len() != 0 {
		t.Fatalf("%d items are left in the queue", box.Len())
	}
}

func TestACleanSessionEndsTheStoredOne(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	s := b.connect("sub", durable)
	s.subscribe(1, "a", 1)
	s.disconnect()
	c := b.dial()
	if c.login("sub") {
		t.Fatal("session present is 1 for a clean session [MQTT-3.2.2-1]")
	}
	c.disconnect()
	if len(disk.sessions) != 0 || b.srv.Stats().Sessions != 0 {
		t.Fatal("the stored session is still there")
	}
	c = b.dial()
	if c.login("sub", durable) {
		t.Fatal("session present is 1 after a clean session")
	}
	p := b.connect("pub")
	p.publish("a", "x", 1, 1)
	p.expectAck(packet.PUBACK, 1)
	c.expectNothing()
}

func TestConnackWaitsForSessionAndWill(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	disk.hold()
	c := b.dial()
	p := packet.Connect{Version: packet.V311, ClientID: "c", Will: &packet.Will{Topic: "w", Payload: []byte("gone")}}
	c.send(p.Append(nil))
	eventually(t, "session and will are with the disk", func() bool { return disk.waiting() == 2 })
	select {
	case <-readable(c):
		t.Fatal("something was sent before it was safe")
	default:
	}
	disk.letGo()
	c.connack()
	disk.set(func() {
		if disk.wills["c"] == nil || disk.sessions["c"] == nil {
			t.Error("will or session is not on disk")
		}
	})
}

// readable is closed if a byte is there to be read now.
func readable(c *client) <-chan struct{} {
	ch := make(chan struct{})
	c.nc.SetReadDeadline(time.Now().Add(-1))
	if n, _ := c.nc.Read(make([]byte, 1)); n > 0 {
		close(ch)
	}
	c.nc.SetReadDeadline(time.Time{})
	return ch
}

func TestAnUnavailableDiskRefusesTheLogin(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	disk.set(func() { disk.fail = errDisk })
	c := b.dial()
	p := packet.Connect{Version: packet.V311, ClientID: "c"}
	c.send(p.Append(nil))
	if code := c.connack().Code; code != packet.RefusedUnavailable {
		t.Fatalf("return code %d", code)
	}
	c.expectEnd()
}

func TestSubackAndUnsubackWaitForTheDisk(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	c := b.connect("c", durable)
	disk.hold()
	p := packet.Subscribe{PacketID: 1, Filters: subsOf("a/#", 1)}
	c.send(p.Append(nil, c.v))
	eventually(t, "the subscription is with the disk", func() bool { return disk.waiting() == 1 })
	c.expectNothing()
	disk.letGo()
	c.expect(packet.SUBACK)
	if len(disk.sessions["c"].Subscriptions) != 1 {
		t.Fatal("the subscription is not on disk")
	}
	disk.hold()
	u := packet.Unsubscribe{PacketID: 2, Filters: []string{"a/#"}}
	c.send(u.Append(nil, c.v))
	eventually(t, "the change is with the disk", func() bool { return disk.waiting() == 1 })
	c.expectNothing()
	disk.letGo()
	c.expect(packet.UNSUBACK)
	if len(disk.sessions["c"].Subscriptions) != 0 {
		t.Fatal("the subscription is still on disk")
	}
}

func TestTakeoverEndsTheOlderConnectionAndPublishesItsWill(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	watch := b.connect("watch")
	watch.subscribe(1, "w", 0)
	old := b.connect("c", withWill("w", "gone", 0, false))
	b.connect("c")
	old.expectEnd()
	watch.expectPublish("w", "gone", 0)
}

func TestManyTakeoversAtOnceLeaveOneConnection(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	const n = 20
	done := make(chan struct{}, n)
	for range n {
		c := b.dial()
		go func() {
			p := packet.Connect{Version: packet.V311, CleanStart: true, ClientID: "same"}
			buf, _ := p.Append(nil)
			c.nc.Write(buf)
			done <- struct{}{}
		}()
	}
	for range n {
		<-done
	}
	eventually(t, "one is left", func() bool {
		b.srv.mu.Lock()
		defer b.srv.mu.Unlock()
		return len(b.srv.conns) == 1 && len(b.srv.sessions) == 1
	})
}

func TestWills(t *testing.T) {
	t.Run("a lost connection publishes the will, DISCONNECT deletes it", func(t *testing.T) {
		disk := newFakeDisk()
		b := startBroker(t, disk)
		watch := b.connect("watch")
		watch.subscribe(1, "w/#", 1)
		b.connect("a", withWill("w/a", "polite", 1, false)).disconnect()
		b.connect("b", withWill("w/b", "lost", 1, true)).nc.Close()
		watch.expectPublish("w/b", "lost", 1)
		watch.expectNothing()
		if disk.retained["w/b"] == nil {
			t.Error("the retained will is not on disk")
		}
		eventually(t, "no will is left on disk", func() bool {
			disk.mu.Lock()
			defer disk.mu.Unlock()
			return len(disk.wills) == 0
		})
	})
	t.Run("the will survives a restart and is published before clients connect", func(t *testing.T) {
		disk := newFakeDisk()
		b := startBroker(t, disk)
		watch := b.connect("watch", durable)
		watch.subscribe(1, "w", 1)
		b.connect("c", withWill("w", "gone", 1, true))
		b.stop()
		disk.restart()
		b = startBroker(t, disk)
		watch = b.connect("watch", durable)
		got := watch.expectPublish("w", "gone", 1)
		watch.ack(packet.PUBACK, got.PacketID)
		watch.expectNothing()
		if len(disk.wills) != 0 {
			t.Fatal("the will is still on disk")
		}
	})
	t.Run("silence longer than 1.5 times the keep alive publishes it", func(t *testing.T) {
		b := startBroker(t, newFakeDisk())
		watch := b.connect("watch")
		watch.subscribe(1, "w", 0)
		c := b.connect("c", withWill("w", "silent", 0, false), func(p *packet.Connect) { p.KeepAlive = 1 })
		start := time.Now()
		watch.expectPublish("w", "silent", 0)
		if took := time.Since(start); took < 1400*time.Millisecond {
			t.Errorf("after %v", took)
		}
		c.expectEnd()
	})
}

func TestADurableSessionReconnectsWhileOthersPublishToIt(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	b.connect("sub", durable).subscribe(1, "a", 1)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				b.srv.Publish(&holdfast.Message{Topic: "a", QoS: 1}, func(error) {})
			}
		}
	}()
	for range 20 {
		b.connect("sub", durable, func(p *packet.Connect) { p.Bridge = true })
	}
	close(stop)
	<-stopped
}

func TestShutdownDoesNotWaitForADiskThatConnectWaitsFor(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	disk.hold()
	first, second := b.dial(), b.dial()
	p := packet.Connect{Version: packet.V311, ClientID: "c", Will: &packet.Will{Topic: "w"}}
	first.send(p.Append(nil))
	eventually(t, "session and will are with the disk", func() bool { return disk.waiting() == 2 })
	p.ClientID = "other"
	second.send(p.Append(nil))
	eventually(t, "those of the other too", func() bool { return disk.waiting() == 4 })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.stop()
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		t.Error("Shutdown waits for the disk")
	}
	disk.letGo()
	<-stopped
}

func TestATakeoverDoesNotWaitForADiskThatConnectWaitsFor(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	t.Cleanup(func() { disk.letGo() })
	disk.hold()
	first, second := b.dial(), b.dial()
	p := packet.Connect{Version: packet.V311, ClientID: "c"}
	first.send(p.Append(nil))
	eventually(t, "the session is with the disk", func() bool { return disk.waiting() == 1 })
	second.send(p.Append(nil))
	first.expectEnd()
	eventually(t, "that of the second too", func() bool { return disk.waiting() == 2 })
	disk.letGo()
	second.connack()
	second.subscribe(1, "a", 1)
}
