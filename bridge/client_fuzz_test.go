package bridge

import (
	"bytes"
	"context"
	"net"
	"testing"

	"holdfast"
)

// FuzzFarBroker: whatever a far broker sends, the connection ends or goes on;
// every publish is answered once.
func FuzzFarBroker(f *testing.F) {
	for _, b := range [][]byte{
		accepted, append(bytes.Clone(accepted), 0x40, 2, 0, 1), append(bytes.Clone(accepted), 0x40, 2, 0, 9),
		append(bytes.Clone(accepted), 0x90, 4, 0, 1, 0, 1), append(bytes.Clone(accepted), 0x34, 7, 0, 1, 'a', 0, 9, 0, 'x', 0x62, 2, 0, 9),
		append(bytes.Clone(accepted), 0x30, 7, 0, 0, 3, 0x23, 0, 1, 'x'), append(bytes.Clone(accepted), 0xE0, 1, 0x8E),
		append(bytes.Clone(accepted), 0x50, 2, 0, 2, 0x70, 2, 0, 2, 0x50, 2, 0, 2),
		{0x20, 15, 0, 0, 12, 0x21, 0, 5, 0x27, 0, 0, 0, 100, 0x25, 0, 0x24, 0}, {0x20, 0xff, 0xff, 0xff, 0x7f},
	} {
		f.Add(true, true, b)
	}
	for _, b := range []string{
		"\x90\x03\x00\x01\x01\x40\x02\x00\x01\xd0\x00", "\x32\x07\x00\x01a\x00\x01hi", "\x32\xc8\x01\x00\x01a\x00\x01",
		"\x90\x05\x00\x01\x01\x01\x01", "\x34\xff\xff\xff\x7f\xff\xff", "\x50\x02\x00\x02\x70\x02\x00\x02",
	} {
		f.Add(false, true, []byte("\x20\x02\x00\x00"+b))
		f.Add(false, false, []byte("\x20\x02\x00\x00"+b))
	}
	f.Fuzz(func(t *testing.T, v5, clean bool, said []byte) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			if _, err := far.Read(make([]byte, 1000)); err != nil {
				return
			}
			go func() {
				b := make([]byte, 1000)
				for {
					if _, err := far.Read(b); err != nil {
						return
					}
				}
			}()
			_, _ = far.Write(said)
		}()
		connect := MQTT3Connect
		if v5 {
			connect = MQTT5Connect
		}
		up, err := connect(ClientOptions{URL: "tcp://far", ClientID: "gw", CleanSession: clean, MaxPacket: 1000,
			Dial: func(context.Context, string, string) (net.Conn, error) { return near, nil }})(t.Context(),
			func(m *holdfast.Message, _ bool, ack func()) {
				if !v5 && len(m.Payload) > 1000 {
					t.Errorf("a message of %d bytes", len(m.Payload))
				}
				ack()
			})
		if err != nil {
			return
		}
		done := make(chan error, 4)
		for qos := range byte(3) {
			up.Publish(&holdfast.Message{Topic: "a", QoS: qos}, false, func(err error) { done <- err })
		}
		_ = up.Subscribe(t.Context(), "a", 1)
		<-up.Done()
		up.Close()
		for range 3 {
			<-done
		}
		if len(done) != 0 {
			t.Fatal("answered twice")
		}
	})
}
