package gateway

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"holdfast"
	"holdfast/cmd/holdfast/client"
	"holdfast/edge"
	"holdfast/edge/packet"
	"holdfast/storage"
)

// BenchmarkGroupCommit is what one publisher gets over MQTT from group commit:
// the acknowledged rate with 100 messages in flight against that with one,
// into the queue of a durable session that is away, with fsync before every
// PUBACK. The ratio is printed for this disk, and for one that takes 2 ms more
// for each sync, as many SD cards do.
func BenchmarkGroupCommit(b *testing.B) {
	for _, disk := range []struct {
		name  string
		slow  time.Duration
		count int // messages with one in flight; a hundred times that with 100
	}{{"disk", 0, 500}, {"disk+2ms", 2 * time.Millisecond, 200}} {
		b.Run(disk.name, func(b *testing.B) {
			address := benchBroker(b, disk.slow)
			var one, hundred float64
			for b.Loop() {
				one += acknowledgedRate(b, address, disk.count, 1)
				hundred += acknowledgedRate(b, address, disk.count*100, 100)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(one/float64(b.N), "one/s")
			b.ReportMetric(hundred/float64(b.N), "hundred/s")
			b.ReportMetric(hundred/one, "ratio")
		})
	}
}

func benchBroker(b *testing.B, slow time.Duration) (address string) {
	b.Helper()
	log := slog.New(slog.DiscardHandler)
	store, err := storage.Open(storage.Options{Dir: b.TempDir(), Logger: log, BeforeSync: func() error {
		if slow > 0 {
			<-time.After(slow)
		}
		return nil
	}})
	if err != nil {
		b.Fatal(err)
	}
	broker, err := edge.NewServer(edge.Options{
		Sink: &sink{store: store, bridges: new(bridges)}, Store: sessionStore{store}, Access: edge.AnonymousLoopback, Logger: log,
	})
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- broker.Serve(ln) }()
	b.Cleanup(func() {
		if err := broker.Shutdown(context.Background()); err != nil {
			b.Error(err)
		}
		if err := <-served; err != nil {
			b.Error(err)
		}
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	away := benchClient(b, ln.Addr().String(), packet.Connect{ClientID: "away"})
	if err := away.Subscribe(holdfast.Subscription{Filter: "#", QoS: 1}); err != nil {
		b.Fatal(err)
	}
	if err := away.Disconnect(); err != nil {
		b.Fatal(err)
	}
	return ln.Addr().String()
}

func benchClient(b *testing.B, address string, login packet.Connect) *client.Client {
	b.Helper()
	c, err := client.Dial(context.Background(), address, login)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// acknowledgedRate publishes n messages of 128 bytes with QoS 1 and returns how
// many were acknowledged in a second.
func acknowledgedRate(b *testing.B, address string, n, window int) float64 {
	b.Helper()
	c := benchClient(b, address, packet.Connect{ClientID: "publisher", CleanStart: true})
	defer c.Disconnect()
	p := packet.Publish{Topic: []byte("bench/a"), QoS: 1, Payload: make([]byte, 128)}
	begun := time.Now()
	sent, acked := 0, 0
	for acked < n {
		var out []byte
		for sent < n && sent-acked < window {
			p.PacketID = uint16(sent%65535) + 1
			var err error
			if out, err = p.Append(out, packet.V311); err != nil {
				b.Fatal(err)
			}
			sent++
		}
		if len(out) > 0 {
			if err := c.Send(out, nil); err != nil {
				b.Fatal(err)
			}
		}
		if _, _, err := c.Next(); err != nil {
			b.Fatal(err)
		}
		acked++
	}
	return float64(n) / time.Since(begun).Seconds()
}
