package edge

import (
	"fmt"
	"testing"

	"holdfast"
	"holdfast/edge/packet"
)

const jobs = "$share/workers/jobs/#"

// work publishes n messages with QoS 1 that are numbered from first.
func work(p *client, first, n int) {
	p.t.Helper()
	for i := first; i < first+n; i++ {
		p.publish("jobs/x", fmt.Sprint(i), 1, uint16(i+1))
		p.expectAck(packet.PUBACK, uint16(i+1))
	}
}

// take reads n messages, acknowledges them, and returns their payloads.
func take(c *client, n int) (got []string) {
	c.t.Helper()
	for range n {
		var p packet.Publish
		h, body, err := c.next()
		if err == nil {
			err = p.Decode(h.Flags, body, c.v)
		}
		if err != nil || h.Type != packet.PUBLISH {
			c.t.Fatalf("received %v, error %v", h.Type, err)
		}
		if p.QoS == 1 {
			c.ack(packet.PUBACK, p.PacketID)
		}
		got = append(got, string(p.Payload))
	}
	return got
}

func TestASharedSubscriptionIsFairToItsMembers(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	p := b.connect("pub", v5)
	var members []*client
	for i, set := range []func(*packet.Connect){v5, lasting(60), func(p *packet.Connect) { p.Version = packet.V311 }} {
		c := b.connect(fmt.Sprint("m", i), set)
		c.subscribe5(1, holdfast.Subscription{Filter: jobs, QoS: 1})
		members = append(members, c)
	}
	alone := b.connect("alone", v5)
	alone.subscribe5(1, holdfast.Subscription{Filter: "jobs/#", QoS: 1})
	alone.subscribe5(2, holdfast.Subscription{Filter: "$share/others/jobs/#", QoS: 1})
	work(p, 0, 30)
	seen := map[string]bool{}
	for _, c := range members {
		for _, payload := range take(c, 10) {
			if seen[payload] {
				t.Errorf("%s went to two members [MQTT-4.8.2-4]", payload)
			}
			seen[payload] = true
		}
		c.expectNothing()
	}
	take(alone, 60) // as a subscriber by itself, and as the only member of another share
	for range 6 {
		p.publish("jobs/x", "zero", 0, 0)
	}
	for _, c := range members {
		take(c, 2)
		c.expectNothing()
	}
	take(alone, 12)
	alone.expectNothing()
	// Who has left gets nothing any more.
	u := packet.Unsubscribe{PacketID: 9, Filters: []string{jobs}}
	members[0].send(u.Append(nil, packet.V5))
	members[0].expect(packet.UNSUBACK)
	members[2].nc.Close()
	eventually(t, "it is gone", func() bool { return b.srv.Stats().Clients == 4 })
	work(p, 0, 10)
	take(members[1], 10)
	members[0].expectNothing()
}

func TestSharedMessagesGoToTheFirstMemberThatConnects(t *testing.T) {
	stories := map[string]func(*packet.Connect){"with a durable session": lasting(1000), "with a clean one": v5}
	for name, session := range stories {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", name, restart), func(t *testing.T) {
				disk := newFakeDisk()
				b := startBroker(t, disk)
				keeper := b.connect("keeper", lasting(1000))
				keeper.subscribe5(1, holdfast.Subscription{Filter: jobs, QoS: 1})
				keeper.disconnect()
				p := b.connect("pub", v5)
				work(p, 0, 100)
				if restart {
					b.stop()
					disk.restart()
					b = startBroker(t, disk)
				}
				other := b.connect("other", session)
				other.subscribe5(1, holdfast.Subscription{Filter: jobs, QoS: 1, Identifier: 5})
				for i, payload := range take(other, 100) {
					if payload != fmt.Sprint(i) {
						t.Fatalf("message %d is %s: they are not in order", i, payload)
					}
				}
				other.expectNothing()
				b.connect("keeper", lasting(1000)).expectNothing()
				eventually(t, "the share keeps nothing", func() bool {
					disk.mu.Lock()
					defer disk.mu.Unlock()
					return disk.boxes[sharePrefix+jobs].Len() == 0
				})
			})
		}
	}
}

func TestACleanMemberThatIsLostLeavesItsMessagesToTheOthers(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	keeper := b.connect("keeper", lasting(1000))
	keeper.subscribe5(1, holdfast.Subscription{Filter: jobs, QoS: 1})
	keeper.disconnect()
	work(b.connect("pub", v5), 0, 20)
	lost := b.connect("lost", with5(packet.Properties{ReceiveMaximum: 3}))
	lost.subscribe5(1, holdfast.Subscription{Filter: jobs, QoS: 1})
	take(lost, 5)
	lost.expectPublish("jobs/x", "5", 1)
	lost.nc.Close()
	eventually(t, "it is gone", func() bool { return b.srv.Stats().Clients == 1 })
	keeper = b.connect("keeper", lasting(1000))
	for i, payload := range take(keeper, 15) {
		if payload != fmt.Sprint(5+i) {
			t.Fatalf("message %d is %s", 5+i, payload)
		}
	}
	keeper.expectNothing()
}

func TestAShareKeepsNothingForNobody(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	queues := func() int {
		disk.mu.Lock()
		defer disk.mu.Unlock()
		n := 0
		for id := range disk.sessions {
			if id[0] == 0 {
				n++
			}
		}
		return n
	}
	clean := b.connect("clean", v5)
	clean.subscribe5(1, holdfast.Subscription{Filter: jobs, QoS: 1})
	if queues() != 0 {
		t.Error("a share of clean sessions has a queue")
	}
	clean.disconnect()
	c := b.connect("c", lasting(1000))
	c.subscribe5(1, holdfast.Subscription{Filter: jobs, QoS: 1})
	if queues() != 1 {
		t.Error("a share with a durable session has no queue")
	}
	c.disconnect()
	b.connect("c", v5).expectNothing() // ends the session
	if queues() != 0 {
		t.Error("the queue of a share that nobody has is still there")
	}
	work(b.connect("pub", v5), 0, 3)
	eventually(t, "nobody is subscribed", func() bool { return b.srv.Stats().Subscriptions == 0 })
}

func TestFiltersOfSharesThatAreRefused(t *testing.T) { // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
	for _, filter := range []string{"$share//a", "$share/a+/b", "$share/#/b", "$share/name", "$share/name/", "$share/name/a#", "$share/name/a+/b"} {
		b := startBroker(t, newFakeDisk())
		c := b.connect("c", v5)
		p := packet.Subscribe{PacketID: 1, Filters: subsOf(filter, 1)}
		c.send(p.Append(nil, c.v))
		c.expectDisconnect(packet.TopicFilterInvalid)
	}
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Access = forbids{o.Access, "secret"} })
	c := b.connect("c", v5)
	if code := c.subscribe5(1, holdfast.Subscription{Filter: "$share/name/secret"})[0]; code != byte(packet.NotAuthorized) {
		t.Errorf("access did not see the topic behind the share: %#x", code)
	}
	c.raw([]byte("\x82\x12\x00\x02\x00\x00\x0c$share/n/abc\x04")) // No Local [MQTT-3.8.3-4]
	c.expectDisconnect(packet.ProtocolError)
}
