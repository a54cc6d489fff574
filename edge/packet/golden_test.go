package packet

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"holdfast"
)

func TestTheBytesAreThoseOfTheStandard(t *testing.T) {
	for _, c := range []struct {
		name string
		t    Type
		v    Version
		p    any
		hex  string
	}{
		{"CONNECT 3.1", CONNECT, V31, &Connect{Version: V31, CleanStart: true, KeepAlive: 10, ClientID: "ab"}, "1010 0006 4d5149736470 03 02 000a 0002 6162"},
		{"CONNECT 3.1.1 of a bridge", CONNECT, V311, &Connect{Version: V311, Bridge: true, ClientID: "ab"}, "100e 0004 4d515454 84 00 0000 0002 6162"},
		{"CONNECT 5 with a will", CONNECT, V5, &Connect{Version: V5, CleanStart: true, Will: &Will{Topic: "t", QoS: 1}}, "1013 0004 4d515454 05 0e 0000 00 0000 00 0001 74 0000"},
		{"CONNACK 3.1.1", CONNACK, V311, &Connack{SessionPresent: true}, "2002 0100"},
		{"CONNACK 5", CONNACK, V5, &Connack{Code: 0x84}, "2003 0084 00"},
		{"PUBLISH 3.1.1", PUBLISH, V311, &Publish{Topic: []byte("a/b"), QoS: 1, PacketID: 10, Payload: []byte("x")}, "3208 0003 612f62 000a 78"},
		{"PUBLISH 5", PUBLISH, V5, &Publish{Topic: []byte("a/b"), Dup: true, Retain: true, QoS: 2, PacketID: 10, Properties: &Properties{TopicAlias: 2}}, "3d0b 0003 612f62 000a 03 230002"},
		{"PUBACK 5", PUBACK, V5, &Ack{PacketID: 258}, "4002 0102"},
		{"PUBREC 5", PUBREC, V5, &Ack{PacketID: 258, Code: QuotaExceeded}, "5003 0102 97"},
		{"PUBREL 3.1.1", PUBREL, V311, &Ack{PacketID: 258, Code: QuotaExceeded}, "6202 0102"},
		{"PUBCOMP 5", PUBCOMP, V5, &Ack{PacketID: 1, Properties: &Properties{ReasonString: "y"}}, "7008 0001 00 04 1f0001 79"},
		{"SUBSCRIBE 3.1.1", SUBSCRIBE, V311, &Subscribe{PacketID: 10, Filters: []holdfast.Subscription{{Filter: "a/b", QoS: 1}, {Filter: "c/d", QoS: 2}}}, "820e 000a 0003 612f62 01 0003 632f64 02"},
		{"SUBSCRIBE 5", SUBSCRIBE, V5, &Subscribe{PacketID: 10, Filters: []holdfast.Subscription{{Filter: "a", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2, Identifier: 128}}}, "820a 000a 03 0b8001 0001 61 2d"},
		{"SUBACK 3.1.1", SUBACK, V311, &Suback{PacketID: 10, Codes: []byte{1, 0x87}}, "9004 000a 01 80"},
		{"UNSUBSCRIBE 5", UNSUBSCRIBE, V5, &Unsubscribe{PacketID: 10, Filters: []string{"a"}}, "a206 000a 00 0001 61"},
		{"UNSUBACK 3.1.1", UNSUBACK, V311, &Unsuback{PacketID: 10, Codes: []byte{0}}, "b002 000a"},
		{"UNSUBACK 5", UNSUBACK, V5, &Unsuback{PacketID: 10, Codes: []byte{0}}, "b004 000a 00 00"},
		{"PINGREQ", PINGREQ, V311, nil, "c000"},
		{"PINGRESP", PINGRESP, V311, nil, "d000"},
		{"DISCONNECT 3.1.1", DISCONNECT, V311, &Disconnect{Code: ServerBusy}, "e000"},
		{"DISCONNECT 5", DISCONNECT, V5, &Disconnect{Code: ServerBusy}, "e001 89"},
		{"AUTH", AUTH, V5, &Auth{Code: ReAuthenticate, Properties: &Properties{AuthenticationMethod: "m"}}, "f006 19 04 150001 6d"},
	} {
		want, err := hex.DecodeString(strings.ReplaceAll(c.hex, " ", ""))
		if err != nil {
			t.Fatal(c.name, err)
		}
		if got, err := encode(nil, c.t, c.p, c.v); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s:\ngot  %x (%v)\nwant %x", c.name, got, err, want)
		}
	}
}
