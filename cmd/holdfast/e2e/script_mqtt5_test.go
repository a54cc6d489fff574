package e2e

import (
	"fmt"
	"strings"

	vocabulary "holdfast"
	"holdfast/edge/packet"
)

// mqtt5 are stories of what MQTT 5 has besides.
var mqtt5 = []story{
	{"properties travel with a message", "", func(s *script) {
		c := s.connect(v5, "c")
		c.sub("props", 1)
		c.deliver("props", "x", 0, 0, having(packet.Properties{Message: vocabulary.Properties{
			PayloadUTF8: true, ContentType: "text/plain", ResponseTopic: "re/ply", CorrelationData: []byte{1, 2},
			User: []vocabulary.UserProperty{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}}}))
		m := c.receive("props", "x", 0)
		if x := m.Properties; x == nil || !x.Message.PayloadUTF8 || x.Message.ContentType != "text/plain" || x.Message.ResponseTopic != "re/ply" ||
			string(x.Message.CorrelationData) != "\x01\x02" || len(x.Message.User) != 2 || x.Message.User[1].Value != "2" {
			leave("%+v", m.Properties)
		}
	}},
	{"a Payload Format Indicator of 0 goes on [MQTT-3.3.2-4]", "", func(s *script) {
		c, p := s.connect(v5, "c"), s.connect(v5, "p")
		c.sub("format", 2)
		for qos := range byte(3) {
			p.deliver("format", "x", qos, uint16(qos), having(packet.Properties{Message: vocabulary.Properties{PayloadBytes: true}}))
			if m := c.receive("format", "x", qos); m.Properties == nil || !m.Properties.Message.PayloadBytes {
				leave("QoS %d: %+v", qos, m.Properties)
			}
		}
	}},
	{"no local [MQTT-3.8.3-3]", "", func(s *script) {
		c, d := s.connect(v5, "c"), s.connect(v5, "d")
		c.subscribe(vocabulary.Subscription{Filter: "local", QoS: 1, NoLocal: true})
		d.sub("local", 0)
		c.deliver("local", "x", 1, 1)
		d.receive("local", "x", 0)
		c.nothing()
	}},
	{"subscription identifiers (MQTT 5, 3.3.2.3.8)", "", func(s *script) {
		c := s.connect(v5, "c")
		c.subscribe(vocabulary.Subscription{Filter: "ids/#", Identifier: 300})
		p := s.connect(v5, "p")
		p.publish("ids/a", "x", 0, 0)
		if m := c.receive("ids/a", "x", 0); m.Properties == nil || len(m.Properties.SubscriptionIdentifiers) != 1 || m.Properties.SubscriptionIdentifiers[0] != 300 {
			leave("%+v", m.Properties)
		}
	}},
	{"a shared subscription sends to one of its members (MQTT 5, 4.8.2)", "", func(s *script) {
		c, d, p := s.connect(v5, "c"), s.connect(v5, "d"), s.connect(v5, "p")
		c.sub("$share/g/shared/#", 0)
		d.sub("$share/g/shared/#", 0)
		for i := range 10 {
			p.publish("shared/a", fmt.Sprint(i), 0, 0)
		}
		p.nothing()
		got := 0
		for _, m := range []*peer{c, d} {
			m.raw(packet.AppendPingreq(nil)...)
			for {
				h, _, err := m.next()
				if err != nil {
					leave("%v", err)
				}
				if h.Type == packet.PINGRESP {
					break
				}
				got++
			}
		}
		if got != 10 {
			leave("10 messages came %d times", got)
		}
	}},
	{"no local is for no shared subscription [MQTT-3.8.3-4]", "MQTT-3.8.3-4", func(s *script) {
		c := s.connect(v5, "c")
		c.send((&packet.Subscribe{PacketID: 1, Filters: []vocabulary.Subscription{{Filter: "$share/g/a", NoLocal: true}}}).Append(nil, v5))
		c.ends(packet.ProtocolError)
	}},
	{"topic aliases of a client (MQTT 5, 3.3.2.3.4)", "", func(s *script) {
		c, p := s.connect(v5, "c"), s.connect(v5, "p")
		c.sub("alias/+", 0)
		p.publish("alias/a", "1", 0, 0, having(packet.Properties{TopicAlias: 1}))
		p.publish("", "2", 0, 0, having(packet.Properties{TopicAlias: 1}))
		p.publish("alias/b", "3", 0, 0, having(packet.Properties{TopicAlias: 1}))
		p.publish("", "4", 0, 0, having(packet.Properties{TopicAlias: 1}))
		c.receive("alias/a", "1", 0)
		c.receive("alias/a", "2", 0)
		c.receive("alias/b", "3", 0)
		c.receive("alias/b", "4", 0)
	}},
	{"one topic alias towards a client is used at every QoS [MQTT-3.1.2-26]", "MQTT-3.1.2-26, which lets a server use none", func(s *script) {
		c := s.connect(v5, "c", func(c *packet.Connect) { c.Properties = &packet.Properties{TopicAliasMaximum: 1} })
		c.sub("towards", 2)
		p := s.connect(v5, "p")
		for qos := range byte(3) {
			p.deliver("towards", "x", qos, uint16(qos))
			name := "towards"
			if qos > 0 {
				name = ""
			}
			if m := c.receive(name, "x", qos); m.Properties == nil || m.Properties.TopicAlias != 1 {
				leave("%+v", m.Properties)
			}
		}
	}},
	{"the Receive Maximum of a client is kept [MQTT-3.3.4-9]", "MQTT-3.3.4-9, with max_inflight_messages 0", func(s *script) {
		c := s.connect(v5, "c", func(c *packet.Connect) { c.Properties = &packet.Properties{ReceiveMaximum: 2} })
		c.sub("window", 1)
		p := s.connect(v5, "p")
		for i := range 6 {
			p.deliver("window", fmt.Sprint(i), 1, uint16(i+1))
		}
		for i := range 3 {
			one, two := c.receiveOnly("window", fmt.Sprint(2*i), 1), c.receiveOnly("window", fmt.Sprint(2*i+1), 1)
			c.nothing()
			c.ack(packet.PUBACK, one.PacketID)
			c.ack(packet.PUBACK, two.PacketID)
		}
		c.nothing()
	}},
	{"the Maximum Packet Size of a client is kept [MQTT-3.1.2-24]", "", func(s *script) {
		c := s.connect(v5, "c", func(c *packet.Connect) { c.Properties = &packet.Properties{MaximumPacketSize: 40} })
		c.sub("size", 1)
		p := s.connect(v5, "p")
		p.deliver("size", strings.Repeat("x", 50), 1, 1)
		p.deliver("size", "small", 1, 2)
		c.receive("size", "small", 1)
	}},
	{"what nobody wants is said so (MQTT 5, 3.4.2.1)", "", func(s *script) {
		p := s.connect(v5, "p")
		p.publish("nobody", "x", 1, 1)
		p.expectAck(packet.PUBACK, 1, packet.Success, packet.NoMatchingSubscribers)
	}},
	{"a refused PUBREC frees the message [MQTT-4.3.3-4]", "", func(s *script) {
		c := s.connect(v5, "c")
		c.sub("refuse", 2)
		p := s.connect(v5, "p")
		p.deliver("refuse", "x", 2, 1)
		m := c.receiveOnly("refuse", "x", 2)
		a := packet.Ack{PacketID: m.PacketID, Code: packet.UnspecifiedError}
		c.raw(a.Append(nil, packet.PUBREC, v5)...)
		c.nothing()
		p.deliver("refuse", "y", 2, 2)
		c.receive("refuse", "y", 2)
	}},
	{"a message expires before its subscriber is back [MQTT-3.3.2-5]", "", func(s *script) {
		c := s.connect(v5, "expire", lasting)
		c.sub("expire", 1)
		c.bye()
		p := s.connect(v5, "p")
		p.deliver("expire", "long", 1, 2, having(packet.Properties{Message: vocabulary.Properties{Expiry: 100, HasExpiry: true}}))
		c = s.connect(v5, "expire", lasting)
		if m := c.receive("expire", "long", 1); m.Properties == nil || !m.Properties.Message.HasExpiry || m.Properties.Message.Expiry > 100 {
			leave("%+v", m.Properties)
		}
		c.bye()
		s.connect(v5, "expire").bye()
	}},
	{"DISCONNECT sets an expiry where there was none (MQTT 5, 3.14.2.2.2)", "", func(s *script) {
		c := s.connect(v5, "c")
		c.send((&packet.Disconnect{Properties: &packet.Properties{SessionExpiry: 5, HasSessionExpiry: true}}).Append(nil, v5))
		c.ends(packet.ProtocolError)
	}},
}
