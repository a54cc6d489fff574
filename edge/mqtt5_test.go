package edge

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"holdfast"
	"holdfast/edge/packet"
)

func v5(p *packet.Connect) { p.Version = packet.V5 }

// with5 is a CONNECT of MQTT 5 with properties.
func with5(a packet.Properties) func(*packet.Connect) {
	return func(p *packet.Connect) { p.Version, p.Properties = packet.V5, &a }
}

// lasting is a session that outlives its connection, taken up if it is there.
func lasting(seconds uint32) func(*packet.Connect) {
	return func(p *packet.Connect) {
		p.Version, p.CleanStart = packet.V5, false
		p.Properties = &packet.Properties{SessionExpiry: seconds, HasSessionExpiry: true}
	}
}

func having(a packet.Properties) func(*packet.Publish) {
	return func(p *packet.Publish) { p.Properties = &a }
}

// subscribe5 subscribes with options and returns the codes of SUBACK.
func (c *client) subscribe5(id uint16, subs ...holdfast.Subscription) []byte {
	c.t.Helper()
	p := packet.Subscribe{PacketID: id, Filters: subs}
	c.send(p.Append(nil, c.v))
	var a packet.Suback
	if err := a.Decode(c.expect(packet.SUBACK), c.v); err != nil || a.PacketID != id {
		c.t.Fatalf("SUBACK %+v, error %v", a, err)
	}
	return a.Codes
}

// expectCode reads an acknowledgement with that reason code.
func (c *client) expectCode(t packet.Type, id uint16, code packet.ReasonCode) {
	c.t.Helper()
	var a packet.Ack
	if err := a.Decode(c.expect(t), c.v); err != nil || a.PacketID != id || a.Code != code || a.Properties != nil {
		c.t.Fatalf("%v for %d with %v, error %v; want %v for %d", t, a.PacketID, a.Code, err, code, id)
	}
}

// expectDisconnect reads a DISCONNECT with that reason code, and the end.
func (c *client) expectDisconnect(code packet.ReasonCode) {
	c.t.Helper()
	var p packet.Disconnect
	if err := p.Decode(c.expect(packet.DISCONNECT), c.v); err != nil || p.Code != code {
		c.t.Fatalf("DISCONNECT with %v, error %v; want %v", p.Code, err, code)
	}
	c.expectEnd()
}

// acked waits until the broker has taken what was published with packet
// identifier 1, or with QoS 0.
func (c *client) acked(qos byte) {
	c.t.Helper()
	if qos == 0 {
		c.expectNothing()
		return
	}
	c.expectAck(packet.PUBACK, 1)
}

// greet sends CONNECT and returns CONNACK, whatever it says.
func (c *client) greet(id string, set ...func(*packet.Connect)) packet.Connack {
	c.t.Helper()
	p := packet.Connect{Version: packet.V5, CleanStart: true, ClientID: id}
	for _, f := range set {
		f(&p)
	}
	c.v = p.Version
	c.send(p.Append(nil))
	return c.connack()
}

func TestConnackTellsTheLimits(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.ReceiveMaximum = 7 })
	a := b.dial().greet("")
	if a.Code != 0 || a.Properties == nil || !strings.HasPrefix(a.Properties.AssignedClientID, "auto-") {
		t.Fatalf("CONNACK %+v: no assigned client identifier [MQTT-3.2.2-16]", a)
	}
	if p := a.Properties; p.ReceiveMaximum != 7 || p.MaximumPacketSize != 256<<10 || p.TopicAliasMaximum != maxAliases || p.HasServerKeepAlive {
		t.Errorf("properties %+v", p)
	}
	if a := b.dial().greet("named"); a.Properties.AssignedClientID != "" {
		t.Error("a client that has a name got another one")
	}
	if a := b.dial().greet("", func(p *packet.Connect) { p.CleanStart = false }); a.Code != 0 || a.SessionPresent {
		t.Error("an empty client identifier without clean start was refused")
	}
	b = startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxKeepAlive = 60e9 })
	for _, tc := range []struct {
		asked uint16
		told  bool
	}{{0, true}, {61, true}, {60, false}, {5, false}} {
		a := b.dial().greet("c", func(p *packet.Connect) { p.KeepAlive = tc.asked })
		if p := a.Properties; p.HasServerKeepAlive != tc.told || tc.told && p.ServerKeepAlive != 60 {
			t.Errorf("keep alive %d: %+v [MQTT-3.2.2-21]", tc.asked, p)
		}
	}
}

