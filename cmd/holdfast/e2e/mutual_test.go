package e2e

import (
	"fmt"
	"testing"

	"holdfast/edge/packet"
)

// circle makes gateways a, b, c ... of which each has a bridge to the next, and the
// last one to the first, with one route for everything.
func circle(t *testing.T, n int, protocol, direction string) []*holdfast {
	t.Helper()
	var addresses []string
	for range n {
		addresses = append(addresses, freePort(t))
	}
	var list []*holdfast
	for i := range n {
		g := newNamed(t, string(rune('a'+i)), fmt.Sprintf(`
[[listener]]
address = %q
[[bridge]]
name = "next"
protocol = %q
  [[bridge.upstream]]
  url = "tcp://%s"
  [[bridge.route]]
  direction = %q
  topic = "#"
`, addresses[i], protocol, addresses[(i+1)%n], direction))
		g.start()
		list = append(list, g)
	}
	for _, g := range list {
		eventually(t, "the bridge is connected", func() bool { return g.bridge().State == "connected" }, g.tail)
	}
	return list
}

// TestGatewaysThatBridgeOneAnotherMakeNoLoop: whatever is published at one of them
// arrives at each, once, and comes to rest.
func TestGatewaysThatBridgeOneAnotherMakeNoLoop(t *testing.T) {
	t.Parallel()
	const n, window = 200, 50
	for _, tc := range []struct {
		gateways            int
		protocol, direction string
		copies              int // the most that arrive of one message: both ends may carry it
	}{
		{2, "5", "out", 1},
		{2, "5", "in", 1},
		{2, "5", "both", 2},
		{3, "5", "out", 1},
		{3, "5", "both", 2},
	} {
		t.Run(fmt.Sprintf("%d gateways, %s, %s", tc.gateways, tc.protocol, tc.direction), func(t *testing.T) {
			t.Parallel()
			gs := circle(t, tc.gateways, tc.protocol, tc.direction)
			var seen []*collector
			var names []string
			for i, g := range gs {
				k := newCollector(t)
				k.attach(g.address, "plant/#")
				seen = append(seen, k)
				names = append(names, fmt.Sprint("from", i))
			}
			for i, g := range gs {
				c := connect(t, g.address, packet.Connect{ClientID: "sensor", CleanStart: true})
				publishAll(t, c, names[i], "plant/pump", n, window)
			}
			for _, k := range seen {
				k.check(n, names...)
			}
			// What is on its way comes to rest: no bridge has anything left.
			for _, g := range gs {
				eventually(t, "the queue is empty", func() bool { return g.bridge().Queued == 0 }, g.tail)
			}
			for i, k := range seen {
				k.mu.Lock()
				if most := (tc.copies - 1) * len(names) * n; k.again > most {
					t.Errorf("gateway %d: %d repetitions of %d messages", i, k.again, len(names)*n)
				}
				k.mu.Unlock()
			}
			for i, g := range gs {
				st, err := g.status()
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("gateway %d: %+v, %d sent back by clients, %d come down again", i, st.Books(), st.Broker.DroppedLoop, st.Bridges[0].DroppedLoop)
				if c := st.Books(); !c.Balanced() || c.Taken() > uint64(2*len(names)*n+50) {
					t.Errorf("gateway %d: the books are %+v", i, c)
				}
			}
		})
	}
}
