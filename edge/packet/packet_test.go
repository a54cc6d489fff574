package packet

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"holdfast"
)

// body is what all packets but CONNECT, PUBLISH and the acknowledgements have.
type body interface {
	Decode(body []byte, v Version) error
	Append(dst []byte, v Version) ([]byte, error)
}

func newBody(t Type) body {
	switch t {
	case CONNACK:
		return new(Connack)
	case SUBSCRIBE:
		return new(Subscribe)
	case SUBACK:
		return new(Suback)
	case UNSUBSCRIBE:
		return new(Unsubscribe)
	case UNSUBACK:
		return new(Unsuback)
	case DISCONNECT:
		return new(Disconnect)
	case AUTH:
		return new(Auth)
	}
	return nil
}

// decode reads the body of any packet; nil for the two that have none.
func decode(h Header, b []byte, v Version) (any, error) {
	switch h.Type {
	case CONNECT:
		p := new(Connect)
		return p, p.Decode(b)
	case PUBLISH:
		p := new(Publish)
		return p, p.Decode(h.Flags, b, v)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		p := new(Ack)
		return p, p.Decode(b, v)
	case PINGREQ, PINGRESP:
		return nil, nil
	}
	p := newBody(h.Type)
	return p, p.Decode(b, v)
}

func encode(dst []byte, t Type, p any, v Version) ([]byte, error) {
	switch p := p.(type) {
	case *Connect:
		return p.Append(dst)
	case *Publish:
		return p.Append(dst, v)
	case *Ack:
		return p.Append(dst, t, v), nil
	case body:
		return p.Append(dst, v)
	}
	if t == PINGREQ {
		return AppendPingreq(dst), nil
	}
	return AppendPingresp(dst), nil
}

// sample is a packet of one version. complete tells which shorter bodies are
// packets of their own; nil for none.
type sample struct {
	name     string
	v        Version
	t        Type
	p        any
	complete func(n, whole int) bool
}

func anyOf(lengths ...int) func(n, whole int) bool {
	return func(n, _ int) bool {
		for _, l := range lengths {
			if n == l {
				return true
			}
		}
		return false
	}
}

func from(first int) func(n, whole int) bool { return func(n, _ int) bool { return n >= first } }

var allMessage = holdfast.Properties{
	PayloadUTF8: true, Expiry: 0, HasExpiry: true, ContentType: "text/plain", ResponseTopic: "re/ply",
	CorrelationData: []byte{}, User: []holdfast.UserProperty{{Name: "a", Value: "b"}, {Name: "a", Value: ""}},
}

var explain = &Properties{ReasonString: "why", Message: holdfast.Properties{User: []holdfast.UserProperty{{Name: "k", Value: "v"}}}}

