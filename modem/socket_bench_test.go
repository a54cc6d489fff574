package modem_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"holdfast/modem"
	"holdfast/modem/sim"
)

// BenchmarkLineUse is the share of a line of 115,200 baud that carries payload
// while a backlog drains through a socket inside the module: what went up, as
// bytes take ten bits on the line and twice as many where they go in hex, of the
// time that it took. "bulk" is one long write. "messages" has records of 200
// bytes of which 32 may be unanswered, each answered with 4 bytes, as publishes
// are with QoS 1.
func BenchmarkLineUse(b *testing.B) {
	const baud = 115_200
	for _, k := range []struct {
		name  string
		o     sim.Options
		bytes int // on the line for one of payload
	}{
		{"ecso", sim.Options{}, 2},
		{"qi", sim.Options{Sockets: sim.SocketsQI}, 1},
	} {
		for _, traffic := range []struct {
			name string
			run  func(b *testing.B, through, far net.Conn, n int)
		}{{"bulk", drainBulk}, {"messages", drainMessages}} {
			b.Run(k.name+"/"+traffic.name, func(b *testing.B) {
				k.o.Baud = baud
				module, err := sim.New(k.o)
				if err != nil {
					b.Skip(err)
				}
				defer module.Close()
				m, err := modem.New(modem.Options{Name: "lte", Port: module.Path(), Mode: "socket"})
				if err != nil {
					b.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				ended := make(chan error, 1)
				go func() { ended <- m.Run(ctx) }()
				defer func() { cancel(); <-ended }()
				through, far, err := (&site{modem: m}).dial()
				if err != nil {
					b.Fatal(err)
				}
				defer through.Close()
				defer far.Close()
				n := 100_000 / k.bytes
				for b.Loop() {
					traffic.run(b, through, far, n)
				}
				carried := float64(n*k.bytes) * 10 / baud
				b.ReportMetric(100*carried*float64(b.N)/b.Elapsed().Seconds(), "%line")
			})
		}
	}
}

func drainBulk(b *testing.B, through, far net.Conn, n int) {
	go through.Write(make([]byte, n))
	if _, err := io.CopyN(io.Discard, far, int64(n)); err != nil {
		b.Fatal(err)
	}
}

func drainMessages(b *testing.B, through, far net.Conn, n int) {
	const size, window = 200, 32
	go func() {
		record := make([]byte, size)
		for range n / size {
			if _, err := io.ReadFull(far, record); err != nil {
				return
			}
			far.Write(record[:4])
		}
	}()
	tokens := make(chan struct{}, window)
	go func() {
		record := make([]byte, size)
		for i := range n / size {
			tokens <- struct{}{}
			binary.BigEndian.PutUint32(record, uint32(i))
			if _, err := through.Write(record); err != nil {
				return
			}
		}
	}()
	answer := make([]byte, 4)
	through.SetReadDeadline(time.Now().Add(time.Minute))
	for i := range n / size {
		if _, err := io.ReadFull(through, answer); err != nil || binary.BigEndian.Uint32(answer) != uint32(i) {
			b.Fatalf("answer %d: %x, %v", i, answer, err)
		}
		<-tokens
	}
}
