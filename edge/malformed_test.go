package edge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

func subsOf(filter string, qos byte) []holdfast.Subscription {
	return []holdfast.Subscription{{Filter: filter, QoS: qos}}
}

func TestPacketsThatEndTheirConnection(t *testing.T) {
	connect, _ := (&packet.Connect{Version: packet.V311, CleanStart: true, ClientID: "c"}).Append(nil)
	for name, raw := range map[string]string{
		"a second CONNECT":                 string(connect),
		"PUBLISH with a wildcard":          "\x30\x05\x00\x03a/+",
		"PUBLISH without a topic":          "\x30\x02\x00\x00",
		"PUBLISH with QoS 3":               "\x36\x05\x00\x01a\x00\x01",
		"PUBLISH with packet identifier 0": "\x32\x05\x00\x01a\x00\x00",
		"PUBLISH with invalid UTF-8":       "\x30\x04\x00\x02\xc3\x28",
		"PUBLISH with U+0000":              "\x30\x04\x00\x02a\x00",
		"PUBLISH that ends in its topic":   "\x30\x03\x00\x05a",
		"DUP with QoS 0":                   "\x38\x03\x00\x01a",
		"SUBSCRIBE without a QoS byte":     "\x82\x05\x00\x01\x00\x01a",
		"SUBSCRIBE without a filter":       "\x82\x02\x00\x01",
		"SUBSCRIBE with QoS 3":             "\x82\x06\x00\x01\x00\x01a\x03",
		"SUBSCRIBE with wrong flags":       "\x80\x06\x00\x01\x00\x01a\x00",
		"SUBSCRIBE to sport+":              "\x82\x0b\x00\x01\x00\x06sport+\x00",
		"SUBSCRIBE to a/b#":                "\x82\x09\x00\x01\x00\x04a/b#\x00",
		"UNSUBSCRIBE without a filter":     "\xa2\x02\x00\x01",
		"PUBREL with wrong flags":          "\x60\x02\x00\x01",
		"PUBACK that is too short":         "\x40\x01\x00",
		"PINGREQ with a body":              "\xc0\x01\x00",
		"a remaining length of five bytes": "\x30\xff\xff\xff\xff\x01",
		"packet type 0":                    "\x00\x00",
		"a server's packet":                "\x20\x02\x00\x00",
		"a packet over the maximum":        "\x30\x81\x80\x40",
		"AUTH on 3.1.1":                    "\xf0\x00",
		"a topic of too many levels":       "\x30\xcb\x01\x00\xc9" + strings.Repeat("/", 201),
		"DISCONNECT with a body on 3.1.1":  "\xe0\x01\x00",
	} {
		t.Run(name, func(t *testing.T) {
			disk := newFakeDisk()
			b := startBroker(t, disk)
			c := b.connect("c")
			c.raw([]byte(raw))
			c.expectEnd()
			if len(disk.accepted) != 0 {
				t.Error("something of it was stored")
			}
			b.connect("next").expectNothing() // the broker lives
		})
	}
}

func TestFirstPacketsThatAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		raw  string
		code int // return code of the CONNACK; -1 for none
	}{
		"an unknown protocol level":                {"\x10\x0d\x00\x04MQTT\x09\x02\x00\x3c\x00\x01c", int(packet.RefusedVersion)},
		"an empty client identifier without clean": {"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00", int(packet.RefusedIdentifier)},
		"not CONNECT":                  {"\xc0\x00", -1},
		"another protocol":             {"GET / HTTP/1.1\r\n\r\n", -1},
		"the reserved connect flag":    {"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01c", -1},
		"a will topic with a wildcard": {"\x10\x13\x00\x04MQTT\x04\x06\x00\x3c\x00\x01c\x00\x01#\x00\x01x", -1},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBroker(t, newFakeDisk())
			c := b.dial()
			c.raw([]byte(tc.raw))
			if tc.code >= 0 {
				if got := c.connack().Code; int(got) != tc.code {
					t.Errorf("return code %d, want %d", got, tc.code)
				}
			}
			c.expectEnd()
		})
	}
}

func TestEveryPacketCutAtEveryByteLeavesNoTrace(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	whole := func(p []byte, err error) []byte { return p }
	packets := map[string][]byte{
		"PUBLISH":     whole((&packet.Publish{Topic: []byte("a/b"), QoS: 1, PacketID: 3, Payload: []byte("xy")}).Append(nil, packet.V311)),
		"SUBSCRIBE":   whole((&packet.Subscribe{PacketID: 3, Filters: subsOf("a/b", 1)}).Append(nil, packet.V311)),
		"UNSUBSCRIBE": whole((&packet.Unsubscribe{PacketID: 3, Filters: []string{"a/b"}}).Append(nil, packet.V311)),
	}
	for name, p := range packets {
		for cut := 1; cut < len(p); cut++ {
			c := b.connect(fmt.Sprintf("%s-%d", name, cut))
			c.raw(p[:cut])
			c.nc.Close()
		}
	}
	eventually(t, "all are gone", func() bool { return b.srv.Stats().Clients == 0 })
	if len(disk.accepted) != 0 {
		t.Fatalf("%d messages were taken from packets that were cut", len(disk.accepted))
	}
}

