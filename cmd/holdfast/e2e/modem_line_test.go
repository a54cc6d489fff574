package e2e

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"holdfast/edge/packet"
	"holdfast/modem/sim"
)

// BenchmarkModemLine is the share of a module's line of 115,200 baud that
// carries what the gateway sends while a backlog drains through a socket inside
// it: the bytes of the connection, ten bits each, and two for one in hex.
func BenchmarkModemLine(b *testing.B) {
	const baud, n = 115_200, 1000
	for _, k := range []struct {
		sockets string
		bytes   int
	}{{sim.SocketsECSO, 2}, {sim.SocketsQI, 1}} {
		b.Run(k.sockets, func(b *testing.B) {
			up := newMosquitto(b)
			up.start()
			m, err := sim.New(sim.Options{Sockets: k.sockets, Baud: baud, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			m.SetLink(false)
			g := newHoldfast(b, fmt.Sprintf(modemRoute, m.Path(), "socket", up.address))
			g.start()
			c := connect(b, g.address, packet.Connect{ClientID: "p", CleanStart: true})
			publishAll(b, c, strings.Repeat("p", 150), "s/p", n, 50)
			for b.Loop() {
				publishAll(b, c, "p", "s/p", 0, 50)
			}
			m.SetLink(true)
			eventually(b, "it drains", func() bool { return g.bridge().Acked > 50 }, g.tail)
			begun, before := time.Now(), m.Stats().Up
			eventually(b, "it drains", func() bool { return g.bridge().Queued == 0 }, g.tail)
			sent := float64(m.Stats().Up - before)
			b.ReportMetric(100*sent*float64(k.bytes)*10/baud/time.Since(begun).Seconds(), "%line")
		})
	}
}
