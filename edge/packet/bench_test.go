package packet

import (
	"testing"

	"holdfast"
)

var hot = []byte("site/17/room/kitchen/temperature")

func publish(t testing.TB, v Version, p *Properties) []byte {
	b, err := (&Publish{Topic: hot, QoS: 1, PacketID: 77, Payload: make([]byte, 100), Properties: p}).Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheHotPathDoesNotAllocate(t *testing.T) {
	var (
		p   Publish
		a   Ack
		h   Header
		dst = make([]byte, 0, 1024)
	)
	v3, v5 := publish(t, V311, nil), publish(t, V5, nil)
	alias := publish(t, V5, &Properties{TopicAlias: 4, Message: holdfast.Properties{HasExpiry: true, Expiry: 60}})
	ack, ack5 := []byte{0x40, 2, 0, 77}, []byte{0x40, 4, 0, 77, 0x10, 0}
	read := func(b []byte, v Version) func() {
		return func() {
			h, n, _ := ReadHeader(b)
			if err := p.Decode(h.Flags, b[n:], v); err != nil {
				t.Error(err)
			}
		}
	}
	out := Publish{Topic: hot, QoS: 1, PacketID: 77, Payload: make([]byte, 100)}
	outAlias := out
	outAlias.Properties = &Properties{TopicAlias: 4}
	for name, f := range map[string]func(){
		"header":                         func() { h, _, _ = ReadHeader(v3) },
		"PUBLISH 3.1.1":                  read(v3, V311),
		"PUBLISH 5.0":                    read(v5, V5),
		"PUBLISH 5.0 with a topic alias": read(alias, V5),
		"PUBACK 3.1.1":                   func() { _ = a.Decode(ack[2:], V311) },
		"PUBACK 5.0":                     func() { _ = a.Decode(ack5[2:], V5) },
		"appended PUBLISH 3.1.1":         func() { _, _ = out.Append(dst, V311) },
		"appended PUBLISH 5.0":           func() { _, _ = outAlias.Append(dst, V5) },
		"appended PUBACK":                func() { _ = a.Append(dst, PUBACK, V5) },
		"appended PINGRESP":              func() { _ = AppendPingresp(dst) },
		"size":                           func() { _ = outAlias.Size(V5) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	_ = h
}

func benchmarkDecode(b *testing.B, v Version, props *Properties) {
	in := publish(b, v, props)
	var p Publish
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		h, n, _ := ReadHeader(in)
		if err := p.Decode(h.Flags, in[n:], v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublishDecode311(b *testing.B)    { benchmarkDecode(b, V311, nil) }
func BenchmarkPublishDecode5(b *testing.B)      { benchmarkDecode(b, V5, nil) }
func BenchmarkPublishDecode5Alias(b *testing.B) { benchmarkDecode(b, V5, &Properties{TopicAlias: 3}) }
func BenchmarkPublishDecode5Full(b *testing.B) {
	benchmarkDecode(b, V5, &Properties{Message: allMessage})
}

func benchmarkAppend(b *testing.B, v Version, props *Properties) {
	p := Publish{Topic: hot, QoS: 1, PacketID: 77, Payload: make([]byte, 100), Properties: props}
	dst := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Append(dst, v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublishAppend311(b *testing.B) { benchmarkAppend(b, V311, nil) }
func BenchmarkPublishAppend5(b *testing.B)   { benchmarkAppend(b, V5, nil) }
func BenchmarkPublishAppend5Full(b *testing.B) {
	benchmarkAppend(b, V5, &Properties{Message: allMessage})
}

func BenchmarkAckDecode(b *testing.B) {
	in := []byte{0, 77}
	var a Ack
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Decode(in, V5); err != nil {
			b.Fatal(err)
		}
	}
}
