package packet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(s, err)
	}
	return b
}

// accepted stands in a table of faults for none.
const accepted ReasonCode = 0

func TestTheStandardSaysWhichPacketsAreWrong(t *testing.T) {
	for _, c := range []struct {
		name string
		v    Version
		hex  string // the whole packet
		want ReasonCode
	}{
		{"[MQTT-2.1.3-1] CONNECT with a flag in its header", V5, "11 00", MalformedPacket},
		{"[MQTT-2.2.2-2] PUBACK with a flag in its header", V311, "48 02 0001", MalformedPacket},
		{"[MQTT-3.6.1-1] PUBREL without 0010", V311, "60 02 0001", MalformedPacket},
		{"[MQTT-3.8.1-1] SUBSCRIBE without 0010", V311, "80 06 0001 0001 61 00", MalformedPacket},
		{"[MQTT-3.10.1-1] UNSUBSCRIBE without 0010", V311, "a0 05 0001 0001 61", MalformedPacket},
		{"[MQTT-3.14.1-1] DISCONNECT with a flag", V5, "e1 00", MalformedPacket},
		{"[MQTT-3.15.1-1] AUTH with a flag", V5, "f1 00", MalformedPacket},
		{"2.1.2 packet type 0", V5, "00 00", MalformedPacket},
		{"1.5.5 remaining length of five bytes", V5, "30 ff ff ff ff 01", MalformedPacket},
		{"[MQTT-1.5.5-1] remaining length longer than needed", V5, "c0 80 00", MalformedPacket},
		{"3.12 PINGREQ with a body", V5, "c0 01 00", MalformedPacket},
		{"3.13 PINGRESP with a body", V311, "d0 01 00", MalformedPacket},

		{"[MQTT-3.1.2-1] protocol name HTTP", 0, "10 0d 0004 48545450 04 02 0000 0001 61", UnsupportedProtocolVersion},
		{"[MQTT-3.1.2-2] protocol level 6", 0, "10 0d 0004 4d515454 06 02 0000 0001 61", UnsupportedProtocolVersion},
		{"[MQTT-3.1.2-2] MQTT with level 3", 0, "10 0d 0004 4d515454 03 02 0000 0001 61", UnsupportedProtocolVersion},
		{"[MQTT-3.1.2-2] a bridge of level 5", 0, "10 0e 0004 4d515454 85 02 0000 00 0001 61", UnsupportedProtocolVersion},
		{"a bridge of level 4", 0, "10 0d 0004 4d515454 84 02 0000 0001 61", accepted},
		{"[MQTT-3.1.2-3] reserved connect flag", 0, "10 0d 0004 4d515454 04 03 0000 0001 61", MalformedPacket},
		{"[MQTT-3.1.2-11] will QoS without a will", 0, "10 0d 0004 4d515454 04 0a 0000 0001 61", MalformedPacket},
		{"[MQTT-3.1.2-12] will QoS 3", 0, "10 13 0004 4d515454 04 1e 0000 0001 61 0001 74 0001 70", MalformedPacket},
		{"[MQTT-3.1.2-13] will retain without a will", 0, "10 0d 0004 4d515454 04 22 0000 0001 61", MalformedPacket},
		{"[MQTT-3.1.2-22] 3.1.1 password without user name", 0, "10 10 0004 4d515454 04 42 0000 0001 61 0001 70", MalformedPacket},
		{"5.0 password without user name", 0, "10 11 0004 4d515454 05 42 0000 00 0001 61 0001 70", accepted},
		{"[MQTT-3.1.3-4] client identifier that is not UTF-8", 0, "10 0d 0004 4d515454 04 02 0000 0001 ff", MalformedPacket},
		{"[MQTT-3.1.3-11] will topic with a surrogate", 0, "10 14 0004 4d515454 04 06 0000 0001 61 0003 eda080 0000", MalformedPacket},
		{"[MQTT-4.7.1-1] will topic with a wildcard", 0, "10 12 0004 4d515454 04 06 0000 0001 61 0001 23 0000", TopicNameInvalid},
		{"[MQTT-4.7.3-1] empty will topic", 0, "10 11 0004 4d515454 04 06 0000 0001 61 0000 0000", TopicNameInvalid},
		{"3.1.2.11.10 authentication data without a method", 0, "10 12 0004 4d515454 05 02 0000 04 16000101 0001 61", ProtocolError},
		{"3.1.2.11.3 Receive Maximum 0", 0, "10 11 0004 4d515454 05 02 0000 03 210000 0001 61", ProtocolError},
		{"3.1.2.11.4 Maximum Packet Size 0", 0, "10 13 0004 4d515454 05 02 0000 05 2700000000 0001 61", ProtocolError},
		{"3.1.2.11.7 Request Problem Information 2", 0, "10 10 0004 4d515454 05 02 0000 02 1702 0001 61", ProtocolError},
		{"MQTT 3.1: user name flag without a user name", 0, "10 0f 0006 4d5149736470 03 82 0000 0001 61", accepted},

		{"[MQTT-3.2.2-1] reserved CONNACK flags", V5, "20 03 02 00 00", MalformedPacket},
		{"[MQTT-3.2.2-4] Session Present in a refusal", V311, "20 02 01 05", ProtocolError},
		{"[MQTT-3.2.2-6] Session Present in a refusal", V5, "20 03 01 87 00", ProtocolError},
		{"[MQTT-3.2.2-8] reason code of another packet", V5, "20 03 00 8e 00", ProtocolError},
		{"3.2.2.3.4 Maximum QoS 2", V5, "20 05 00 00 02 2402", ProtocolError},
		{"refusal of a server that does not know 5.0", V5, "20 02 00 01", accepted},
		{"unused byte of MQTT 3.1", V31, "20 02 ff 00", accepted},

		{"[MQTT-3.3.1-2] DUP with QoS 0", V311, "38 03 0001 61", MalformedPacket},
		{"[MQTT-3.3.1-4] QoS 3", V311, "36 05 0001 61 0001", MalformedPacket},
		{"[MQTT-3.3.2-1] topic name that is not UTF-8", V311, "30 03 0001 80", MalformedPacket},
		{"[MQTT-1.5.4-1] topic name with a surrogate", V5, "30 06 0003 edbfbf 00", MalformedPacket},
		{"[MQTT-1.5.3-1] overlong slash", V311, "30 04 0002 c0af", MalformedPacket},
		{"[MQTT-1.5.4-2] topic name with U+0000", V5, "30 06 0003 610062 00", MalformedPacket},
		{"[MQTT-1.5.4-3] topic name with U+FEFF", V5, "30 06 0003 efbbbf 00", accepted},
		{"[MQTT-3.3.2-2] topic name with +", V311, "30 05 0003 612f2b", TopicNameInvalid},
		{"[MQTT-3.3.2-2] topic name with #", V311, "30 03 0001 23", TopicNameInvalid},
		{"[MQTT-4.7.3-1] empty topic name", V311, "30 02 0000", ProtocolError},
		{"3.3.2.1 neither topic name nor alias", V5, "30 03 0000 00", ProtocolError},
		{"[MQTT-3.3.2-8] topic alias 0", V5, "30 06 0000 03 230000", TopicAliasInvalid},
		{"[MQTT-2.3.1-1] packet identifier 0", V311, "32 05 0001 61 0000", ProtocolError},
		{"[MQTT-2.2.1-3] packet identifier 0", V5, "34 06 0001 61 0000 00", ProtocolError},
		{"3.3.2.3.2 payload format 2", V5, "30 06 0001 61 02 0102", ProtocolError},
		{"[MQTT-3.3.2-14] response topic with a wildcard", V5, "30 08 0001 61 04 080001 2b", TopicNameInvalid},
		{"3.3.2.3.8 subscription identifier 0", V5, "30 06 0001 61 02 0b00", ProtocolError},
		{"3.3.2.3.8 two subscription identifiers", V5, "30 08 0001 61 04 0b01 0b02", accepted},
		{"2.2.2 property length beyond the packet", V5, "30 05 0001 61 02 0b", MalformedPacket},
		{"2.2.2.2 unknown property", V5, "30 06 0001 61 02 0400", MalformedPacket},
		{"[MQTT-1.5.5-1] property length longer than needed", V5, "30 05 0001 61 8000", MalformedPacket},
		{"1.5.5 property length of five bytes", V5, "30 08 0001 61 ffffffff01", MalformedPacket},
		{"2.2.2 property that ends beyond the property length", V5, "30 08 0001 61 02 0200 0000", MalformedPacket},

		{"[MQTT-2.2.1-3] PUBACK with packet identifier 0", V5, "40 02 0000", ProtocolError},
		{"[MQTT-3.4.2-1] PUBACK with a code of CONNACK", V5, "40 03 0001 84", ProtocolError},
		{"3.4 PUBACK of 3.1.1 with a reason code", V311, "40 03 0001 00", MalformedPacket},

		{"[MQTT-3.8.3-1] filter that is not UTF-8", V5, "82 07 0001 00 0001 ff 00", MalformedPacket},
		{"[MQTT-3.8.3-2] SUBSCRIBE without a filter", V5, "82 03 0001 00", ProtocolError},
		{"[MQTT-3.8.3-3] SUBSCRIBE without a filter", V311, "82 02 0001", ProtocolError},
		{"[MQTT-3.8.3-4] 3.1.1: requested QoS 3", V311, "82 06 0001 0001 61 03", MalformedPacket},
		{"[MQTT-3.8.3-4] 3.1.1: reserved bits", V311, "82 06 0001 0001 61 04", MalformedPacket},
		{"[MQTT-3.8.3-4] 5.0: No Local on a shared subscription", V5, "82 0f 0001 00 0009 2473686172652f672f 04", ProtocolError},
		{"[MQTT-3.8.3-5] reserved option bits", V5, "82 07 0001 00 0001 61 40", MalformedPacket},
		{"3.8.3.1 retain handling 3", V5, "82 07 0001 00 0001 61 30", ProtocolError},
		{"3.8.2.1.2 two subscription identifiers", V5, "82 0b 0001 04 0b01 0b02 0001 61 00", ProtocolError},
		{"[MQTT-2.2.1-3] SUBSCRIBE with packet identifier 0", V311, "82 06 0000 0001 61 00", ProtocolError},
		{"[MQTT-3.9.3-2] 3.1.1: return code 3", V311, "90 03 0001 03", ProtocolError},
		{"[MQTT-3.9.3-2] reason code of another packet", V5, "90 04 0001 00 10", ProtocolError},
		{"3.9.3 SUBACK without a code", V311, "90 02 0001", ProtocolError},
		{"[MQTT-3.10.3-2] UNSUBSCRIBE without a filter", V311, "a2 02 0001", ProtocolError},
		{"[MQTT-3.11.3-2] reason code of another packet", V5, "b0 04 0001 00 01", ProtocolError},
		{"[MQTT-3.14.2-1] DISCONNECT with a code of CONNACK", V5, "e0 01 8a", ProtocolError},
		{"3.14 DISCONNECT of 3.1.1 with a code", V311, "e0 01 00", MalformedPacket},
		{"[MQTT-3.15.2-1] AUTH with another code", V5, "f0 06 87 04 150001 6d", ProtocolError},
		{"3.15.2.2.2 AUTH without a method", V5, "f0 02 18 00", ProtocolError},
		{"3.15 AUTH in 3.1.1", V311, "f0 00", MalformedPacket},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := unhex(t, c.hex)
			h, n, err := ReadHeader(b)
			if err == nil {
				if n+h.Remaining != len(b) {
					t.Fatalf("the table is wrong: header %d + body %d, packet %d", n, h.Remaining, len(b))
				}
				_, err = decode(h, b[n:], c.v)
			}
			var e *Error
			switch {
			case c.want == accepted:
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
			case !errors.As(err, &e) || e.Code != c.want:
				t.Fatalf("got %v, want %v", err, c.want)
			case !strings.ContainsAny(e.Text, "[("):
				t.Errorf("%q names no clause", e.Text)
			}
		})
	}
}

