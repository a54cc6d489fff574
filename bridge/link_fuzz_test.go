package bridge

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// canned is a wire that has something to read and takes everything.
type canned struct {
	net.Conn
	in *bytes.Reader
}

func (c canned) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c canned) Write(p []byte) (int, error)      { return len(p), nil }
func (c canned) Close() error                     { return nil }
func (c canned) SetDeadline(time.Time) error      { return nil }
func (c canned) SetReadDeadline(time.Time) error  { return nil }
func (c canned) SetWriteDeadline(time.Time) error { return nil }

// Whatever a far broker sends, the library gets whole packets of types and
// sizes that it can take, and then an error.
func FuzzWhatTheLibraryGetsToRead(f *testing.F) {
	f.Add([]byte("\x20\x02\x00\x00\x90\x03\x00\x01\x01\x40\x02\x00\x01\xd0\x00"))
	f.Add([]byte("\x20\x02\x00\x00\x32\x07\x00\x01a\x00\x01hi"))
	f.Add([]byte("\x20\x02\x00\x00\x32\xc8\x01\x00\x01a\x00\x01"))
	f.Add([]byte("\x20\x02\x00\x00\x90\x05\x00\x01\x01\x01\x01"))
	f.Add([]byte("\x20\x02\x00\x00\x34\xff\xff\xff\x7f\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		const maxIn = 100
		l := newLink(canned{in: bytes.NewReader(b)}, maxIn)
		for n := 0; ; n++ {
			p, err := packets.ReadPacket(l)
			if err != nil {
				break
			}
			switch p := p.(type) {
			case *packets.ConnackPacket:
				if n > 0 {
					t.Error("a second CONNACK")
				}
			case *packets.PublishPacket:
				if p.RemainingLength > maxIn {
					t.Errorf("a PUBLISH of %d bytes", p.RemainingLength)
				}
			case *packets.SubackPacket:
				if len(p.ReturnCodes) != 1 {
					t.Errorf("a SUBACK with %d codes", len(p.ReturnCodes))
				}
			}
		}
		l.leaving()
		_ = l.Close()
		<-l.flushed
	})
}