func TestConnectsOfMQTT5ThatAreRefused(t *testing.T) {
	refused := map[string]struct {
		tweak func(*packet.Connect)
		code  packet.ReasonCode
	}{
		"enhanced authentication [MQTT-4.12.0-1]": {with5(packet.Properties{AuthenticationMethod: "GS2-KRB5"}), packet.BadAuthenticationMethod},
		"a client identifier that is too long":    {func(p *packet.Connect) { p.ClientID = strings.Repeat("x", 2000) }, packet.ClientIdentifierNotValid},
		"a will topic with too many levels":       {withWill(strings.Repeat("/", 201), "", 0, false), packet.QuotaExceeded},
		"one session too many":                    {lasting(1), packet.QuotaExceeded},
	}
	for name, tc := range refused {
		t.Run(name, func(t *testing.T) {
			b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxSessions = 1 })
			b.connect("first", durable)
			c := b.dial()
			a := c.greet("c", v5, tc.tweak)
			if packet.ReasonCode(a.Code) != tc.code || a.Properties == nil || a.Properties.ReasonString == "" {
				t.Fatalf("CONNACK %+v", a)
			}
			c.expectEnd()
		})
	}
	t.Run("not authorized", func(t *testing.T) {
		b := startBroker(t, newFakeDisk(), func(o *Options) { o.Access = AnonymousNever })
		if a := b.dial().greet("c"); packet.ReasonCode(a.Code) != packet.NotAuthorized {
			t.Fatalf("CONNACK %+v", a)
		}
	})
	for name, tc := range map[string]struct {
		raw  string
		code packet.ReasonCode
	}{
		"a reserved flag [MQTT-3.1.2-3]":  {"\x10\x0e\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x01c", packet.MalformedPacket},
		"a receive maximum of 0":          {"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x03\x21\x00\x00\x00\x01c", packet.ProtocolError},
		"a property twice":                {"\x10\x14\x00\x04MQTT\x05\x02\x00\x3c\x06\x21\x00\x01\x21\x00\x01\x00\x01c", packet.ProtocolError},
		"a property of another packet":    {"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x03\x23\x00\x01\x00\x01c", packet.MalformedPacket},
		"a will topic with a wildcard":    {"\x10\x15\x00\x04MQTT\x05\x06\x00\x3c\x00\x00\x01c\x00\x00\x01#\x00\x01x", packet.TopicNameInvalid},
		"a client identifier cut by half": {"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x05c", packet.MalformedPacket},
	} {
		t.Run(name, func(t *testing.T) {
			c := startBroker(t, newFakeDisk()).dial()
			c.v = packet.V5
			c.raw([]byte(tc.raw))
			if a := c.connack(); packet.ReasonCode(a.Code) != tc.code {
				t.Errorf("CONNACK with %v, want %v", packet.ReasonCode(a.Code), tc.code)
			}
			c.expectEnd()
		})
	}
}

