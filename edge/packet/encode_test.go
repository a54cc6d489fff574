package packet

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"holdfast"
)

func TestWhatCannotBeSaidIsNotEncoded(t *testing.T) {
	long := strings.Repeat("x", MaxString+1)
	filter := []holdfast.Subscription{{Filter: "a"}}
	for _, c := range []struct {
		name string
		v    Version
		p    any
	}{
		{"a topic name of 65536 bytes", V311, &Publish{Topic: []byte(long)}},
		{"an empty topic name", V311, &Publish{}},
		{"an alias instead of a topic name in 3.1.1", V311, &Publish{Properties: &Properties{TopicAlias: 1}}},
		{"QoS 3", V311, &Publish{Topic: []byte("a"), QoS: 3, PacketID: 1}},
		{"DUP with QoS 0", V311, &Publish{Topic: []byte("a"), Dup: true}},
		{"a PUBLISH with packet identifier 0", V5, &Publish{Topic: []byte("a"), QoS: 1}},
		{"a PUBLISH beyond the largest remaining length", V311, &Publish{Topic: []byte("a"), Payload: make([]byte, MaxRemaining-2)}},
		{"a content type of 65536 bytes", V5, &Publish{Topic: []byte("a"), Properties: &Properties{Message: holdfast.Properties{ContentType: long}}}},
		{"a user property of 65536 bytes", V5, &Publish{Topic: []byte("a"), Properties: &Properties{Message: holdfast.Properties{User: []holdfast.UserProperty{{Value: long}}}}}},
		{"a subscription identifier of five bytes", V5, &Publish{Topic: []byte("a"), Properties: &Properties{SubscriptionIdentifiers: []uint32{MaxRemaining + 1}}}},
		{"a property of another packet", V5, &Publish{Topic: []byte("a"), Properties: &Properties{ReasonString: "x"}}},
		{"a will delay in CONNECT itself", V5, &Connect{Version: V5, Properties: &Properties{WillDelay: 1}}},
		{"a CONNECT of version 6", V5, &Connect{Version: 6}},
		{"a bridge bit in 5.0", V5, &Connect{Version: V5, Bridge: true}},
		{"a client identifier of 65536 bytes", V311, &Connect{Version: V311, ClientID: long}},
		{"a password of 65536 bytes", V311, &Connect{Version: V311, HasUsername: true, HasPassword: true, Password: []byte(long)}},
		{"a password without user name in 3.1.1", V311, &Connect{Version: V311, HasPassword: true}},
		{"a will of QoS 3", V311, &Connect{Version: V311, Will: &Will{Topic: "a", QoS: 3}}},
		{"a will without a topic", V311, &Connect{Version: V311, Will: &Will{}}},
		{"a will payload of 65536 bytes", V311, &Connect{Version: V311, Will: &Will{Topic: "a", Payload: []byte(long)}}},
		{"a maximum QoS of 2", V5, &Connack{Properties: &Properties{HasMaximumQoS: true, MaximumQoS: 2}}},
		{"SUBSCRIBE without a filter", V5, &Subscribe{PacketID: 1}},
		{"SUBSCRIBE with packet identifier 0", V5, &Subscribe{Filters: filter}},
		{"SUBSCRIBE with QoS 3", V311, &Subscribe{PacketID: 1, Filters: []holdfast.Subscription{{Filter: "a", QoS: 3}}}},
		{"SUBSCRIBE with a filter of 65536 bytes", V311, &Subscribe{PacketID: 1, Filters: []holdfast.Subscription{{Filter: long}}}},
		{"SUBSCRIBE with two identifiers", V5, &Subscribe{PacketID: 1, Filters: []holdfast.Subscription{{Filter: "a", Identifier: 1}, {Filter: "b", Identifier: 2}}}},
		{"SUBSCRIBE with an identifier that contradicts its properties", V5, &Subscribe{PacketID: 1, Filters: []holdfast.Subscription{{Filter: "a", Identifier: 1}}, Properties: &Properties{SubscriptionIdentifiers: []uint32{2}}}},
		{"SUBACK without a code", V311, &Suback{PacketID: 1}},
		{"UNSUBSCRIBE without a filter", V311, &Unsubscribe{PacketID: 1}},
		{"UNSUBACK of 5.0 without a code", V5, &Unsuback{PacketID: 1}},
		{"AUTH in 3.1.1", V311, &Auth{}},
		{"AUTH without a method", V5, &Auth{Code: ReAuthenticate}},
	} {
		got, err := encode([]byte("before"), 0, c.p, c.v)
		var e *Error
		if !errors.As(err, &e) || string(got) != "before" {
			t.Errorf("%s: %d bytes, error %v", c.name, len(got), err)
		}
	}
}

