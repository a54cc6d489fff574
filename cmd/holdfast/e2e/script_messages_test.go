package e2e

import (
	"fmt"
	"strings"

	vocabulary "holdfast"
	"holdfast/edge/packet"
)

func kept(p *packet.Publish) { p.Retain = true }
func dup(p *packet.Publish)  { p.Dup = true }

func having(x packet.Properties) func(*packet.Publish) {
	return func(p *packet.Publish) { p.Properties = &x }
}

// messages are stories of messages, retained ones and wills, most of them as all
// versions have them.
var messages = []story{
	{"what is published at each QoS comes at the lower one", "", func(s *script) {
		for pub := byte(0); pub < 3; pub++ {
			for sub := byte(0); sub < 3; sub++ {
				topic := fmt.Sprintf("lower/%d/%d", pub, sub)
				r, p := s.connect(v3, "r"), s.connect(v3, "p")
				r.sub(topic, sub)
				p.deliver(topic, "x", pub, uint16(min(pub, 1)*5))
				r.receive(topic, "x", min(pub, sub))
				r.nothing()
				r.bye()
				p.bye()
			}
		}
	}},
	{"an empty payload is a message", "", func(s *script) {
		c := s.connect(v3, "c")
		c.sub("empty", 1)
		c.publish("empty", "", 0, 0)
		c.receive("empty", "", 0)
	}},
	{"overlapping subscriptions in MQTT 5", "MQTT-3.3.4-2, which lets a copy for each subscription come besides", func(s *script) {
		c := s.connect(v5, "c")
		c.sub("over/#", 2)
		c.sub("over/+", 1)
		p := s.connect(v5, "p")
		p.deliver("over/a", "x", 2, 1)
		c.receive("over/a", "x", 2)
	}},
	{"wildcards", "", func(s *script) { // 4.7
		for _, w := range []struct {
			filter, topic string
			matches       bool
		}{
			{"w/#", "w", true}, {"w/+", "w/", true}, {"w/+", "w", false}, {"w/+/c", "w//c", true}, {"/w/+", "/w/a", true},
			{"w/+/#", "w/a", true}, {"+/x/w", "w/x/w", true}, {"#", "/w", true}, {"+", "/w", false},
		} {
			c := s.connect(v3, "c")
			c.sub(w.filter, 0)
			c.publish(w.topic, "x", 0, 0)
			if w.matches {
				c.receive(w.topic, "x", 0)
			}
			c.nothing()
			c.bye()
		}
	}},
	{"wildcards do not match topics with a $ [MQTT-4.7.2-1]", "", func(s *script) {
		c := s.connect(v3, "c")
		c.sub("+/dollar", 0)
		c.publish("$x/dollar", "x", 0, 0)
		c.nothing()
	}},
	{"a topic may have 200 slashes", "", func(s *script) {
		c := s.connect(v3, "c")
		for _, topic := range []string{strings.Repeat("/", 200), strings.Repeat("abc/", 200) + "d"} {
			c.sub(topic, 1)
			c.publish(topic, "x", 0, 0)
			c.receive(topic, "x", 0)
		}
	}},
	{"what answers another QoS ends the connection (MQTT 5, 4.3)", "", func(s *script) {
		for _, wrong := range []struct {
			qos     byte
			answers []packet.Type
		}{
			{1, []packet.Type{packet.PUBREC}}, {1, []packet.Type{packet.PUBCOMP}},
			{2, []packet.Type{packet.PUBACK}}, {2, []packet.Type{packet.PUBCOMP}}, {2, []packet.Type{packet.PUBREC, packet.PUBACK}},
		} {
			c, p := s.connect(v3, "c"), s.connect(v3, "p")
			c.sub("wrong", 2)
			p.deliver("wrong", "x", wrong.qos, 1)
			m := c.receiveOnly("wrong", "x", wrong.qos)
			for i, answer := range wrong.answers {
				if i > 0 {
					c.expectAck(packet.PUBREL, m.PacketID)
				}
				c.ack(answer, m.PacketID)
			}
			c.ends()
			p.bye()
		}
	}},
	{"an unsubscribed filter brings nothing", "", func(s *script) {
		c := s.connect(v3, "c")
		c.sub("un/a", 0)
		c.sub("un/b", 0)
		c.send((&packet.Unsubscribe{PacketID: 9, Filters: []string{"un/a"}}).Append(nil, v3))
		c.expect(packet.UNSUBACK)
		c.publish("un/a", "x", 0, 0)
		c.publish("un/b", "y", 0, 0)
		c.receive("un/b", "y", 0)
	}},
	{"UNSUBACK says what was not there (MQTT 5, 3.11.3)", "", func(s *script) {
		c := s.connect(v5, "c")
		c.send((&packet.Unsubscribe{PacketID: 9, Filters: []string{"never"}}).Append(nil, v5))
		if b := c.expect(packet.UNSUBACK); b[len(b)-1] != 0x11 {
			leave("%x", b)
		}
	}},
	{"a QoS 2 message that is sent twice comes once [MQTT-4.3.3-10]", "", func(s *script) {
		c := s.connect(v3, "c")
		c.sub("twice", 0)
		p := s.connect(v3, "p")
		p.publish("twice", "x", 2, 3)
		p.expectAck(packet.PUBREC, 3)
		p.publish("twice", "x", 2, 3, dup)
		p.expectAck(packet.PUBREC, 3)
		p.ack(packet.PUBREL, 3)
		p.expectAck(packet.PUBCOMP, 3)
		p.deliver("twice", "y", 2, 3) // the identifier is free again
		c.receive("twice", "x", 0)
		c.receive("twice", "y", 0)
		c.nothing()
	}},
	{"PUBREL for what is unknown is answered", "", func(s *script) {
		c := s.connect(v3, "c")
		c.ack(packet.PUBREL, 99)
		c.expectAck(packet.PUBCOMP, 99)
	}},
	{"what was not acknowledged comes again [MQTT-4.4.0-1]", "", func(s *script) {
		c := s.connect(v3, "again", lasting)
		c.sub("again/#", 2)
		p := s.connect(v3, "p")
		p.deliver("again/1", "x", 1, 1)
		p.deliver("again/2", "y", 2, 2)
		one, two := c.receiveOnly("again/1", "x", 1), c.receiveOnly("again/2", "y", 2)
		c.nc.Close()
		c = s.connect(v3, "again", lasting)
		for _, m := range []struct {
			topic, payload string
			was            packet.Publish
		}{{"again/1", "x", one}, {"again/2", "y", two}} {
			if got := c.receive(m.topic, m.payload, m.was.QoS); !got.Dup || got.PacketID != m.was.PacketID {
				leave("DUP %v, packet identifier %d, was %d", got.Dup, got.PacketID, m.was.PacketID)
			}
		}
		c.nothing()
		c.bye()
		s.connect(v3, "again").bye()
	}},
	{"PUBREL comes again after PUBREC [MQTT-4.4.0-1]", "", func(s *script) {
		c := s.connect(v3, "release", lasting)
		c.sub("release", 2)
		p := s.connect(v3, "p")
		p.deliver("release", "x", 2, 2)
		m := c.receiveOnly("release", "x", 2)
		c.ack(packet.PUBREC, m.PacketID)
		c.expectAck(packet.PUBREL, m.PacketID)
		c.nc.Close()
		c = s.connect(v3, "release", lasting)
		c.expectAck(packet.PUBREL, m.PacketID)
		c.ack(packet.PUBCOMP, m.PacketID)
		c.nothing()
		c.bye()
		s.connect(v3, "release").bye()
	}},
	{"messages for a client that is away", "", func(s *script) {
		c := s.connect(v3, "away", lasting)
		c.sub("away/+", 1)
		c.bye()
		p := s.connect(v3, "p")
		for i := range 5 {
			p.deliver("away/x", fmt.Sprint(i), 1, uint16(i+1))
		}
		c, a := s.login(v3, "away", lasting)
		if !a.SessionPresent {
			leave("no session")
		}
		for i := range 5 {
			c.receive("away/x", fmt.Sprint(i), 1)
		}
		c.bye()
		if _, a := s.login(v3, "away"); a.SessionPresent {
			leave("a clean session that was there before")
		}
	}},
	{"a session without expiry ends with its connection (MQTT 5, 3.1.2.11.2)", "", func(s *script) {
		c := s.connect(v5, "short")
		c.sub("short", 1)
		c.bye()
		if _, a := s.login(v5, "short", func(c *packet.Connect) { c.CleanStart = false }); a.SessionPresent {
			leave("it is still there")
		}
	}},

	// Retained messages and wills.
	{"a retained message comes to who subscribes later, and is deleted by an empty one", "", func(s *script) {
		p := s.connect(v3, "p")
		p.deliver("keep/a", "old", 1, 1, kept)
		p.deliver("keep/a", "new", 1, 2, kept)
		c := s.connect(v3, "c")
		c.sub("keep/#", 0)
		if m := c.receive("keep/a", "new", 0); !m.Retain {
			leave("without RETAIN")
		}
		p.deliver("keep/a", "now", 1, 3, kept)
		if m := c.receive("keep/a", "now", 0); m.Retain {
			leave("a live message with RETAIN [MQTT-3.3.1-9]")
		}
		p.deliver("keep/a", "", 1, 4, kept)
		c.receive("keep/a", "", 0)
		d := s.connect(v3, "d")
		d.sub("keep/#", 0)
		d.nothing()
	}},
	{"retain handling and retain as published (MQTT 5, 3.8.3.1)", "", func(s *script) {
		p := s.connect(v5, "p")
		p.deliver("opt/a", "x", 1, 1, kept)
		c := s.connect(v5, "c")
		c.subscribe(vocabulary.Subscription{Filter: "opt/+", RetainHandling: 2, RetainAsPublished: true})
		c.nothing()
		c.subscribe(vocabulary.Subscription{Filter: "opt/+", RetainHandling: 1, RetainAsPublished: true})
		c.nothing()
		p.deliver("opt/a", "y", 1, 2, kept)
		if m := c.receive("opt/a", "y", 0); !m.Retain {
			leave("RETAIN is not as it was published")
		}
		c.subscribe(vocabulary.Subscription{Filter: "opt/+"})
		c.receive("opt/a", "y", 0)
		p.deliver("opt/a", "", 1, 3, kept)
	}},
	{"the will of a client that is lost", "", func(s *script) {
		c := s.connect(v3, "c")
		c.sub("will/a", 1)
		d := s.connect(v3, "d", willing("will/a", "gone", 1, false))
		d.nc.Close()
		c.receive("will/a", "gone", 1)
	}},
	{"no will after DISCONNECT [MQTT-3.14.4-3]", "", func(s *script) {
		c := s.connect(v3, "c")
		c.sub("will/b", 1)
		s.connect(v3, "d", willing("will/b", "gone", 1, false)).bye()
		c.nothing()
	}},
	{"the will after DISCONNECT with 0x04 (MQTT 5, 3.14.2.1)", "", func(s *script) {
		c := s.connect(v5, "c")
		c.sub("will/c", 1)
		d := s.connect(v5, "d", willing("will/c", "gone", 1, false))
		d.raw(0xE0, 1, 4)
		c.receive("will/c", "gone", 1)
	}},
	{"the will at a takeover", "", func(s *script) {
		c := s.connect(v3, "c")
		c.sub("will/d", 1)
		s.connect(v3, "d", willing("will/d", "gone", 1, false))
		s.connect(v3, "d")
		c.receive("will/d", "gone", 1)
	}},
}