func TestPacketsThatEndAConnectionOfMQTT5(t *testing.T) {
	connect, _ := (&packet.Connect{Version: packet.V5, CleanStart: true, ClientID: "c"}).Append(nil)
	for name, tc := range map[string]struct {
		raw  string
		code packet.ReasonCode
	}{
		"a second CONNECT [MQTT-3.1.0-2]":                      {string(connect), packet.ProtocolError},
		"a server's packet":                                    {"\x20\x03\x00\x00\x00", packet.ProtocolError},
		"AUTH without a method in CONNECT":                     {"\xf0\x00", packet.ProtocolError},
		"PUBLISH with a wildcard [MQTT-3.3.2-2]":               {"\x30\x06\x00\x03a/+\x00", packet.TopicNameInvalid},
		"PUBLISH with QoS 3 [MQTT-3.3.1-4]":                    {"\x36\x06\x00\x01a\x00\x01\x00", packet.MalformedPacket},
		"PUBLISH with DUP and QoS 0 [MQTT-3.3.1-2]":            {"\x38\x04\x00\x01a\x00", packet.MalformedPacket},
		"PUBLISH with packet identifier 0 [MQTT-2.2.1-3]":      {"\x32\x06\x00\x01a\x00\x00\x00", packet.ProtocolError},
		"PUBLISH without topic and alias":                      {"\x30\x03\x00\x00\x00", packet.ProtocolError},
		"PUBLISH with topic alias 0 [MQTT-3.3.2-8]":            {"\x30\x07\x00\x01a\x03\x23\x00\x00", packet.TopicAliasInvalid},
		"PUBLISH with an alias over ours [MQTT-3.3.2-9]":       {"\x30\x07\x00\x01a\x03\x23\x00\xff", packet.TopicAliasInvalid},
		"PUBLISH with an alias never set":                      {"\x30\x06\x00\x00\x03\x23\x00\x01", packet.ProtocolError},
		"PUBLISH with a subscription identifier":               {"\x30\x06\x00\x01a\x02\x0b\x01", packet.ProtocolError},
		"PUBLISH with a payload format of 2":                   {"\x30\x06\x00\x01a\x02\x01\x02", packet.ProtocolError},
		"PUBLISH with a property that is none":                 {"\x30\x06\x00\x01a\x02\x7f\x01", packet.MalformedPacket},
		"PUBLISH whose properties are longer than it":          {"\x30\x05\x00\x01a\x7f\x01", packet.MalformedPacket},
		"PUBLISH with a response topic with a wildcard":        {"\x30\x08\x00\x01a\x04\x08\x00\x01#", packet.TopicNameInvalid},
		"PUBLISH with invalid UTF-8":                           {"\x30\x05\x00\x02\xc3\x28\x00", packet.MalformedPacket},
		"SUBSCRIBE without its options":                        {"\x82\x06\x00\x01\x00\x00\x01a", packet.MalformedPacket},
		"SUBSCRIBE without a filter [MQTT-3.8.3-2]":            {"\x82\x03\x00\x01\x00", packet.ProtocolError},
		"SUBSCRIBE with QoS 3":                                 {"\x82\x07\x00\x01\x00\x00\x01a\x03", packet.MalformedPacket},
		"SUBSCRIBE with reserved bits [MQTT-3.8.3-5]":          {"\x82\x07\x00\x01\x00\x00\x01a\x40", packet.MalformedPacket},
		"SUBSCRIBE with retain handling 3":                     {"\x82\x07\x00\x01\x00\x00\x01a\x30", packet.ProtocolError},
		"SUBSCRIBE with packet identifier 0":                   {"\x82\x07\x00\x00\x00\x00\x01a\x00", packet.ProtocolError},
		"SUBSCRIBE with wrong flags [MQTT-3.8.1-1]":            {"\x80\x07\x00\x01\x00\x00\x01a\x00", packet.MalformedPacket},
		"SUBSCRIBE with identifier 0":                          {"\x82\x09\x00\x01\x02\x0b\x00\x00\x01a\x00", packet.ProtocolError},
		"SUBSCRIBE to sport+ [MQTT-4.7.1-2]":                   {"\x82\x0c\x00\x01\x00\x00\x06sport+\x00", packet.TopicFilterInvalid},
		"SUBSCRIBE to a+/b":                                    {"\x82\x0a\x00\x01\x00\x00\x04a+/b\x00", packet.TopicFilterInvalid},
		"SUBSCRIBE to sport#":                                  {"\x82\x0c\x00\x01\x00\x00\x06sport#\x00", packet.TopicFilterInvalid},
		"SUBSCRIBE to a/b# [MQTT-4.7.1-1]":                     {"\x82\x0a\x00\x01\x00\x00\x04a/b#\x00", packet.TopicFilterInvalid},
		"UNSUBSCRIBE without a filter":                         {"\xa2\x03\x00\x01\x00", packet.ProtocolError},
		"PUBREL with wrong flags [MQTT-3.6.1-1]":               {"\x60\x02\x00\x01", packet.MalformedPacket},
		"PUBACK with a reason code of DISCONNECT":              {"\x40\x03\x00\x01\x8d", packet.ProtocolError},
		"PINGREQ with a body":                                  {"\xc0\x01\x00", packet.MalformedPacket},
		"a remaining length of five bytes [MQTT-1.5.5-1]":      {"\x30\xff\xff\xff\xff\x01", packet.MalformedPacket},
		"a remaining length not in its shortest form":          {"\x30\x84\x00\x00\x01a\x00", packet.MalformedPacket},
		"packet type 0":                                        {"\x00\x00", packet.MalformedPacket},
		"a packet over our maximum [MQTT-3.2.2-15]":            {"\x30\x81\x80\x40", packet.PacketTooLarge},
		"a topic of too many levels":                           {"\x30\xcc\x01\x00\xc9" + strings.Repeat("/", 201) + "\x00", packet.QuotaExceeded},
		"DISCONNECT that gives a session without expiry a one": {"\xe0\x07\x00\x05\x11\x00\x00\x00\x01", packet.ProtocolError},
	} {
		t.Run(name, func(t *testing.T) {
			disk := newFakeDisk()
			b := startBroker(t, disk)
			c := b.connect("c", v5)
			c.raw([]byte(tc.raw))
			c.expectDisconnect(tc.code)
			if len(disk.accepted) != 0 {
				t.Error("something of it was stored")
			}
			b.connect("next", v5).expectNothing() // the broker lives
		})
	}
}

func TestEveryPacketOfMQTT5CutAtEveryByteLeavesNoTrace(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	whole := func(p []byte, err error) []byte { return p }
	packets := map[string][]byte{
		"PUBLISH": whole((&packet.Publish{Topic: []byte("a/b"), QoS: 1, PacketID: 3, Payload: []byte("xy"),
			Properties: &packet.Properties{TopicAlias: 1, Message: holdfast.Properties{ContentType: "c"}}}).Append(nil, packet.V5)),
		"SUBSCRIBE":   whole((&packet.Subscribe{PacketID: 3, Filters: []holdfast.Subscription{{Filter: "a/b", QoS: 1, Identifier: 9}}}).Append(nil, packet.V5)),
		"UNSUBSCRIBE": whole((&packet.Unsubscribe{PacketID: 3, Filters: []string{"a/b"}}).Append(nil, packet.V5)),
	}
	for name, p := range packets {
		for cut := 1; cut < len(p); cut++ {
			c := b.connect(fmt.Sprintf("%s-%d", name, cut), v5)
			c.raw(p[:cut])
			c.nc.Close()
		}
	}
	eventually(t, "all are gone", func() bool { return b.srv.Stats().Clients == 0 })
	if len(disk.accepted) != 0 {
		t.Fatalf("%d messages were taken from packets that were cut", len(disk.accepted))
	}
}

