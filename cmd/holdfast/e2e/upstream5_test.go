package e2e

import (
	"fmt"
	"testing"

	"holdfast/edge/packet"
)

func TestABridgeInMQTT5LosesNothingEitherWayWhenItsConnectionsAreCut(t *testing.T) {
	t.Parallel()
	up := newMosquitto(t)
	up.start()
	proxy := newCutter(t, up.address)
	g := newHoldfast(t, fmt.Sprintf(`
[[bridge]]
name = "cloud"
protocol = "5"
  [[bridge.upstream]]
  url = "tcp://%s"
  [[bridge.route]]
  direction = "both"
  topic = "#"
  local_prefix = "s/"
  remote_prefix = "gw/"
`, proxy.address()))
	g.start()
	eventually(t, "the bridge is connected", func() bool { return g.bridge().State == "connected" }, g.tail)
	far, near := newCollector(t), newCollector(t)
	far.attach(up.address, "gw/up/#")
	near.attach(g.address, "s/down/#")
	const n = 3000
	c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
	cloud := connect(t, up.address, packet.Connect{ClientID: "cloud", CleanStart: true})
	for round := range 3 {
		publishAll(t, c, fmt.Sprint("u", round), "s/up/p", n/3, 100)
		proxy.cut()
		publishAll(t, cloud, fmt.Sprint("d", round), "gw/down/valve", n/3, 100)
	}
	far.check(n/3, "u0", "u1", "u2")
	near.check(n/3, "d0", "d1", "d2")
	st := g.drained()
	if b := st.Bridges[0]; b.DroppedLoop != 0 || b.Received < n || st.Books().Accepted != n {
		t.Errorf("%d came back, %d received, %+v", b.DroppedLoop, b.Received, st.Books())
	}
}