func TestTheLargestPacketsAreEncoded(t *testing.T) {
	p := Publish{Topic: bytes.Repeat([]byte("x"), MaxString), Payload: make([]byte, 1<<21)}
	b, err := p.Append(nil, V311)
	if err != nil || len(b) != p.Size(V311) {
		t.Fatal(len(b), err)
	}
	// A remaining length of one to four bytes is put in behind the body.
	for _, n := range []int{10, 120, 130, 16000, 17000} {
		c := Connect{Version: V311, ClientID: strings.Repeat("c", n)}
		b, err := c.Append([]byte("before"))
		if err != nil {
			t.Fatal(n, err)
		}
		h, m, err := ReadHeader(b[6:])
		var back Connect
		if err != nil || 6+m+h.Remaining != len(b) || back.Decode(b[6+m:]) != nil || !reflect.DeepEqual(back, c) {
			t.Errorf("client identifier of %d bytes: header %+v, %v", n, h, err)
		}
	}
	s := Unsubscribe{PacketID: 1}
	for range 40 {
		s.Filters = append(s.Filters, strings.Repeat("f", MaxString))
	}
	b, err = s.Append(nil, V311)
	if err != nil {
		t.Fatal(err)
	}
	h, m, err := ReadHeader(b)
	var back Unsubscribe
	if err != nil || m != 5 || back.Decode(b[m:], V311) != nil || !reflect.DeepEqual(back, s) {
		t.Errorf("header %+v of %d bytes, %v", h, m, err)
	}
}

func TestAnAcknowledgementGoesOutWithoutWhatCannotBeEncoded(t *testing.T) {
	a := Ack{PacketID: 1, Code: QuotaExceeded, Properties: &Properties{ReasonString: strings.Repeat("x", MaxString+1)}}
	if b := a.Append(nil, PUBACK, V5); !bytes.Equal(b, []byte{0x40, 3, 0, 1, 0x97}) {
		t.Errorf("%x", b)
	}
}

func TestAnIdentifierOfTheFiltersIsWrittenOnce(t *testing.T) {
	s := Subscribe{PacketID: 1, Filters: []holdfast.Subscription{{Filter: "a", Identifier: 7}, {Filter: "b", Identifier: 7}}}
	b, err := s.Append(nil, V5)
	if err != nil {
		t.Fatal(err)
	}
	var back Subscribe
	if err := back.Decode(b[2:], V5); err != nil || !reflect.DeepEqual(back.Filters, s.Filters) {
		t.Errorf("%+v, %v", back, err)
	}
	if s.Properties != nil {
		t.Error("Append has changed the packet")
	}
}

func TestAServerThatDoesNotKnowMQTT5IsUnderstood(t *testing.T) {
	var p Connack
	if err := p.Decode([]byte{0, RefusedVersion}, V5); err != nil || ReasonCode(p.Code) != UnsupportedProtocolVersion {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestPropertiesOfAMessageOutliveThePacket(t *testing.T) {
	out := Publish{Topic: []byte("t"), Properties: &Properties{TopicAlias: 1}}
	out.Properties.FromMessage(&allMessage)
	b, err := out.Append(nil, V5)
	if err != nil {
		t.Fatal(err)
	}
	var p Publish
	if err := p.Decode(0, b[2:], V5); err != nil {
		t.Fatal(err)
	}
	m := p.Properties.ForMessage()
	clear(b)
	if err := p.Decode(0, []byte{0, 1, 'a', 8, 3, 0, 5, 'o', 't', 'h', 'e', 'r'}, V5); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m, &allMessage) {
		t.Errorf("got %+v", m)
	}
	if got := p.Properties.Message.ContentType; got != "other" || len(p.Properties.Message.User) != 0 {
		t.Errorf("the second packet has %+v", p.Properties)
	}
	if (*Properties)(nil).ForMessage() != nil || (&Properties{TopicAlias: 1}).ForMessage() != nil {
		t.Error("properties for a message where there are none")
	}
}

func TestAFailedDecodeLeavesNothingOfThePacketBefore(t *testing.T) {
	var p Publish
	if err := p.Decode(0x0B, unhex(t, "0001 61 0001 03 230001 78"), V5); err != nil {
		t.Fatal(err)
	}
	if err := p.Decode(0, []byte{0}, V5); err == nil || p.Topic != nil || p.Payload != nil || p.Properties != nil || p.PacketID != 0 || p.QoS != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestCodesHaveWords(t *testing.T) {
	if s := QuotaExceeded.String(); s != "quota exceeded" || !QuotaExceeded.Failed() {
		t.Error(s)
	}
	if s := ReasonCode(0xFE).String(); s != "reason code 0xfe" {
		t.Error(s)
	}
	if s := PUBREC.String() + AUTH.String() + Type(0).String() + Type(16).String(); s != "PUBRECAUTHunknownunknown" {
		t.Error(s)
	}
	for c, want := range map[ReasonCode]byte{Success: 0, UnsupportedProtocolVersion: 1, ClientIdentifierNotValid: 2, ServerBusy: 3, BadUserNameOrPassword: 4, NotAuthorized: 5, Banned: 5} {
		if got := ReturnCode(c); got != want {
			t.Errorf("%v is return code %d", c, got)
		}
	}
}