func TestTheClientIsToldWhyItsConnectionEnds(t *testing.T) {
	t.Run("takeover [MQTT-3.1.4-3]", func(t *testing.T) {
		b := startBroker(t, newFakeDisk())
		old := b.connect("c", v5)
		b.connect("c")
		old.expectDisconnect(packet.SessionTakenOver)
	})
	t.Run("shutdown", func(t *testing.T) {
		b := startBroker(t, newFakeDisk())
		c := b.connect("c", v5)
		b.stop()
		c.expectDisconnect(packet.ServerShuttingDown)
	})
	t.Run("silence [MQTT-3.1.2-22]", func(t *testing.T) {
		b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxKeepAlive = 1e9 })
		c := b.connect("c", v5)
		c.expectDisconnect(packet.KeepAliveTimeout)
	})
	t.Run("but not in 3.1.1, which has no such packet", func(t *testing.T) {
		b := startBroker(t, newFakeDisk())
		old := b.connect("c")
		b.connect("c", v5)
		old.expectEnd()
	})
	t.Run("nor with more words than it has room for [MQTT-3.14.2-3]", func(t *testing.T) {
		b := startBroker(t, newFakeDisk())
		old := b.connect("c", with5(packet.Properties{MaximumPacketSize: 20}))
		b.connect("c")
		h, body, err := old.next()
		if err != nil || h.Type != packet.DISCONNECT || len(body) != 1 {
			t.Fatalf("received %v %q, error %v", h.Type, body, err)
		}
	})
}

// Single bytes are no sign of life: a device that hangs in the middle of a
// packet is lost like one that is silent.
func TestBytesThatMakeNoPacketDoNotRenewTheKeepAlive(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxKeepAlive = 1e9 })
	c := b.connect("c", v5)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.expectDisconnect(packet.KeepAliveTimeout)
	}()
	p := whole(t)((&packet.Publish{Topic: []byte("a"), Payload: make([]byte, 10_000)}).Append(nil, packet.V5))
	for i := 0; ; i++ {
		select {
		case <-ended:
			return
		default:
		}
		c.nc.Write(p[i : i+1])
		tick := newTick()
		select {
		case <-ended:
		case <-tick.C:
		}
		tick.Stop()
	}
}

func TestPropertiesOfAMessageGoOnUnchanged(t *testing.T) {
	all := holdfast.Properties{
		PayloadUTF8: true, HasExpiry: true, Expiry: 4_000_000_000, ContentType: "text/plain", ResponseTopic: "answers/1",
		CorrelationData: []byte{0, 1, 0xFF}, User: []holdfast.UserProperty{{Name: "k", Value: "2"}, {Name: "k", Value: "1"}, {Name: "", Value: ""}},
	}
	disk := newFakeDisk()
	b := startBroker(t, disk)
	p := b.connect("pub", v5)
	live := b.connect("live", v5)
	live.subscribe5(1, holdfast.Subscription{Filter: "a", QoS: 2})
	away := b.connect("away", lasting(3600))
	away.subscribe5(1, holdfast.Subscription{Filter: "a", QoS: 2})
	away.disconnect()
	old := b.connect("old")
	old.subscribe(1, "a", 0)
	same := func(got packet.Publish) {
		t.Helper()
		if got.Properties == nil || !reflect.DeepEqual(got.Properties.Message, all) || got.Properties.TopicAlias != 0 || got.Properties.SubscriptionIdentifiers != nil {
			t.Fatalf("properties %+v, want %+v", got.Properties, all)
		}
	}
	for qos := range byte(3) {
		p.publish("a", "x", qos, 1+uint16(qos), having(packet.Properties{Message: all}), retaining)
		got := live.expectPublish("a", "x", qos)
		same(got)
		old.expectPublish("a", "x", 0)
		if qos == 2 {
			p.expectAck(packet.PUBREC, 3)
			p.ack(packet.PUBREL, 3)
			p.expectAck(packet.PUBCOMP, 3)
		} else if qos == 1 {
			p.expectAck(packet.PUBACK, 2)
		}
	}
	b.stop()
	disk.restart()
	b = startBroker(t, disk)
	away = b.connect("away", lasting(3600))
	same(away.expectPublish("a", "x", 1))
	same(away.expectPublish("a", "x", 2))
	late := b.connect("late", v5)
	late.subscribe5(1, holdfast.Subscription{Filter: "a"})
	same(late.expectPublish("a", "x", 0)) // the retained one
	b.connect("pub", v5).publish("a", "bare", 0, 0)
	if got := late.expectPublish("a", "bare", 0); got.Properties != nil {
		t.Fatalf("the broker added %+v", got.Properties)
	}
}

func TestTheClientsReceiveMaximumIsTheWindow(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	s := b.connect("sub", with5(packet.Properties{ReceiveMaximum: 10})) // [MQTT-3.3.4-9]
	s.subscribe5(1, holdfast.Subscription{Filter: "a", QoS: 2})
	p := b.connect("pub", v5)
	for i := range 200 {
		p.publish("a", fmt.Sprint(i), byte(1+i%2), uint16(i+1))
	}
	var window []packet.Publish
	for i := range 10 {
		window = append(window, s.expectPublish("a", fmt.Sprint(i), byte(1+i%2)))
	}
	s.expectNothing()
	for i := 10; i < 210; i++ {
		if m := window[0]; m.QoS == 1 {
			s.ack(packet.PUBACK, m.PacketID)
		} else {
			s.ack(packet.PUBREC, m.PacketID)
			s.expectAck(packet.PUBREL, m.PacketID)
			s.ack(packet.PUBCOMP, m.PacketID)
		}
		if window = window[1:]; i < 200 {
			window = append(window, s.expectPublish("a", fmt.Sprint(i), byte(1+i%2)))
		}
	}
	s.expectNothing()
}

