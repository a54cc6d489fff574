package packet

import (
	"bytes"
	"errors"
	"testing"
)

func FuzzReadHeader(f *testing.F) {
	for _, s := range samples() {
		b, _ := encode(nil, s.t, s.p, s.v)
		f.Add(b[:min(len(b), 8)])
	}
	f.Add([]byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F})
	f.Add([]byte{0x30, 0xFF, 0xFF, 0xFF, 0xFF})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ReadHeader(b)
		var e *Error
		switch {
		case err != nil:
			if !errors.As(err, &e) || n != 0 {
				t.Fatalf("n %d, %v", n, err)
			}
		case n == 0:
			if len(b) >= 5 {
				t.Fatal("more than five bytes are asked for")
			}
		default:
			again := appendVarint([]byte{byte(h.Type)<<4 | h.Flags}, uint32(h.Remaining))
			if !bytes.Equal(again, b[:n]) {
				t.Fatalf("%x is read as %+v, which is %x", b[:n], h, again)
			}
			for i := range n {
				if _, m, err := ReadHeader(b[:i]); m != 0 || err != nil {
					t.Fatalf("cut after %d: n %d, %v", i, m, err)
				}
			}
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, s := range samples() {
		if b, _ := encode(nil, s.t, s.p, s.v); len(b) < 2000 {
			_, n, _ := ReadHeader(b)
			f.Add(b[0], byte(s.v), b[n:])
		}
	}
	f.Fuzz(func(t *testing.T, first, version byte, b []byte) {
		h := Header{Type: Type(first >> 4), Flags: first & 0x0F, Remaining: len(b)}
		if h.Type == 0 || h.checkFlags(V311) != nil {
			return
		}
		v := V31 + Version(version%3)
		kept := bytes.Clone(b)
		p, err := decode(h, b, v)
		if !bytes.Equal(b, kept) {
			t.Fatal("Decode has changed its input")
		}
		var e *Error
		if err != nil {
			if !errors.As(err, &e) || e.Text == "" || e.Code < 0x80 {
				t.Fatalf("%v", err)
			}
			return
		}
		if p == nil {
			return
		}
		out, err := encode(nil, h.Type, p, v)
		if err != nil {
			t.Fatalf("%+v cannot be encoded: %v", p, err)
		}
		h2, n, err := ReadHeader(out)
		if err != nil || n+h2.Remaining != len(out) || h2.Type != h.Type || h2.Flags != h.Flags {
			t.Fatalf("%+v has become %+v, %v", h, h2, err)
		}
		if pub, ok := p.(*Publish); ok && pub.Size(v) != len(out) {
			t.Fatalf("Size is %d of %d", pub.Size(v), len(out))
		}
		if again, err := decode(h2, out[n:], v); err != nil || !equal(p, again) {
			t.Fatalf("%+v\nhas become\n%+v, %v", p, again, err)
		}
	})
}
