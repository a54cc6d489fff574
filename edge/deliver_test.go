package edge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

func TestDeliveryUsesTheLowerQoSOfPublishAndSubscription(t *testing.T) {
	for pub := byte(0); pub <= 2; pub++ {
		for sub := byte(0); sub <= 2; sub++ {
			t.Run(fmt.Sprintf("published %d, subscribed %d", pub, sub), func(t *testing.T) {
				b := startBroker(t, newFakeDisk())
				s, p := b.connect("sub"), b.connect("pub")
				s.subscribe(1, "a/+", int(sub))
				p.publish("a/b", "x", pub, uint16(min(pub, 1)))
				got := s.expectPublish("a/b", "x", min(pub, sub))
				switch got.QoS {
				case 1:
					s.ack(packet.PUBACK, got.PacketID)
				case 2:
					s.ack(packet.PUBREC, got.PacketID)
					s.expectAck(packet.PUBREL, got.PacketID)
					s.ack(packet.PUBCOMP, got.PacketID)
				}
				s.expectNothing()
			})
		}
	}
}

func TestOverlappingSubscriptionsMakeOneCopyWithTheHighestQoS(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	s, p := b.connect("sub"), b.connect("pub")
	s.subscribe(1, "a/#", 0, "a/+", 1, "a/b", 0)
	p.publish("a/b", "x", 1, 1)
	s.expectPublish("a/b", "x", 1)
	s.expectNothing()
}

func TestLiveDeliveryDoesNotWaitForTheDisk(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	clean, stored, p := b.connect("clean"), b.connect("stored", durable), b.connect("pub")
	clean.subscribe(1, "a", 2)
	stored.subscribe(1, "a", 1)
	disk.hold()
	p.publish("a", "q0", 0, 0)
	clean.expectPublish("a", "q0", 0)
	stored.expectPublish("a", "q0", 0)
	p.publish("a", "q1", 1, 1)
	p.publish("a", "q2", 2, 2)
	clean.expectPublish("a", "q1", 1)
	stored.expectPublish("a", "q1", 1)
	p.expectNothing()
	clean.expectNothing() // QoS 2 does wait
	disk.letGo()
	clean.expectPublish("a", "q2", 2)
	p.expectAck(packet.PUBACK, 1)
	p.expectAck(packet.PUBREC, 2)
}

func TestInboundAndOutboundPacketIdentifiersAreApart(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	c, p := b.connect("both"), b.connect("pub")
	c.subscribe(9, "a", 1)
	p.publish("a", "1", 1, 1)
	out := c.expectPublish("a", "1", 1)
	c.publish("b", "2", 2, out.PacketID) // the same number, the other way
	c.expectAck(packet.PUBREC, out.PacketID)
	c.ack(packet.PUBREL, out.PacketID)
	c.expectAck(packet.PUBCOMP, out.PacketID)
	if n := c.inflight(b, "both"); n != 1 {
		t.Fatalf("%d messages in flight, want the one that is not acknowledged", n)
	}
	c.ack(packet.PUBACK, out.PacketID)
	eventually(t, "PUBACK was taken", func() bool { return c.inflight(b, "both") == 0 })
}

func (c *client) inflight(b *bench, id string) int {
	b.srv.mu.Lock()
	s := b.srv.sessions[id]
	b.srv.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.inflight)
}

func TestTheWindowIsKeptAndEverythingArrives(t *testing.T) {
	for _, kind := range []string{"clean", "durable"} {
		t.Run(kind+" session", func(t *testing.T) {
			b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxInflight = 10 })
			s := b.connect("sub", func(p *packet.Connect) { p.CleanStart = kind == "clean" })
			p := b.connect("pub")
			s.subscribe(1, "a", 1)
			const n = 200
			for i := range n {
				p.publish("a", fmt.Sprint(i), 1, uint16(i+1))
			}
			for i := range n {
				p.expectAck(packet.PUBACK, uint16(i+1))
			}
			var held []uint16
			for i := range n {
				held = append(held, s.expectPublish("a", fmt.Sprint(i), 1).PacketID)
				if len(held) == 10 {
					s.expectNothing() // the window is full
					for _, id := range held {
						s.ack(packet.PUBACK, id)
					}
					held = nil
				}
			}
			s.expectNothing()
		})
	}
}

func TestASubscriberThatStopsReadingDelaysNobody(t *testing.T) {
	for qos := 0; qos <= 2; qos++ {
		t.Run(fmt.Sprintf("with QoS %d", qos), func(t *testing.T) {
			b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxOutboundBytes = 64 << 10 })
			stuck, reader, p := b.connect("stuck"), b.connect("reader"), b.connect("pub")
			stuck.subscribe(1, "#", qos)
			reader.subscribe(1, "#", 0)
			payload := strings.Repeat("x", 10_000)
			for i := range 2000 { // 20 MB: more than any socket buffer takes
				p.publish("a", payload, 0, 0)
				if qos > 0 {
					p.publish("b", payload, byte(qos), uint16(i+1))
				}
				reader.expectPublish("a", payload, 0)
				if qos > 0 {
					reader.expectPublish("b", payload, 0)
					p.nextAck(t)
				}
			}
			st := b.srv.Stats()
			if st.DroppedQoS0 == 0 && st.SlowDisconnected == 0 {
				t.Fatal("nothing was dropped or disconnected: where did 20 MB go?")
			}
			if qos > 0 && st.SlowDisconnected != 1 {
				t.Fatalf("slow_disconnected is %d, want the stuck clean session", st.SlowDisconnected)
			}
		})
	}
}