func TestAPubrecThatRefusesEndsTheDelivery(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	s, p := b.connect("sub", lasting(60)), b.connect("pub", v5)
	s.subscribe5(1, holdfast.Subscription{Filter: "a", QoS: 2})
	p.publish("a", "x", 2, 1)
	p.expectAck(packet.PUBREC, 1)
	got := s.expectPublish("a", "x", 2)
	no := packet.Ack{PacketID: got.PacketID, Code: packet.QuotaExceeded}
	s.raw(no.Append(nil, packet.PUBREC, packet.V5))
	s.expectNothing() // no PUBREL [MQTT-4.3.3-4]
	if n := disk.boxes["sub"].Len(); n != 0 {
		t.Fatalf("%d messages are queued still", n)
	}
}

func TestMoreThanOurReceiveMaximumEndsTheConnection(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk, func(o *Options) { o.Limits.ReceiveMaximum = 3 })
	p := b.connect("pub", v5)
	finish := func(id uint16) {
		p.ack(packet.PUBREL, id)
		p.expectCode(packet.PUBCOMP, id, packet.Success)
	}
	// Within the maximum as many as one likes: acknowledgements give room.
	for id := uint16(1); id <= 20; id++ {
		p.publish("a", "x", 1, id)
		p.expectAck(packet.PUBACK, id)
		p.publish("a", "x", 2, 100+id)
		p.expectAck(packet.PUBREC, 100+id)
		finish(100 + id)
	}
	for id := uint16(1); id <= 3; id++ { // PUBREC gives none
		p.publish("a", "x", 2, id)
		p.expectAck(packet.PUBREC, id)
	}
	finish(1)
	p.publish("a", "x", 2, 4)
	p.expectAck(packet.PUBREC, 4)
	p.publish("a", "x", 1, 5)
	p.expectDisconnect(packet.ReceiveMaximumExceeded)
}

func TestOurMaximumIsCountedWhileTheDiskIsSlow(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk, func(o *Options) { o.Limits.ReceiveMaximum = 3 })
	p := b.connect("pub", v5)
	disk.hold()
	for id := uint16(1); id <= 3; id++ {
		p.publish("a", "x", 1, id)
	}
	p.expectNothing()
	p.publish("a", "x", 1, 4)
	p.expectDisconnect(packet.ReceiveMaximumExceeded)
	disk.letGo()
}

func TestAPacketLargerThanTheClientTakesCountsAsSent(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	small := func(p *packet.Connect) { lasting(60)(p); p.Properties.MaximumPacketSize = 50 }
	s, p := b.connect("sub", small), b.connect("pub", v5)
	s.subscribe5(1, holdfast.Subscription{Filter: "a", QoS: 1})
	for qos := range byte(2) { // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
		p.publish("a", strings.Repeat("x", 50), qos, uint16(qos))
		p.publish("a", "small", qos, 2*uint16(qos))
		got := s.expectPublish("a", "small", qos)
		if qos == 1 {
			s.ack(packet.PUBACK, got.PacketID)
		}
	}
	s.expectNothing()
	if n, dropped := disk.boxes["sub"].Len(), b.srv.Stats().DroppedTooLarge; n != 0 || dropped != 2 {
		t.Fatalf("%d are queued still, %d were dropped", n, dropped)
	}
}

func TestPublishesThatAreRefusedHaveTheirReason(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk, func(o *Options) { o.Access = forbids{o.Access, "secret"} })
	p := b.connect("pub", v5)
	p.publish("secret", "x", 1, 1)
	p.expectCode(packet.PUBACK, 1, packet.NotAuthorized)
	p.publish("secret", "x", 2, 2)
	p.expectCode(packet.PUBREC, 2, packet.NotAuthorized)
	p.ack(packet.PUBREL, 2) // the identifier is free already
	p.expectCode(packet.PUBCOMP, 2, packet.PacketIdentifierNotFound)
	p.publish("alias/of/secret", "x", 0, 0, having(packet.Properties{TopicAlias: 1}))
	p.publish("secret", "x", 1, 3, having(packet.Properties{TopicAlias: 2}))
	p.expectCode(packet.PUBACK, 3, packet.NotAuthorized)
	p.publish("", "x", 1, 4, having(packet.Properties{TopicAlias: 2})) // access sees the topic behind the alias
	p.expectCode(packet.PUBACK, 4, packet.NotAuthorized)
	for _, err := range []error{holdfast.ErrFull, holdfast.ErrTooLarge} {
		disk.set(func() { disk.refuse = err })
		p.publish("a", "x", 1, 5)
		p.expectCode(packet.PUBACK, 5, packet.QuotaExceeded)
		p.publish("a", "x", 2, 6)
		p.expectCode(packet.PUBREC, 6, packet.QuotaExceeded)
	}
	// What passes by itself is waited for, as with 3.1.1.
	disk.set(func() { disk.refuse = holdfast.ErrBusy })
	p.publish("a", "x", 1, 7)
	disk.set(func() { disk.refuse = nil })
	p.expectCode(packet.PUBACK, 7, packet.Success)
	if c := b.connect("c", v5); c.subscribe5(1, holdfast.Subscription{Filter: "secret"})[0] != byte(packet.NotAuthorized) {
		t.Error("the subscription was granted")
	}
}

// forbids one topic.
type forbids struct {
	Access
	topic string
}