func TestPacketsInPiecesAndTogetherAreTheSame(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	c := b.connect("c")
	var all []byte
	for id := uint16(1); id <= 20; id++ {
		all, _ = (&packet.Publish{Topic: []byte("a"), QoS: 1, PacketID: id, Payload: []byte(strings.Repeat("x", int(id)*100))}).Append(all, packet.V311)
	}
	for i := range all[:500] {
		c.raw(all[i : i+1])
	}
	c.raw(all[500:])
	for id := uint16(1); id <= 20; id++ {
		c.expectAck(packet.PUBACK, id)
	}
}

func TestAConnectionWithoutConnectIsClosed(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.ConnectTimeout = 30 * time.Millisecond })
	c := b.dial()
	c.raw([]byte{0x10}) // slowly
	c.expectEnd()
}

func TestMoreClientsThanTheLimitAreTurnedAway(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxConnections = 2 })
	b.connect("a")
	keep := b.connect("b")
	b.dial().expectEnd()
	keep.disconnect()
	eventually(t, "there is room", func() bool { return b.srv.Stats().Clients == 1 })
	eventually(t, "its connection has ended", func() bool {
		b.srv.mu.Lock()
		defer b.srv.mu.Unlock()
		return len(b.srv.conns) == 1
	})
	b.connect("c").expectNothing()
}

func TestAccessIsByAddressWithoutUsers(t *testing.T) {
	for _, tc := range []struct {
		a      Anonymous
		remote string
		want   bool
	}{
		{AnonymousNever, "127.0.0.1:5", false},
		{AnonymousLoopback, "127.0.0.1:5", true},
		{AnonymousLoopback, "[::1]:5", true},
		{AnonymousLoopback, "[::ffff:127.0.0.1]:5", true},
		{AnonymousLoopback, "192.0.2.1:5", false},
		{AnonymousLoopback, "nonsense", false},
		{AnonymousAlways, "192.0.2.1:5", true},
	} {
		if _, err := tc.a.Connect(&Login{ClientID: "c", Remote: tc.remote}, nil); (err == nil) != tc.want {
			t.Errorf("%s from %s: %v", tc.a, tc.remote, err)
		}
	}
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Access = AnonymousNever })
	c := b.dial()
	p := packet.Connect{Version: packet.V311, CleanStart: true, ClientID: "c"}
	c.send(p.Append(nil))
	if code := c.connack().Code; code != packet.RefusedNotAuthorized {
		t.Fatalf("return code %d", code)
	}
	c.expectEnd()
}

func TestDurableSessionsAndTheirFiltersAreBounded(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxSessions = 2 })
	b.connect("a", durable).disconnect()
	b.connect("b", durable).disconnect()
	c := b.dial()
	p := packet.Connect{Version: packet.V311, ClientID: "c"}
	c.send(p.Append(nil))
	if code := c.connack().Code; code != packet.RefusedUnavailable {
		t.Errorf("return code %d for one session too many", code)
	}
	c.expectEnd()
	b.connect("clean").disconnect()
	if a := b.dial(); !a.login("a", durable) {
		t.Error("a session that is there was not taken up")
	}
	b.connect("b").disconnect() // ends the stored session
	b.connect("c", durable).disconnect()

	long := b.connect("long")
	for i := range 5 {
		filter := fmt.Sprintf("%d%s", i, strings.Repeat("x", 60_000))
		s := packet.Subscribe{PacketID: 1, Filters: subsOf(filter, 0)}
		long.send(s.Append(nil, long.v))
		var a packet.Suback
		if err := a.Decode(long.expect(packet.SUBACK), long.v); err != nil || (a.Codes[0] == 0x80) != (i == 4) {
			t.Errorf("filter %d: %v, %v", i, a.Codes, err)
		}
	}
}

func TestRetainedMessagesAreBoundedByTheirBytes(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxRetainedBytes = 25_000 })
	p := b.connect("pub")
	for _, topic := range []string{"a", "b", "c", "a"} {
		p.publish(topic, strings.Repeat(topic, 10_000), 0, 0, retaining)
	}
	p.expectNothing()
	if n := b.srv.Stats().Retained; n != 2 {
		t.Errorf("%d are retained", n)
	}
	p.publish("a", "", 0, 0, retaining)
	p.publish("c", strings.Repeat("c", 10_000), 0, 0, retaining)
	p.expectNothing()
	if n, not := b.srv.Stats().Retained, b.srv.Stats().NotRetained; n != 2 || not != 1 {
		t.Errorf("%d are retained, %d were not", n, not)
	}
}