// nextAck reads a PUBACK or completes a QoS 2 exchange.
func (c *client) nextAck(t *testing.T) {
	t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	h, body, err := c.next()
	if err != nil {
		t.Fatal(err)
	}
	var a packet.Ack
	if err := a.Decode(body, c.v); err != nil {
		t.Fatal(err)
	}
	if h.Type == packet.PUBREC {
		c.ack(packet.PUBREL, a.PacketID)
		c.expectAck(packet.PUBCOMP, a.PacketID)
	}
}

func TestRetainedMessages(t *testing.T) {
	t.Run("a new subscriber gets the last one, marked", func(t *testing.T) {
		disk := newFakeDisk()
		b := startBroker(t, disk)
		p := b.connect("pub")
		live := b.connect("live")
		live.subscribe(1, "state/#", 1)
		p.publish("state/a", "old", 1, 1, retaining)
		p.expectAck(packet.PUBACK, 1)
		p.publish("state/a", "new", 1, 2, retaining)
		p.expectAck(packet.PUBACK, 2)
		if live.expectPublish("state/a", "old", 1).Retain || live.expectPublish("state/a", "new", 1).Retain {
			t.Error("RETAIN is set in live delivery [MQTT-3.3.1-9]")
		}
		b.stop()
		b = startBroker(t, disk)
		for qos := 0; qos <= 1; qos++ {
			s := b.connect("sub")
			s.subscribe(1, "state/+", qos)
			if !s.expectPublish("state/a", "new", byte(qos)).Retain {
				t.Error("RETAIN is not set for a new subscription [MQTT-3.3.1-8]")
			}
			s.expectNothing()
		}
		s := b.connect("stored", durable)
		s.subscribe(1, "#", 1)
		if !s.expectPublish("state/a", "new", 1).Retain {
			t.Error("RETAIN is not set for a new subscription of a durable session")
		}
	})
	t.Run("an empty payload clears it and is still delivered", func(t *testing.T) {
		disk := newFakeDisk()
		b := startBroker(t, disk)
		p, live := b.connect("pub"), b.connect("live")
		p.publish("state/a", "x", 1, 1, retaining)
		p.expectAck(packet.PUBACK, 1)
		live.subscribe(1, "state/a", 0)
		live.expectPublish("state/a", "x", 0)
		p.publish("state/a", "", 1, 2, retaining)
		p.expectAck(packet.PUBACK, 2)
		live.expectPublish("state/a", "", 0)
		s := b.connect("late")
		s.subscribe(1, "#", 0)
		s.expectNothing()
		if len(disk.retained) != 0 {
			t.Fatal("it is still on disk")
		}
	})
	t.Run("thousands of them reach a subscriber whose buffer is small", func(t *testing.T) {
		b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxOutboundBytes = 64 << 10 })
		p := b.connect("pub")
		payload := strings.Repeat("x", 1000)
		const n = 2000
		for i := range n {
			p.publish(fmt.Sprintf("s/%d", i), payload, 0, 0, retaining)
		}
		p.expectNothing()
		for qos := 0; qos <= 1; qos++ {
			s := b.connect("sub")
			s.subscribe(1, "#", qos)
			for range n {
				h, _, err := s.next()
				if err != nil || h.Type != packet.PUBLISH {
					t.Fatalf("%v, error %v", h.Type, err)
				}
			}
			s.expectNothing()
		}
	})
	t.Run("one more than the limit is delivered and not kept", func(t *testing.T) {
		b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxRetained = 1 })
		p, live := b.connect("pub"), b.connect("live")
		live.subscribe(1, "#", 0)
		p.publish("a", "1", 0, 0, retaining)
		p.publish("b", "2", 0, 0, retaining)
		p.publish("a", "3", 0, 0, retaining)
		live.expectPublish("a", "1", 0)
		live.expectPublish("b", "2", 0)
		live.expectPublish("a", "3", 0)
		s := b.connect("late")
		s.subscribe(1, "#", 0)
		s.expectPublish("a", "3", 0)
		s.expectNothing()
	})
}

// TestAnAcknowledgementOfAnotherKindEndsTheConnection: it could never settle the
// message, which would take its place in the window for ever.
func TestAnAcknowledgementOfAnotherKindEndsTheConnection(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	p := b.connect("pub", v5)
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		for _, wrong := range []struct {
			qos     byte
			answers []packet.Type // the last one is wrong
		}{
			{1, []packet.Type{packet.PUBREC}},
			{1, []packet.Type{packet.PUBCOMP}},
			{2, []packet.Type{packet.PUBACK}},
			{2, []packet.Type{packet.PUBCOMP}},
			{2, []packet.Type{packet.PUBREC, packet.PUBACK}},
		} {
			c := b.connect("c", func(c *packet.Connect) { c.Version = v })
			sub := packet.Subscribe{PacketID: 1, Filters: []holdfast.Subscription{{Filter: "a", QoS: 2}}}
			c.send(sub.Append(nil, v))
			c.expect(packet.SUBACK)
			p.publish("a", "x", wrong.qos, 1)
			if wrong.qos == 1 {
				p.expectAck(packet.PUBACK, 1)
			} else {
				p.expectAck(packet.PUBREC, 1)
				p.ack(packet.PUBREL, 1)
				p.expectAck(packet.PUBCOMP, 1)
			}
			m := c.expectPublish("a", "x", wrong.qos)
			for i, answer := range wrong.answers {
				if i > 0 {
					c.expectAck(packet.PUBREL, m.PacketID)
				}
				c.ack(answer, m.PacketID)
			}
			if v == packet.V5 {
				c.expectDisconnect(packet.ProtocolError)
			} else {
				c.expectEnd()
			}
		}
	}
}