func (f forbids) Connect(l *Login, stop <-chan struct{}) (Rights, error) {
	_, err := f.Access.Connect(l, stop)
	return f, err
}
func (f forbids) Publish(topic string) bool    { return topic != f.topic }
func (f forbids) Subscribe(filter string) bool { return filter != f.topic }
func (f forbids) Receive(topic string) bool    { return topic != f.topic }

func TestUnsubackAndReleaseTellWhatWasThere(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	c := b.connect("c", v5)
	c.subscribe5(1, holdfast.Subscription{Filter: "a"})
	u := packet.Unsubscribe{PacketID: 2, Filters: []string{"a", "b", "a"}}
	c.send(u.Append(nil, c.v))
	var a packet.Unsuback
	if err := a.Decode(c.expect(packet.UNSUBACK), c.v); err != nil || !bytes.Equal(a.Codes, []byte{0, 0x11, 0x11}) {
		t.Fatalf("UNSUBACK %+v, error %v [MQTT-3.11.3-1]", a, err)
	}
	c.ack(packet.PUBREL, 9)
	c.expectCode(packet.PUBCOMP, 9, packet.PacketIdentifierNotFound)
	c.ack(packet.PUBREC, 9)
	c.expectCode(packet.PUBREL, 9, packet.PacketIdentifierNotFound)
}

func TestNoLocalKeepsWhatTheClientSaysItself(t *testing.T) { // [MQTT-3.8.3-3]
	for _, session := range []func(*packet.Connect){v5, lasting(60)} {
		b := startBroker(t, newFakeDisk())
		c, other := b.connect("c", session), b.connect("other", v5)
		c.subscribe5(1, holdfast.Subscription{Filter: "a/#", QoS: 1, NoLocal: true, Identifier: 1})
		c.subscribe5(2, holdfast.Subscription{Filter: "a/own", QoS: 1, Identifier: 2})
		for qos := range byte(2) {
			id := uint16(qos)
			other.publish("a/b", "theirs", qos, id)
			c.expectPublish("a/b", "theirs", qos)
			c.publish("a/b", "mine", qos, id)
			if qos == 1 {
				other.expectAck(packet.PUBACK, 1)
				c.expectAck(packet.PUBACK, 1)
			}
			c.expectNothing()
			// A subscription without the option takes it all the same.
			c.publish("a/own", "mine", qos, id)
			var acked bool
			got := packet.Publish{}
			for range 1 + qos {
				h, body, err := c.next()
				if err != nil {
					t.Fatal(err)
				}
				if h.Type == packet.PUBACK {
					acked = true
				} else if err := got.Decode(h.Flags, body, c.v); err != nil {
					t.Fatal(err)
				}
			}
			if acked != (qos == 1) || got.Properties == nil || !reflect.DeepEqual(got.Properties.SubscriptionIdentifiers, []uint32{2}) {
				t.Fatalf("own message: %+v, acknowledged %v", got.Properties, acked)
			}
		}
	}
}

func TestRetainAsPublishedAndRetainHandling(t *testing.T) {
	for _, session := range []func(*packet.Connect){v5, lasting(60)} {
		for qos := range byte(2) {
			b := startBroker(t, newFakeDisk())
			p := b.connect("pub", v5)
			p.publish("r", "kept", qos, uint16(qos), retaining)
			p.acked(qos)
			c := b.connect("c", session)
			sub := holdfast.Subscription{Filter: "r", QoS: qos, RetainHandling: 1}
			kept := func() {
				t.Helper()
				if got := c.expectPublish("r", "kept", qos); !got.Retain {
					t.Error("a retained message without RETAIN [MQTT-3.3.1-8]")
				}
			}
			c.subscribe5(1, sub)
			kept()
			c.subscribe5(2, sub) // it exists [MQTT-3.3.1-10]
			c.expectNothing()
			sub.RetainHandling = 2 // [MQTT-3.3.1-11]
			c.subscribe5(3, sub)
			c.expectNothing()
			sub.RetainHandling = 0 // [MQTT-3.3.1-9]
			c.subscribe5(4, sub)
			kept()
			for _, asPublished := range []bool{false, true} { // [MQTT-3.3.1-12] [MQTT-3.3.1-13]
				c.subscribe5(5, holdfast.Subscription{Filter: "live", QoS: qos, RetainAsPublished: asPublished, RetainHandling: 2})
				for _, retain := range []bool{false, true} {
					p.publish("live", "x", qos, uint16(qos), func(p *packet.Publish) { p.Retain = retain })
					p.acked(qos)
					if got := c.expectPublish("live", "x", qos); got.Retain != (retain && asPublished) {
						t.Errorf("RETAIN %v with Retain As Published %v, published with %v", got.Retain, asPublished, retain)
					}
				}
			}
		}
	}
}