func samples() []sample {
	var all []sample
	for _, v := range []Version{V31, V311, V5} {
		add := func(name string, t Type, p any, complete func(n, whole int) bool) {
			all = append(all, sample{"a " + name + " of " + v.String(), v, t, p, complete})
		}
		add("short CONNECT", CONNECT, &Connect{Version: v, CleanStart: true, KeepAlive: 60, ClientID: "c"}, nil)
		full := &Connect{
			Version: v, KeepAlive: 65535, ClientID: "sensor-ä", Username: "u", HasUsername: true,
			Password: []byte{0, 1}, HasPassword: true, Bridge: v != V5,
			Will: &Will{Topic: "w/t", Payload: []byte("gone"), QoS: 2, Retain: true},
		}
		if v == V5 {
			full.Properties = &Properties{
				SessionExpiry: 7, HasSessionExpiry: true, ReceiveMaximum: 1, MaximumPacketSize: 2, TopicAliasMaximum: 3,
				RequestResponseInformation: true, NoProblemInformation: true, AuthenticationMethod: "m", AuthenticationData: []byte{1},
			}
			full.Will.Properties = &Properties{WillDelay: 9, Message: allMessage}
		}
		var fullCuts func(n, whole int) bool
		if v == V31 { // user name and password may be missing there
			fullCuts = func(n, whole int) bool { return n == whole-4 || n == whole-4-3 }
		}
		add("full CONNECT", CONNECT, full, fullCuts)
		add("CONNACK", CONNACK, &Connack{Code: 0, SessionPresent: v != V31}, nil)
		add("refusing CONNACK", CONNACK, &Connack{Code: map[bool]byte{true: byte(NotAuthorized), false: RefusedNotAuthorized}[v == V5]}, nil)
		add("PUBLISH of QoS 0", PUBLISH, &Publish{Topic: []byte("a/b"), Payload: []byte("hello"), Retain: true}, from(5+int(v)/5))
		add("PUBLISH of QoS 2", PUBLISH, &Publish{Topic: []byte("a/b"), Payload: []byte{}, QoS: 2, Dup: true, PacketID: 65535}, from(7+int(v)/5))
		add("long PUBLISH", PUBLISH, &Publish{Topic: bytes.Repeat([]byte("x"), 1000), Payload: make([]byte, 20000), QoS: 1, PacketID: 1}, from(1004+int(v)/5))
		for _, t := range []Type{PUBACK, PUBREC, PUBREL, PUBCOMP} {
			add(t.String(), t, &Ack{PacketID: 0x1234}, nil)
		}
		sub := &Subscribe{PacketID: 5, Filters: []holdfast.Subscription{{Filter: "a/#", QoS: 1}, {Filter: "+", QoS: 2}}}
		subCut := anyOf(2 + int(v)/5 + 6)
		if v == V5 {
			sub.Filters = []holdfast.Subscription{{Filter: "a/#", QoS: 1, NoLocal: true, RetainHandling: 2, Identifier: 300}, {Filter: "+", RetainAsPublished: true, Identifier: 300}}
			sub.Properties = &Properties{SubscriptionIdentifiers: []uint32{300}}
			subCut = anyOf(2 + 1 + 3 + 6)
		}
		add("SUBSCRIBE", SUBSCRIBE, sub, subCut)
		add("SUBACK", SUBACK, &Suback{PacketID: 5, Codes: []byte{0, 2, 0x80}}, from(3+int(v)/5))
		add("UNSUBSCRIBE", UNSUBSCRIBE, &Unsubscribe{PacketID: 6, Filters: []string{"a/#", "b"}}, anyOf(2+int(v)/5+5))
		if v != V5 {
			add("UNSUBACK", UNSUBACK, &Unsuback{PacketID: 6}, nil)
		} else {
			add("UNSUBACK", UNSUBACK, &Unsuback{PacketID: 6, Codes: []byte{0, 0x11}, Properties: explain}, from(2+14+1))
		}
		add("DISCONNECT", DISCONNECT, &Disconnect{}, nil)
		add("PINGREQ", PINGREQ, nil, nil)
		add("PINGRESP", PINGRESP, nil, nil)
	}
	add := func(name string, t Type, p any, complete func(n, whole int) bool) {
		all = append(all, sample{"a " + name, V5, t, p, complete})
	}
	add("CONNACK with every property", CONNACK, &Connack{Properties: &Properties{
		SessionExpiry: 0, HasSessionExpiry: true, ReceiveMaximum: 10, HasMaximumQoS: true, MaximumQoS: 1, RetainUnavailable: true,
		MaximumPacketSize: 1 << 20, AssignedClientID: "auto", TopicAliasMaximum: 10, ReasonString: "r", WildcardUnavailable: true,
		SubscriptionIdentifierUnavailable: true, SharedUnavailable: true, ServerKeepAlive: 0, HasServerKeepAlive: true,
		ResponseInformation: "ri", ServerReference: "other", AuthenticationMethod: "m", AuthenticationData: []byte{},
		Message: holdfast.Properties{User: []holdfast.UserProperty{{Name: "", Value: ""}}},
	}}, nil)
	add("PUBLISH with every property", PUBLISH, &Publish{
		Topic: []byte("t"), Payload: []byte{}, Properties: &Properties{Message: allMessage, TopicAlias: 3, SubscriptionIdentifiers: []uint32{1, MaxRemaining}},
	}, nil)
	add("PUBLISH with a topic alias alone", PUBLISH, &Publish{Topic: []byte{}, Payload: []byte{}, Properties: &Properties{TopicAlias: 1}}, nil)
	for _, t := range []Type{PUBACK, PUBREC, PUBREL, PUBCOMP} {
		add(t.String()+" with a code", t, &Ack{PacketID: 9, Code: PacketIdentifierNotFound}, anyOf(2))
		add(t.String()+" with properties", t, &Ack{PacketID: 9, Properties: explain}, anyOf(2, 3))
	}
	add("SUBACK with properties", SUBACK, &Suback{PacketID: 1, Codes: []byte{0x87}, Properties: explain}, nil)
	add("DISCONNECT with properties", DISCONNECT, &Disconnect{Code: ServerMoved, Properties: &Properties{
		ServerReference: "x", ReasonString: "y", SessionExpiry: 1, HasSessionExpiry: true}}, anyOf(0, 1))
	add("DISCONNECT with a code", DISCONNECT, &Disconnect{Code: DisconnectWithWill}, anyOf(0))
	add("AUTH", AUTH, &Auth{Code: ContinueAuthentication, Properties: &Properties{AuthenticationMethod: "m", AuthenticationData: []byte{1}}}, anyOf(0))
	add("short AUTH", AUTH, &Auth{}, nil)
	return all
}

