package e2e

import (
	"slices"

	"holdfast/edge/packet"
)

const (
	v3 = packet.V311
	v5 = packet.V5
)

type story struct {
	name string
	// mosquitto is the clause for which mosquitto 2.0.11 is known to leave it.
	mosquitto string
	tell      func(s *script)
}

func lasting(c *packet.Connect) {
	c.CleanStart = false
	if c.Version == v5 {
		c.Properties = &packet.Properties{SessionExpiry: 1000, HasSessionExpiry: true}
	}
}

func willing(topic, payload string, qos byte, retain bool) func(*packet.Connect) {
	return func(c *packet.Connect) {
		c.Will = &packet.Will{Topic: topic, Payload: []byte(payload), QoS: qos, Retain: retain}
	}
}

// badFirst sends bytes as the first packet, after which the connection must end.
func badFirst(b ...byte) func(s *script) {
	return func(s *script) {
		c := s.dial(v3)
		c.raw(b...)
		c.ends()
	}
}

// badThen sends bytes after CONNECT.
func badThen(v packet.Version, b ...byte) func(s *script) {
	return func(s *script) {
		c := s.connect(v, "bad")
		c.raw(b...)
		c.ends()
	}
}

var stories = slices.Concat(connecting, messages, mqtt5, corners)

// connecting are stories of connections, and of packets that end them.
var connecting = []story{
	{"a first packet that is no CONNECT", "", badFirst(0x30, 3, 0, 1, 'a')},
	{"a CONNECT of another protocol [MQTT-3.1.2-1]", "", func(s *script) {
		c := s.dial(v5) // which may be told so
		c.raw(0x10, 12, 0, 4, 'M', 'Q', 'T', 'X', 4, 2, 0, 60, 0, 0)
		c.ends()
	}},
	{"a CONNECT with its reserved flag [MQTT-3.1.2-3]", "", badFirst(0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 3, 0, 60, 0, 1, 'x')},
	{"a CONNECT with bad header flags [MQTT-2.1.3-1]", "", badFirst(0x11, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 1, 'x')},
	{"a CONNECT with a will of QoS 3 [MQTT-3.1.2-14]", "", badFirst(0x10, 19, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x1E, 0, 60, 0, 1, 'x', 0, 1, 'w', 0, 1, 'p')},
	{"a will QoS without a will [MQTT-3.1.2-13]", "", badFirst(0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 0x0A, 0, 60, 0, 1, 'x')},
	{"a remaining length of five bytes", "", badFirst(0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F)},
	{"an unknown level of the protocol", "", func(s *script) {
		c := s.dial(v3)
		c.raw(0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 9, 2, 0, 60, 0, 1, 'x')
		c.expect(packet.CONNACK)
		c.ends()
	}},
	{"a second CONNECT [MQTT-3.1.0-2]", "", func(s *script) {
		c := s.connect(v3, "twice")
		c.send((&packet.Connect{Version: v3, CleanStart: true, ClientID: "twice"}).Append(nil))
		c.ends()
	}},
	{"no identifier with clean session 0 [MQTT-3.1.3-8]", "", func(s *script) {
		c, a := s.login(v3, "", func(c *packet.Connect) { c.CleanStart = false })
		if a.Code != packet.RefusedIdentifier {
			leave("code %d", a.Code)
		}
		c.ends()
	}},
	{"no identifier with clean session 1", "", func(s *script) { s.connect(v3, "").nothing() }},
	{"an identifier is assigned [MQTT-3.2.2-16]", "", func(s *script) {
		if _, a := s.login(v5, ""); a.Code != 0 || a.Properties == nil || a.Properties.AssignedClientID == "" {
			leave("%+v", a)
		}
	}},
	{"another connection takes over [MQTT-3.1.4-3]", "MQTT-3.1.4-3", func(s *script) {
		first := s.connect(v5, "same")
		s.connect(v5, "same").nothing()
		first.ends(packet.SessionTakenOver)
	}},
	{"an unknown way to authenticate [MQTT-4.12.0-1]", "", func(s *script) {
		_, a := s.login(v5, "auth", func(c *packet.Connect) {
			c.Properties = &packet.Properties{AuthenticationMethod: "none of these"}
		})
		if a.Code != byte(packet.BadAuthenticationMethod) {
			leave("code %#x", a.Code)
		}
	}},
	{"AUTH out of nowhere (MQTT 5, 4.12)", "", badThen(v5, 0xF0, 0)},

	// Malformed packets.
	{"PUBLISH with QoS 3 [MQTT-3.3.1-4]", "", badThen(v3, 0x36, 6, 0, 1, 'a', 0, 1, 'x')},
	{"PUBLISH with QoS 0 and DUP [MQTT-3.3.1-2]", "MQTT-3.3.1-2", badThen(v3, 0x38, 4, 0, 1, 'a', 'x')},
	{"PUBLISH with packet identifier 0 [MQTT-2.3.1-1]", "", badThen(v3, 0x32, 6, 0, 1, 'a', 0, 0, 'x')},
	{"PUBLISH to a wildcard [MQTT-3.3.2-2]", "", badThen(v3, 0x30, 4, 0, 1, '#', 'x')},
	{"PUBLISH to a topic that is not UTF-8 [MQTT-1.5.4-1]", "", badThen(v3, 0x30, 4, 0, 1, 0xFF, 'x')},
	{"PUBLISH to a topic with U+0000 [MQTT-1.5.4-2]", "", badThen(v3, 0x30, 4, 0, 1, 0, 'x')},
	{"PUBLISH to no topic [MQTT-4.7.3-1]", "", badThen(v3, 0x30, 3, 0, 0, 'x')},
	{"SUBSCRIBE without filters [MQTT-3.8.3-3]", "", badThen(v3, 0x82, 2, 0, 1)},
	{"SUBSCRIBE without its QoS", "", badThen(v3, 0x82, 5, 0, 1, 0, 1, 'a')},
	{"SUBSCRIBE with QoS 3 [MQTT-3.8.3-4]", "", badThen(v3, 0x82, 6, 0, 1, 0, 1, 'a', 3)},
	{"SUBSCRIBE with bad header flags [MQTT-3.8.1-1]", "", badThen(v3, 0x80, 6, 0, 1, 0, 1, 'a', 0)},
	{"SUBSCRIBE with packet identifier 0 [MQTT-2.3.1-1]", "", badThen(v3, 0x82, 6, 0, 0, 0, 1, 'a', 0)},
	{"SUBSCRIBE to nothing [MQTT-4.7.3-1]", "", badThen(v3, 0x82, 5, 0, 1, 0, 0, 0)},
	{"SUBSCRIBE to a# [MQTT-4.7.1-2]", "", badThen(v3, 0x82, 7, 0, 1, 0, 2, 'a', '#', 0)},
	{"SUBSCRIBE to a+ [MQTT-4.7.1-3]", "", badThen(v3, 0x82, 7, 0, 1, 0, 2, 'a', '+', 0)},
	{"SUBSCRIBE to #/a [MQTT-4.7.1-2]", "", badThen(v3, 0x82, 8, 0, 1, 0, 3, '#', '/', 'a', 0)},
	{"SUBSCRIBE with reserved options (MQTT 5, 3.8.3.1)", "", badThen(v5, 0x82, 7, 0, 1, 0, 0, 1, 'a', 0xC0)},
	{"SUBSCRIBE with retain handling 3 (MQTT 5, 3.8.3.1)", "", badThen(v5, 0x82, 7, 0, 1, 0, 0, 1, 'a', 0x30)},
	{"UNSUBSCRIBE without filters [MQTT-3.10.3-2]", "", badThen(v3, 0xA2, 2, 0, 1)},
	{"UNSUBSCRIBE with bad header flags [MQTT-3.10.1-1]", "", badThen(v3, 0xA0, 5, 0, 1, 0, 1, 'a')},
	{"UNSUBSCRIBE from nothing [MQTT-4.7.3-1]", "", badThen(v3, 0xA2, 4, 0, 1, 0, 0)},
	{"PUBREL with bad header flags [MQTT-3.6.1-1]", "", badThen(v3, 0x60, 2, 0, 1)},
	{"PUBACK that is cut", "", badThen(v3, 0x40, 1, 0)},
	{"PINGREQ with a body", "MQTT 5, 3.12", badThen(v3, 0xC0, 1, 0)},
	{"DISCONNECT with bad header flags [MQTT-3.14.1-1]", "", badThen(v3, 0xE1, 0)},
	{"a packet of a server", "", badThen(v3, 0x20, 2, 0, 0)},
	{"a reserved type", "", badThen(v3, 0x00, 0)},
	{"a property twice (MQTT 5, 2.2.2.2)", "", badThen(v5, 0x30, 9, 0, 1, 'a', 4, 1, 1, 1, 1, 'x')},
	{"a property of another packet (MQTT 5, 2.2.2.2)", "", badThen(v5, 0x30, 7, 0, 1, 'a', 2, 0x24, 1, 'x')},
	{"a topic alias of 0 [MQTT-3.3.2-8]", "", badThen(v5, 0x30, 8, 0, 1, 'a', 3, 0x23, 0, 0, 'x')},
	{"a topic alias that is unknown", "", badThen(v5, 0x30, 7, 0, 0, 3, 0x23, 0, 1, 'x')},
	{"a subscription identifier from a client [MQTT-3.3.4-6]", "MQTT-3.3.4-6", badThen(v5, 0x30, 7, 0, 1, 'a', 2, 0x0B, 1, 'x')},
	{"a subscription identifier of 0 (MQTT 5, 3.8.2.1.2)", "", badThen(v5, 0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, 'a', 0)},
}