func TestSubscriptionIdentifiersTellWhichHaveMatched(t *testing.T) { // [MQTT-3.3.4-3] [MQTT-3.3.4-4]
	disk := newFakeDisk()
	b := startBroker(t, disk)
	p := b.connect("pub", v5)
	p.publish("a/kept", "kept", 1, 1, retaining)
	p.expectAck(packet.PUBACK, 1)
	check := func(c *client, topic, payload string, qos byte, want ...uint32) {
		t.Helper()
		got := c.expectPublish(topic, payload, qos)
		var ids []uint32
		if got.Properties != nil {
			ids = got.Properties.SubscriptionIdentifiers
		}
		have := map[uint32]bool{}
		for _, id := range ids {
			have[id] = true
		}
		for _, id := range want {
			if !have[id] {
				t.Errorf("%s: identifiers %v, want %v", topic, ids, want)
			}
		}
		if len(ids) != len(want) {
			t.Errorf("%s: identifiers %v, want %v", topic, ids, want)
		}
		if qos == 1 {
			c.ack(packet.PUBACK, got.PacketID)
		}
	}
	live, away := b.connect("live", v5), b.connect("away", lasting(60))
	for _, c := range []*client{live, away} {
		c.subscribe5(1, holdfast.Subscription{Filter: "a/#", QoS: 1, Identifier: 268_435_455})
		check(c, "a/kept", "kept", 1, 268_435_455)
		c.subscribe5(2, holdfast.Subscription{Filter: "a/+", QoS: 1, Identifier: 7, RetainHandling: 2})
		c.subscribe5(3, holdfast.Subscription{Filter: "a/b", QoS: 1, RetainHandling: 2})
	}
	p.publish("a/b", "0", 0, 0)
	check(live, "a/b", "0", 0, 7, 268_435_455)
	check(away, "a/b", "0", 0, 7, 268_435_455)
	away.disconnect()
	p.publish("a/b", "1", 1, 1)
	p.publish("a/b/c", "2", 1, 2)
	check(live, "a/b", "1", 1, 7, 268_435_455)
	check(live, "a/b/c", "2", 1, 268_435_455)
	p.expectAck(packet.PUBACK, 1)
	p.expectAck(packet.PUBACK, 2)
	b.stop()
	disk.restart()
	b = startBroker(t, disk)
	away = b.connect("away", lasting(60))
	check(away, "a/b", "1", 1, 7, 268_435_455)
	check(away, "a/b/c", "2", 1, 268_435_455)
	// And so they are after a restart, and when one is replaced without.
	away.subscribe5(4, holdfast.Subscription{Filter: "a/#", QoS: 1, RetainHandling: 2})
	b.connect("pub", v5).publish("a/b", "3", 0, 0)
	check(away, "a/b", "3", 0, 7)
}

func TestTopicAliasesOfAClient(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	s, p := b.connect("sub", v5), b.connect("pub", v5)
	s.subscribe5(1, holdfast.Subscription{Filter: "#"})
	set := func(topic string, alias uint16) {
		p.publish(topic, "x", 0, 0, having(packet.Properties{TopicAlias: alias}))
	}
	set("first", 1)
	set("last", maxAliases)
	set("", 1)
	set("", maxAliases)
	set("other", 1) // it may be set anew (MQTT 5, 3.3.2.3.4)
	set("", 1)
	for _, want := range []string{"first", "last", "first", "last", "other", "other"} {
		if got := s.expectPublish(want, "x", 0); got.Properties != nil {
			t.Errorf("the publisher's alias went on: %+v", got.Properties)
		}
	}
	p.nc.Close()
	again := b.connect("pub", v5) // aliases end with their connection [MQTT-3.3.2-7]
	again.publish("", "x", 0, 0, having(packet.Properties{TopicAlias: 1}))
	again.expectDisconnect(packet.ProtocolError)

	greedy := b.connect("greedy", v5)
	for alias := uint16(1); alias <= 3; alias++ {
		greedy.publish(strings.Repeat("x", 30_000), "x", 0, 0, having(packet.Properties{TopicAlias: alias}))
	}
	greedy.expectDisconnect(packet.QuotaExceeded)
}

func TestTopicAliasesTowardsAClient(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	p := b.connect("pub", v5)
	for most := range uint16(5) {
		s := b.connect(fmt.Sprint("sub", most), with5(packet.Properties{TopicAliasMaximum: most, ReceiveMaximum: 1000}))
		s.subscribe5(1, holdfast.Subscription{Filter: "long/#", QoS: 1})
		known := map[uint16]string{}
		short := 0
		for i := range 60 {
			topic := fmt.Sprintf("long/topic/%d", i%6)
			qos := byte(i / 6 % 2)
			p.publish(topic, "x", qos, uint16(i+1)*uint16(qos))
			if qos == 1 {
				p.expectAck(packet.PUBACK, uint16(i+1))
			}
			h, body, err := s.next()
			var got packet.Publish
			if err == nil {
				err = got.Decode(h.Flags, body, packet.V5)
			}
			if err != nil {
				t.Fatal(err)
			}
			name := string(got.Topic)
			if got.Properties != nil && got.Properties.TopicAlias != 0 {
				alias := got.Properties.TopicAlias
				if alias > most {
					t.Fatalf("alias %d, at most %d were allowed [MQTT-3.1.2-26]", alias, most)
				}
				if name == "" {
					name, short = known[alias], short+1
				}
				known[alias] = name
			}
			if name != topic {
				t.Fatalf("topic %q, want %q", name, topic)
			}
			if qos == 1 {
				s.ack(packet.PUBACK, got.PacketID)
			}
		}
		// Each of six topics comes ten times, at first with its name.
		if want := 9 * int(most); short != want {
			t.Errorf("with a maximum of %d %d packets had an alias alone, want %d [MQTT-3.1.2-27]", most, short, want)
		}
		s.disconnect()
	}
}

