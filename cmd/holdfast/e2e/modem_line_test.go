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
// it: the bytes of the connection, ten bits each, and two for one in hex. "%both"
// counts those that come as well: commands go one at a time, so that the line is not
// sent on while the acknowledgements of small messages are taken.
func BenchmarkModemLine(b *testing.B) {
	const baud = 115_200
	for _, k := range []struct {
		sockets string
		bytes   int
		name    string // of the messages, which is most of their payload
		n       int
	}{
		{sim.SocketsECSO, 2, strings.Repeat("p", 150), 1000}, {sim.SocketsQI, 1, strings.Repeat("p", 150), 1000},
		{sim.SocketsECSO, 2, "p", 3000}, {sim.SocketsQI, 1, "p", 6000},
	} {
		b.Run(fmt.Sprintf("%s/%d", k.sockets, len(k.name)), func(b *testing.B) {
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
			publishAll(b, c, k.name, "s/p", k.n, 50)
			for b.Loop() {
				publishAll(b, c, "p", "s/p", 0, 50)
			}
			m.SetLink(true)
			eventually(b, "it drains", func() bool { return g.bridge().Acked > 50 }, g.tail)
			begun, before := time.Now(), m.Stats()
			eventually(b, "it drains", func() bool { return g.bridge().Queued == 0 }, g.tail)
			after, took := m.Stats(), time.Since(begun).Seconds()
			share := func(n int64) float64 { return 100 * float64(n) * float64(k.bytes) * 10 / baud / took }
			b.ReportMetric(share(after.Up-before.Up), "%line")
			b.ReportMetric(share(after.Up-before.Up+after.Down-before.Down), "%both")
		})
	}
}
