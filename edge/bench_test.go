package edge

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"holdfast"
	"holdfast/edge/packet"
)

// nowhere takes everything at once.
type nowhere struct{ *fakeDisk }

func (nowhere) Accept(_ *holdfast.Publication, done func(error)) error {
	done(nil)
	return nil
}

func benchServer(b *testing.B) *Server {
	b.Helper()
	disk := newFakeDisk()
	srv, err := NewServer(Options{Sink: nowhere{disk}, Store: disk, Access: AnonymousAlways, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	return srv
}

func benchConn(b *testing.B, srv *Server, id string, durable bool) *conn {
	b.Helper()
	far, near := net.Pipe()
	go io.Copy(io.Discard, far)
	b.Cleanup(func() { far.Close() })
	c := newConn(srv, near)
	c.version, c.clientID, c.sess, c.started = packet.V311, id, newSession(id, durable), true
	c.window = 64
	c.sess.outbox = newMemoryOutbox(1 << 20)
	c.sess.conn.Store(c)
	return c
}

// BenchmarkPublish is one PUBLISH from the buffer of its connection to its
// acknowledgement in the buffer of the writer, without a disk.
func BenchmarkPublish(b *testing.B) {
	for _, bm := range []struct {
		name    string
		qos     byte
		live    int
		durable int
	}{{"QoS0/nobody", 0, 0, 0}, {"QoS0/one", 0, 1, 0}, {"QoS0/ten", 0, 10, 0}, {"QoS1/nobody", 1, 0, 0}, {"QoS1/durable", 1, 0, 1}} {
		b.Run(bm.name, func(b *testing.B) {
			srv := benchServer(b)
			c := benchConn(b, srv, "pub", false)
			var subs []*conn
			for i := range bm.live {
				s := benchConn(b, srv, fmt.Sprint("live", i), false)
				srv.router.subscribe(s.sess, holdfast.Subscription{Filter: "bench/#", QoS: 0})
				subs = append(subs, s)
			}
			for i := range bm.durable {
				s := newSession(fmt.Sprint("durable", i), true)
				srv.router.subscribe(s, holdfast.Subscription{Filter: "bench/#", QoS: 1})
			}
			p := packet.Publish{Topic: []byte("bench/sensor/temperature"), QoS: bm.qos, Payload: make([]byte, 64)}
			p.PacketID = uint16(bm.qos)
			raw, err := p.Append(nil, packet.V311)
			if err != nil {
				b.Fatal(err)
			}
			h, n, _ := packet.ReadHeader(raw)
			b.ReportAllocs()
			c.beginBatch() // that never ends: nothing is written to a socket
			for b.Loop() {
				if err := c.handle(h, raw[n:]); err != nil {
					b.Fatal(err)
				}
				c.out = c.out[:0]
				for _, s := range subs {
					s.out = s.out[:0]
				}
			}
		})
	}
}

// BenchmarkMatchManyTopics goes through more topics than the cache has room for.
func BenchmarkMatchManyTopics(b *testing.B) {
	for _, n := range []int{4000, 5000, 20000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			srv := benchServer(b)
			for i := range 20 {
				srv.router.subscribe(newSession(fmt.Sprint(i), false), holdfast.Subscription{Filter: strings.Repeat("+/", i%3) + "#"})
			}
			names := make([]string, n)
			for i := range names {
				names[i] = fmt.Sprintf("site/%d/sensor/%d", i%50, i)
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				srv.router.match(names[i%n])
				i++
			}
		})
	}
}
