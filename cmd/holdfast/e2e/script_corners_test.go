package e2e

import (
	"fmt"
	"slices"

	vocabulary "holdfast"
	"holdfast/edge/packet"
)

// corners are stories of what clients may do and seldom do.
var corners = []story{
	{"packets may follow CONNECT at once [MQTT-3.1.4-5]", "", func(s *script) {
		c := s.dial(v3)
		login, err := (&packet.Connect{Version: v3, CleanStart: true, ClientID: "early"}).Append(nil)
		c.must(err)
		subscribe, err := (&packet.Subscribe{PacketID: 77, Filters: []vocabulary.Subscription{{Filter: "early", QoS: 1}}}).Append(nil, v3)
		c.must(err)
		publish, err := (&packet.Publish{Topic: []byte("early"), Payload: []byte("x")}).Append(nil, v3)
		c.must(err)
		c.raw(slices.Concat(login, subscribe, publish)...)
		c.expect(packet.CONNACK)
		c.expect(packet.SUBACK)
		c.receive("early", "x", 0)
	}},
	{"nothing is taken behind a CONNECT that is refused [MQTT-3.1.4-6]", "", func(s *script) {
		watch := s.connect(v3, "watch")
		watch.sub("behind", 0)
		c := s.dial(v3)
		publish, err := (&packet.Publish{Topic: []byte("behind"), Payload: []byte("x")}).Append(nil, v3)
		c.must(err)
		c.raw(append([]byte{0x10, 12, 0, 4, 'M', 'Q', 'T', 'T', 4, 0, 0, 60, 0, 0}, publish...)...) // no identifier
		c.expect(packet.CONNACK)
		c.ends()
		watch.nothing()
	}},
	{"SUBACK answers each filter in its place [MQTT-3.9.3-1]", "", func(s *script) {
		c := s.connect(v5, "c")
		codes := c.subscribe(vocabulary.Subscription{Filter: "many/a", QoS: 2}, vocabulary.Subscription{Filter: "many/b"}, vocabulary.Subscription{Filter: "many/c", QoS: 1})
		if !slices.Equal(codes, []byte{2, 0, 1}) {
			leave("SUBACK %x", codes)
		}
		c.send((&packet.Unsubscribe{PacketID: 8, Filters: []string{"many/a", "many/x", "many/c"}}).Append(nil, v5))
		var a packet.Unsuback
		c.must(a.Decode(c.expect(packet.UNSUBACK), v5))
		if a.PacketID != 8 || !slices.Equal(a.Codes, []byte{0, 0x11, 0}) {
			leave("UNSUBACK %+v", a)
		}
		for _, topic := range []string{"many/a", "many/b", "many/c"} {
			c.publish(topic, "x", 0, 0)
		}
		c.receive("many/b", "x", 0)
		c.nothing()
	}},
	{"a subscription replaces that with the same filter [MQTT-3.8.4-3]", "", func(s *script) {
		c := s.connect(v3, "c")
		c.sub("replace", 2)
		c.sub("replace", 0)
		c.publish("replace", "x", 0, 0)
		c.receive("replace", "x", 0)
		p := s.connect(v3, "p")
		p.deliver("replace", "y", 2, 1)
		c.receive("replace", "y", 0)
		c.nothing()
	}},
	{"acknowledgements may be long or short (MQTT 5, 3.4.2)", "", func(s *script) {
		c, p := s.connect(v5, "c"), s.connect(v5, "p")
		c.sub("length", 2)
		for i, rest := range [][]byte{{}, {0}, {0, 0}, {0, 7, 0x26, 0, 1, 'n', 0, 1, 'v'}, {0, 4, 0x1F, 0, 1, 'r'}} {
			payload := fmt.Sprint(i)
			p.deliver("length", payload, 1, 1)
			m := c.receiveOnly("length", payload, 1)
			c.raw(append([]byte{0x40, byte(2 + len(rest)), byte(m.PacketID >> 8), byte(m.PacketID)}, rest...)...)
			p.publish("length", payload, 2, 2)
			p.expectAck(packet.PUBREC, 2)
			p.raw(append([]byte{0x62, byte(2 + len(rest)), 0, 2}, rest...)...)
			p.expectAck(packet.PUBCOMP, 2)
			m = c.receiveOnly("length", payload, 2)
			c.raw(append([]byte{0x50, byte(2 + len(rest)), byte(m.PacketID >> 8), byte(m.PacketID)}, rest...)...)
			c.expectAck(packet.PUBREL, m.PacketID)
			c.raw(append([]byte{0x70, byte(2 + len(rest)), byte(m.PacketID >> 8), byte(m.PacketID)}, rest...)...)
		}
		c.nothing()
	}},
	{"an acknowledgement with the reason of another packet (MQTT 5, 3.4.2.1)", "MQTT 5, 3.4.2.1", func(s *script) {
		c, p := s.connect(v5, "c"), s.connect(v5, "p")
		c.sub("reason", 1)
		p.deliver("reason", "x", 1, 1)
		m := c.receiveOnly("reason", "x", 1)
		c.raw(0x40, 3, byte(m.PacketID>>8), byte(m.PacketID), 0x8E) // session taken over
		c.ends()
	}},
	{"DISCONNECT with the reason of another packet [MQTT-3.14.2-1]", "", func(s *script) {
		c := s.connect(v5, "c")
		c.raw(0xE0, 1, 0x01)
		c.ends()
	}},
	{"a response topic with a wildcard [MQTT-3.3.2-14]", "MQTT-3.3.2-14", badThen(v5, 0x30, 11, 0, 1, 'a', 6, 0x08, 0, 3, 'r', '/', '#', 'x')},
	{"a property that is cut", "", badThen(v5, 0x30, 9, 0, 1, 'a', 4, 0x03, 0, 9, 'c', 'x')},
	{"properties that go beyond their packet", "", badThen(v5, 0x30, 5, 0, 1, 'a', 9, 'x')},
	{"a content type that is not UTF-8 [MQTT-3.3.2-19]", "", badThen(v5, 0x30, 9, 0, 1, 'a', 4, 0x03, 0, 1, 0xFF, 'x')},
	{"a user property that is not UTF-8 [MQTT-1.5.7-1]", "", badThen(v5, 0x30, 12, 0, 1, 'a', 7, 0x26, 0, 1, 'n', 0, 1, 0xFF, 'x')},
	{"DISCONNECT ends the session at once with an expiry of 0 (MQTT 5, 3.14.2.2.2)", "", func(s *script) {
		c := s.connect(v5, "ends", lasting)
		c.send((&packet.Disconnect{Properties: &packet.Properties{HasSessionExpiry: true}}).Append(nil, v5))
		c.ends()
		again, a := s.login(v5, "ends", lasting)
		if a.SessionPresent {
			leave("it is still there")
		}
		again.send((&packet.Disconnect{Properties: &packet.Properties{HasSessionExpiry: true}}).Append(nil, v5))
		again.ends()
	}},

	// Wills.
	{"a will may be empty", "", func(s *script) {
		c := s.connect(v3, "c")
		c.sub("will/empty", 1)
		s.connect(v3, "d", willing("will/empty", "", 1, false)).nc.Close()
		c.receive("will/empty", "", 1)
	}},
	{"a will topic must not be empty [MQTT-4.7.3-1]", "", badFirst(0x10, 18, 0, 4, 'M', 'Q', 'T', 'T', 4, 6, 0, 60, 0, 1, 'x', 0, 0, 0, 1, 'p')},
	{"a will topic must be UTF-8 [MQTT-3.1.3-11]", "", badFirst(0x10, 19, 0, 4, 'M', 'Q', 'T', 'T', 4, 6, 0, 60, 0, 1, 'x', 0, 1, 0xFF, 0, 1, 'p')},
	{"a will topic has no wildcard [MQTT-4.7.1-1]", "", badFirst(0x10, 19, 0, 4, 'M', 'Q', 'T', 'T', 4, 6, 0, 60, 0, 1, 'x', 0, 1, '#', 0, 1, 'p')},
	{"a will may be retained [MQTT-3.1.2-15]", "", func(s *script) {
		c := s.connect(v3, "c")
		c.sub("will/kept", 0)
		s.connect(v3, "d", willing("will/kept", "gone", 1, true)).nc.Close()
		c.receive("will/kept", "gone", 0)
		late := s.connect(v3, "late")
		late.sub("will/#", 0)
		if m := late.receive("will/kept", "gone", 0); !m.Retain {
			leave("without RETAIN")
		}
		s.connect(v3, "p").deliver("will/kept", "", 1, 1, kept)
	}},
	{"the properties of a will come with it (MQTT 5, 3.1.3.2)", "", func(s *script) {
		c := s.connect(v5, "c")
		c.sub("will/props", 1)
		s.connect(v5, "d", willing("will/props", "gone", 1, false), func(c *packet.Connect) {
			c.Will.Properties = &packet.Properties{Message: vocabulary.Properties{PayloadUTF8: true, ContentType: "t", ResponseTopic: "r",
				CorrelationData: []byte{7}, User: []vocabulary.UserProperty{{Name: "n", Value: "v"}}}}
		}).nc.Close()
		if m := c.receive("will/props", "gone", 1); m.Properties == nil || !m.Properties.Message.PayloadUTF8 || m.Properties.Message.ContentType != "t" ||
			m.Properties.Message.ResponseTopic != "r" || len(m.Properties.Message.CorrelationData) != 1 || len(m.Properties.Message.User) != 1 {
			leave("%+v", m.Properties)
		}
	}},
	{"a will does not wait longer than its session (MQTT 5, 3.1.3.2.2)", "MQTT 5, 3.1.3.2.2", func(s *script) {
		c := s.connect(v5, "c")
		c.sub("will/delay", 1)
		d := s.connect(v5, "d", willing("will/delay", "gone", 1, false), func(c *packet.Connect) {
			c.Will.Properties = &packet.Properties{WillDelay: 1000} // its session ends with the connection
		})
		d.nc.Close()
		c.receive("will/delay", "gone", 1)
	}},
	{"a client that is back before the delay has no will [MQTT-3.1.3-9]", "", func(s *script) {
		c := s.connect(v5, "c")
		c.sub("will/back", 1)
		delayed := func(c *packet.Connect) { c.Will.Properties = &packet.Properties{WillDelay: 1000} }
		s.connect(v5, "back", lasting, willing("will/back", "gone", 1, false), delayed).nc.Close()
		d, a := s.login(v5, "back", lasting)
		if !a.SessionPresent {
			leave("no session")
		}
		d.bye()
		s.connect(v5, "back").bye()
		c.nothing()
	}},
	{"a new session is the end of the old one's delayed will (MQTT 5, 3.1.3.2.2)", "MQTT 5, 3.1.3.2.2", func(s *script) {
		c := s.connect(v5, "c")
		c.sub("will/new", 1)
		delayed := func(c *packet.Connect) { c.Will.Properties = &packet.Properties{WillDelay: 1000} }
		s.connect(v5, "new", lasting, willing("will/new", "gone", 1, false), delayed).nc.Close()
		s.connect(v5, "new").bye()
		c.receive("will/new", "gone", 1)
	}},
}
