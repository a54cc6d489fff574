package packet

import (
	"bytes"
	"runtime"
	"testing"
)

// A packet of nothing but the smallest parts is the worst that a peer can send.
func TestMemoryIsInProportionToThePacket(t *testing.T) {
	const size = 256 << 10
	fill := func(front, part string) []byte {
		b := unhex(t, front)
		p := unhex(t, part)
		return append(b, bytes.Repeat(p, (size-len(b))/len(p))...)
	}
	publish := unhex(t, "0001 61")
	properties := fill("", "26 0000 0000")
	publish = append(appendVarint(publish, uint32(len(properties))), properties...)
	for _, c := range []struct {
		name string
		h    Header
		v    Version
		b    []byte
	}{
		{"SUBSCRIBE with empty filters", Header{Type: SUBSCRIBE}, V311, fill("0001", "0000 00")},
		{"UNSUBSCRIBE with empty filters", Header{Type: UNSUBSCRIBE}, V5, fill("0001 00", "0000")},
		{"SUBACK", Header{Type: SUBACK}, V5, fill("0001 00", "00")},
		{"PUBLISH with empty user properties", Header{Type: PUBLISH}, V5, publish},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decode(c.h, c.b, c.v)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; err != nil || used > 64*size {
			t.Errorf("%s: %d bytes for %d, error %v", c.name, used, len(c.b), err)
		} else {
			t.Logf("%s: %d times its size", c.name, used/size)
		}
	}
}