// TestTopicAliasesHoldInAFlood: packets of QoS 0 and of QoS 1 go to the client on two
// ways, with the same aliases.
func TestTopicAliasesHoldInAFlood(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newFakeDisk())
	s := b.connect("sub", with5(packet.Properties{TopicAliasMaximum: 8, ReceiveMaximum: 1000}))
	s.subscribe5(1, holdfast.Subscription{Filter: "flood/#", QoS: 1})
	const each = 500
	var all sync.WaitGroup
	for qos := range byte(2) {
		for range 2 {
			p := b.connect("", v5)
			all.Go(func() {
				for i := range each {
					topic := fmt.Sprintf("flood/%d", i%10)
					p.publish(topic, topic, qos, uint16(i+1)*uint16(qos))
				}
				for i := range each * int(qos) {
					p.expectAck(packet.PUBACK, uint16(i+1))
				}
			})
		}
	}
	known := map[uint16]string{}
	short := 0
	for acks := 0; acks < 2*each; {
		h, body, err := s.next()
		var got packet.Publish
		if err == nil {
			err = got.Decode(h.Flags, body, packet.V5)
		}
		if err != nil {
			t.Fatal(err)
		}
		name := string(got.Topic)
		if got.Properties != nil {
			if name == "" {
				name, short = known[got.Properties.TopicAlias], short+1
			}
			known[got.Properties.TopicAlias] = name
		}
		if name != string(got.Payload) {
			t.Fatalf("topic %q, want %q", name, got.Payload)
		}
		if got.QoS == 1 {
			acks++
			s.ack(packet.PUBACK, got.PacketID)
		}
	}
	all.Wait()
	if short == 0 {
		t.Error("no packet had an alias alone")
	}
}

func TestAnAliasKeepsToTheMaximumPacketSize(t *testing.T) { // [MQTT-3.1.2-24]
	topic := strings.Repeat("t", 20)
	for property := 100; property < 130; property++ {
		for payload := 16384 - property - 60; payload < 16384-property; payload++ {
			p := packet.Publish{Topic: []byte(topic), Payload: make([]byte, payload), Properties: &packet.Properties{
				Message: holdfast.Properties{ContentType: strings.Repeat("c", property)}}}
			c := &conn{version: packet.V5}
			for spare := range 6 {
				c.maxPacket, c.aliases = p.Size(packet.V5)+spare, newToldAliases(1)
				out, ok, err := c.appendPublish(nil, &p, topic, fromPublishers)
				if err != nil || !ok || len(out) > c.maxPacket {
					t.Fatalf("%d bytes where the client takes %d, error %v", len(out), c.maxPacket, err)
				}
			}
		}
	}
}

func TestLoginsThatAreRefused(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Access = forbids{o.Access, "secret"} })
	will := withWill("secret", "x", 1, false)
	v3 := func(v packet.Version) func(*packet.Connect) {
		return func(p *packet.Connect) { p.Version = v }
	}
	for name, tc := range map[string]struct {
		id   string
		set  []func(*packet.Connect)
		code byte
	}{
		"a will that may not be published, MQTT 5":     {"c", []func(*packet.Connect){v5, will}, byte(packet.NotAuthorized)},
		"a will that may not be published, MQTT 3.1.1": {"c", []func(*packet.Connect){v3(packet.V311), will}, packet.RefusedNotAuthorized},
		"no client identifier, MQTT 3.1":               {"", []func(*packet.Connect){v3(packet.V31)}, packet.RefusedIdentifier},
	} {
		t.Run(name, func(t *testing.T) {
			c := b.dial()
			if a := c.greet(tc.id, tc.set...); a.Code != tc.code {
				t.Errorf("CONNACK with %#x", a.Code)
			}
			c.expectEnd()
		})
	}
	b.connect("", v3(packet.V311))
	b.connect("c", withWill("open", "x", 1, false))
}

func TestAPublisherIsToldThatNobodyListens(t *testing.T) { // MQTT 5, 3.4.2.1
	disk := newFakeDisk()
	b := startBroker(t, disk)
	p, old := b.connect("pub", v5), b.connect("old")
	told := func(topic string, qos byte, retain bool, want packet.ReasonCode) {
		t.Helper()
		p.publish(topic, "x", qos, 1, func(p *packet.Publish) { p.Retain = retain })
		if qos == 1 {
			p.expectCode(packet.PUBACK, 1, want)
			return
		}
		p.expectCode(packet.PUBREC, 1, want)
		p.ack(packet.PUBREL, 1)
		p.expectCode(packet.PUBCOMP, 1, packet.Success)
	}
	told("a", 1, false, packet.Success) // a bridge may want it
	disk.set(func() { disk.unrouted = true })
	told("a", 1, false, packet.NoMatchingSubscribers)
	told("a", 2, false, packet.NoMatchingSubscribers)
	told("a", 1, true, packet.Success) // it is kept for who comes later
	old.publish("a", "x", 1, 1)
	old.expectAck(packet.PUBACK, 1)
	s := b.connect("sub", durable)
	s.subscribe(1, "live", 0, "a/kept", 1)
	told("live", 1, false, packet.Success)
	s.expectPublish("live", "x", 0)
	s.disconnect()
	told("a/kept", 1, false, packet.Success)
	told("b", 1, false, packet.NoMatchingSubscribers)
}