func TestARefusedCONNECTStillTellsItsVersion(t *testing.T) {
	for _, c := range []struct {
		hex  string
		want Version
	}{
		{"0004 4d515454 06 02 0000 0001 61", 6},
		{"0004 4d515454 05 03 0000 00 0001 61", V5},
		{"0004 4d515454 84 03 0000 0001 61", V311},
		{"0006 4d5149736470 03 18 0000 0001 61", V31},
		{"0004 4d5154", 0},
	} {
		var p Connect
		if err := p.Decode(unhex(t, c.hex)); err == nil || p.Version != c.want {
			t.Errorf("%s: version %d, error %v", c.hex, p.Version, err)
		}
	}
}

func TestMQTT31MayRepeatARequestWithDUP(t *testing.T) {
	for _, first := range []byte{0x6A, 0x8A, 0xAA} {
		if _, n, err := ReadHeaderVersion([]byte{first, 2}, V31); n != 2 || err != nil {
			t.Errorf("%x for 3.1: n %d, error %v", first, n, err)
		}
		if _, _, err := ReadHeader([]byte{first, 2}); err == nil {
			t.Errorf("%x accepted for all versions", first)
		}
	}
}

// whereTable is table 2-4 of MQTT 5 as it is printed.
var whereTable = map[int]string{
	1: "PUBLISH will", 2: "PUBLISH will", 3: "PUBLISH will", 8: "PUBLISH will", 9: "PUBLISH will",
	11: "PUBLISH SUBSCRIBE", 17: "CONNECT CONNACK DISCONNECT", 18: "CONNACK", 19: "CONNACK",
	21: "CONNECT CONNACK AUTH", 22: "CONNECT CONNACK AUTH", 23: "CONNECT", 24: "will", 25: "CONNECT", 26: "CONNACK",
	28: "CONNACK DISCONNECT", 31: "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH",
	33: "CONNECT CONNACK", 34: "CONNECT CONNACK", 35: "PUBLISH", 36: "CONNACK", 37: "CONNACK",
	38: "CONNECT CONNACK PUBLISH will PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK DISCONNECT AUTH",
	39: "CONNECT CONNACK", 40: "CONNACK", 41: "CONNACK", 42: "CONNACK",
}