// equal compares packets; a Publish by what it says, not by where its
// properties are.
func equal(a, b any) bool {
	if x, ok := a.(*Publish); ok {
		y := b.(*Publish)
		if !reflect.DeepEqual(x.Properties, y.Properties) {
			return false
		}
		p, q := *x, *y
		p.Properties, q.Properties, p.decoded, q.decoded = nil, nil, Properties{}, Properties{}
		return reflect.DeepEqual(p, q)
	}
	return reflect.DeepEqual(a, b)
}

func TestEveryPacketOfEveryVersionComesBackAsItWas(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			b, err := encode([]byte("before"), s.t, s.p, s.v)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(b, []byte("before")) {
				t.Fatal("Append has changed what was before")
			}
			b = b[len("before"):]
			h, n, err := ReadHeader(b)
			if err != nil || n == 0 || h.Type != s.t || n+h.Remaining != len(b) {
				t.Fatalf("header %+v of %d bytes, error %v, packet of %d bytes", h, n, err, len(b))
			}
			if p, ok := s.p.(*Publish); ok && p.Size(s.v) != len(b) {
				t.Errorf("Size is %d of %d bytes", p.Size(s.v), len(b))
			}
			got, err := decode(h, b[n:], s.v)
			if err != nil {
				t.Fatal(err)
			}
			if s.p != nil && !equal(got, s.p) {
				t.Errorf("got  %+v\nwant %+v", got, s.p)
			}
		})
	}
}

func TestAPacketThatIsCutAtAnyByteIsAnError(t *testing.T) {
	for _, s := range samples() {
		b, err := encode(nil, s.t, s.p, s.v)
		if err != nil {
			t.Fatal(s.name, err)
		}
		h, n, _ := ReadHeader(b)
		for i := range n {
			if _, m, err := ReadHeader(b[:i]); m != 0 || err != nil {
				t.Errorf("%s: header cut after %d bytes: n %d, error %v", s.name, i, m, err)
			}
		}
		whole := b[n:]
		for i := range whole {
			_, err := decode(h, whole[:i:i], s.v)
			shorter := s.complete != nil && s.complete(i, len(whole))
			var e *Error
			if shorter && err != nil {
				t.Errorf("%s: cut after %d of %d bytes is a packet too, but: %v", s.name, i, len(whole), err)
			} else if !shorter && !errors.As(err, &e) {
				t.Errorf("%s: cut after %d of %d bytes: %v", s.name, i, len(whole), err)
			}
		}
	}
}

func TestBytesAfterThePacketAreMalformed(t *testing.T) {
	for _, s := range samples() {
		if s.t == PUBLISH || s.t == SUBACK || s.p == nil {
			continue // where more bytes are more payload, more codes, or seen by ReadHeader
		}
		b, _ := encode(nil, s.t, s.p, s.v)
		h, n, _ := ReadHeader(b)
		if _, err := decode(h, append(b[n:len(b):len(b)], 0xFF), s.v); err == nil {
			t.Errorf("%s: accepted with one byte more", s.name)
		}
	}
}

func TestWhatAMessageKeepsHasNoRoomToSpare(t *testing.T) {
	p := Properties{Message: holdfast.Properties{User: make([]holdfast.UserProperty, 3, 1000)}}
	if m := p.ForMessage(); len(m.User) != 3 || cap(m.User) != 3 {
		t.Errorf("%d user properties with room for %d", len(m.User), cap(m.User))
	}
}
