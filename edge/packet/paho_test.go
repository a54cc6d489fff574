package packet

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	paho5 "github.com/eclipse/paho.golang/packets"
	paho3 "github.com/eclipse/paho.mqtt.golang/packets"

	"holdfast"
)

// FuzzAgainstPaho holds what is read here against what the two codecs of paho read
// in the same bytes: MQTT 3.1 and 3.1.1 in one, MQTT 5 in the other. They take more
// than the specification allows, so only what is accepted here has to be the same.
// What is compared is what they write, read again here; and the properties, of which
// paho does not write all.
func FuzzAgainstPaho(f *testing.F) {
	for _, s := range samples() {
		if b, _ := encode(nil, s.t, s.p, s.v); len(b) < 2000 {
			_, n, _ := ReadHeader(b)
			f.Add(b[0], byte(s.v), b[n:])
		}
	}
	f.Fuzz(func(t *testing.T, first, version byte, b []byte) {
		h := Header{Type: Type(first >> 4), Flags: first & 0x0F, Remaining: len(b)}
		v := V31 + Version(version%3)
		if h.Type == 0 || h.checkFlags(v) != nil || len(b) > 1<<16 {
			return
		}
		p, err := decode(h, b, v)
		if err != nil || p == nil {
			return
		}
		if c, ok := p.(*Connect); ok {
			const flags = 9 // where they are in a CONNECT of MQTT 3.1
			switch {
			case (c.Version == V5) != (v == V5):
				return
			case c.Version == V31 && (c.HasUsername != (b[flags]&0x80 != 0) || c.HasPassword != (b[flags]&0x40 != 0)):
				return // the remaining length goes before the flags (MQTT 3.1, CONNECT), which paho does not know
			}
		}
		if v == V5 && len(b) == 0 && (h.Type == DISCONNECT || h.Type == AUTH) {
			return // paho knows no short form of these two (MQTT 5, 3.14.2.1 and 3.15.2.1)
		}
		if v == V5 && len(b) == 2 && h.Type == CONNACK {
			return // the answer of a broker that knows 3.1.1 only, which paho does not read
		}
		if u, ok := p.(*Unsubscribe); ok && slices.Contains(u.Filters, "") {
			return // paho reads no filter in one that is empty; whether there may be such is asked above the codec
		}
		whole := append(appendVarint([]byte{first}, uint32(len(b))), b...)
		again, theirs, err := throughPaho(whole, v)
		if err != nil {
			t.Fatalf("%x is %+v here, and nothing to paho: %v", whole, p, err)
		}
		h2, n, err := ReadHeaderVersion(again, v)
		if err != nil || h2.Type != h.Type {
			t.Fatalf("%x has come back as %x: %v", whole, again, err)
		}
		if pub, ok := p.(*Publish); ok && v == V5 && len(pub.Topic) == 0 {
			return // paho writes no alias behind an empty topic that we could read
		}
		q, err := decode(h2, again[n:], v)
		if err != nil {
			t.Fatalf("%x has come back as %x: %v", whole, again, err)
		}
		ours := takeProperties(p)
		takeProperties(q)
		if !equal(p, q) {
			t.Fatalf("%x is\n%x to paho", whole, again)
		}
		if v != V5 {
			return
		}
		for i, x := range ours {
			if y := fromPaho(theirs[i]); !reflect.DeepEqual(asPaho(x), y) {
				t.Fatalf("%x has the properties\n%+v here and\n%+v to paho", whole, x, y)
			}
		}
	})
}

// throughPaho reads a packet with a codec of paho and writes it again. The
// properties are those of the packet, and of the will of CONNECT.
func throughPaho(whole []byte, v Version) (again []byte, properties [2]*paho5.Properties, err error) {
	var out bytes.Buffer
	if v != V5 {
		p, err := paho3.ReadPacket(bytes.NewReader(whole))
		if err == nil {
			err = p.Write(&out)
		}
		return out.Bytes(), properties, err
	}
	p, err := paho5.ReadPacket(bytes.NewReader(whole))
	if err != nil {
		return nil, properties, err
	}
	content := reflect.ValueOf(p.Content).Elem()
	for i, name := range []string{"Properties", "WillProperties"} {
		if field := content.FieldByName(name); field.IsValid() {
			properties[i] = field.Interface().(*paho5.Properties)
		}
	}
	_, err = p.WriteTo(&out)
	return out.Bytes(), properties, err
}

// takeProperties takes the properties out of one of our packets: its own, and those
// of its will.
func takeProperties(p any) (taken [2]Properties) {
	take := func(i int, from reflect.Value) {
		field := from.FieldByName("Properties")
		if field.IsValid() && !field.IsNil() {
			taken[i] = *field.Interface().(*Properties)
			field.SetZero()
		}
	}
	take(0, reflect.ValueOf(p).Elem())
	if c, ok := p.(*Connect); ok && c.Will != nil {
		take(1, reflect.ValueOf(c.Will).Elem())
	}
	return taken
}

// asPaho is p as far as paho tells things apart: of several subscription
// identifiers it keeps the last, and empty data is none.
func asPaho(p Properties) Properties {
	if n := len(p.SubscriptionIdentifiers); n > 1 {
		p.SubscriptionIdentifiers = p.SubscriptionIdentifiers[n-1:]
	}
	if len(p.Message.CorrelationData) == 0 {
		p.Message.CorrelationData = nil
	}
	if len(p.AuthenticationData) == 0 {
		p.AuthenticationData = nil
	}
	return p
}

func fromPaho(p *paho5.Properties) (out Properties) {
	if p == nil {
		return out
	}
	out = Properties{
		AuthenticationMethod: p.AuthMethod, AuthenticationData: p.AuthData, AssignedClientID: p.AssignedClientID,
		ResponseInformation: p.ResponseInfo, ServerReference: p.ServerReference, ReasonString: p.ReasonString,
		ReceiveMaximum: value(p.ReceiveMaximum), MaximumPacketSize: value(p.MaximumPacketSize),
		TopicAliasMaximum: value(p.TopicAliasMaximum), TopicAlias: value(p.TopicAlias), WillDelay: value(p.WillDelayInterval),
		SessionExpiry: value(p.SessionExpiryInterval), HasSessionExpiry: p.SessionExpiryInterval != nil,
		ServerKeepAlive: value(p.ServerKeepAlive), HasServerKeepAlive: p.ServerKeepAlive != nil,
		MaximumQoS: value(p.MaximumQOS), HasMaximumQoS: p.MaximumQOS != nil,
		NoProblemInformation: is(p.RequestProblemInfo, 0), RequestResponseInformation: is(p.RequestResponseInfo, 1),
		RetainUnavailable: is(p.RetainAvailable, 0), WildcardUnavailable: is(p.WildcardSubAvailable, 0),
		SubscriptionIdentifierUnavailable: is(p.SubIDAvailable, 0), SharedUnavailable: is(p.SharedSubAvailable, 0),
		Message: holdfast.Properties{
			PayloadUTF8: is(p.PayloadFormat, 1), PayloadBytes: is(p.PayloadFormat, 0), Expiry: value(p.MessageExpiry), HasExpiry: p.MessageExpiry != nil,
			ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData,
		},
	}
	if p.SubscriptionIdentifier != nil {
		out.SubscriptionIdentifiers = []uint32{uint32(*p.SubscriptionIdentifier)}
	}
	for _, u := range p.User {
		out.Message.User = append(out.Message.User, holdfast.UserProperty{Name: u.Key, Value: u.Value})
	}
	return asPaho(out)
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func is(p *byte, v byte) bool { return p != nil && *p == v }