// values are the shapes that a value of any property has; one of them fits each.
var values = []string{"01", "0001", "00000001", "0001 61", "0001 61 0001 62"}

func TestAPropertyStandsWhereTheTableHasItAndOnlyOnce(t *testing.T) {
	for id := range 256 {
		for where, name := range typeNames {
			want := false
			for _, w := range strings.Fields(whereTable[id]) {
				want = want || w == name
			}
			got, twice := false, false
			for _, v := range values {
				one := append(appendVarint(nil, uint32(id)), unhex(t, v)...)
				read := func(b []byte) error {
					r := reader{b: append([]byte{byte(len(b))}, b...), of: name}
					r.properties(Type(where))
					return r.done()
				}
				if read(one) == nil {
					got = true
					twice = twice || read(append(one, one...)) == nil
				}
			}
			if got != want {
				t.Errorf("property %d in %s: accepted %v", id, name, got)
			}
			if repeats := id == 38 || id == 11 && where == int(PUBLISH); twice != (want && repeats) {
				t.Errorf("property %d twice in %s: accepted %v", id, name, twice)
			}
		}
	}
}

func TestTheQuickTopicCheckPassesNothingThatTheExactOneRefuses(t *testing.T) {
	for length := 1; length <= 20; length++ {
		for at := range length {
			for c := range 256 {
				for _, fill := range []byte{'a', 0x01, 0x7F, '*', ','} {
					b := bytes.Repeat([]byte{fill}, length)
					b[at] = byte(c)
					if exact := checkTopic(b) == nil; plain(b) != exact {
						t.Fatalf("%q: quick %v, exact %v", b, plain(b), exact)
					}
				}
			}
		}
	}
}
