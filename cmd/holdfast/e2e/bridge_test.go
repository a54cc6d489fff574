package e2e

import (
	"fmt"
	"syscall"
	"testing"

	"holdfast/edge/packet"
)

const outRoute = `
[[bridge]]
name = "cloud"
  [[bridge.upstream]]
  url = "tcp://%s"
  [[bridge.route]]
  name = "all"
  direction = "out"
  topic = "s/#"
  remote_prefix = "gw/"
`

func TestTwentyThousandAcknowledgedMessagesSurviveAKillDuringAnOutage(t *testing.T) {
	t.Parallel()
	up := newMosquitto(t)
	gate := newGate(t, up.address)
	g := newHoldfast(t, fmt.Sprintf(outRoute, gate.address()))
	g.start()
	const publishers, each = 4, 5000
	var names []string
	for i := range publishers {
		name := fmt.Sprintf("p%d", i)
		names = append(names, name)
		c := connect(t, g.address, packet.Connect{ClientID: name, CleanStart: true})
		publishAll(t, c, name, "s/"+name, each, 100)
	}
	g.end(syscall.SIGKILL)
	g.start()
	if q := g.bridge().Queued; q != publishers*each {
		t.Fatalf("%d messages are queued after kill -9, want %d", q, publishers*each)
	}
	up.start()
	k := newCollector(t)
	k.attach(up.address, "gw/#")
	gate.shut.Store(false)
	k.check(each, names...)
	st := g.drained()
	if c := st.Books(); c.Accepted != publishers*each {
		t.Errorf("accepted %d, want %d", c.Accepted, publishers*each)
	}
}

func TestNoMessageIsLostWhenTheUpstreamIsCutAndRestartedInMidDrain(t *testing.T) {
	t.Parallel()
	up := newMosquitto(t, "persistence true", "persistence_location "+t.TempDir()+"/")
	up.start()
	proxy := newGate(t, up.address)
	g := newHoldfast(t, fmt.Sprintf(outRoute, proxy.address()))
	up.end(syscall.SIGTERM)
	g.start()
	const n = 20000
	c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
	publishAll(t, c, "p", "s/p", n, 200)
	up.start()
	k := newCollector(t)
	k.attach(up.address, "gw/#")
	proxy.shut.Store(false)
	for round := range 10 {
		target := (round + 1) * n / 12
		eventually(t, "the drain goes on", func() bool { return k.distinct() >= target || g.bridge().Queued == 0 }, g.tail)
		proxy.cut()
		if round%2 == 1 {
			// mosquitto saves its sessions when it is told to end, so that
			// what it had acknowledged is still there for the collector.
			up.end(syscall.SIGTERM)
			k.wg.Wait()
			up.start()
			k.attach(up.address, "gw/#")
		}
	}
	k.check(n, "p")
	g.drained()
}

func TestCommandsComeDownAndAreAcknowledgedUpstreamOnlyWhenTheyAreSafe(t *testing.T) {
	up := newMosquitto(t, "persistence true", "persistence_location "+t.TempDir()+"/")
	up.start()
	g := newHoldfast(t, fmt.Sprintf(`
[[bridge]]
name = "cloud"
  [[bridge.upstream]]
  url = "tcp://%s"
  [[bridge.route]]
  name = "commands"
  direction = "in"
  topic = "#"
  local_prefix = "cmd/"
  remote_prefix = "gw/cmd/"
`, up.address))
	g.start()
	eventually(t, "the bridge is connected", func() bool { return g.bridge().State == "connected" }, g.tail)
	// A durable local session that is away: its messages wait on the gateway's disk.
	device := newCollector(t)
	device.attach(g.address, "cmd/#")
	device.c.Conn.Close()
	device.wg.Wait()

	const n = 2000
	cloud := connect(t, up.address, packet.Connect{ClientID: "cloud", CleanStart: true})
	publishAll(t, cloud, "c", "gw/cmd/valve", n/2, 100)
	g.end(syscall.SIGKILL) // in the middle of what the bridge is bringing down
	publishAll(t, cloud, "d", "gw/cmd/valve", n/2, 100)
	g.start()
	device.attach(g.address, "cmd/#")
	device.check(n/2, "c", "d")
}

func TestLocalDeliveryDoesNotWaitForAFrozenUpstream(t *testing.T) {
	up := newMosquitto(t)
	up.start()
	g := newHoldfast(t, fmt.Sprintf(outRoute, up.address))
	g.start()
	eventually(t, "the bridge is connected", func() bool { return g.bridge().State == "connected" }, g.tail)
	up.cmd.Process.Signal(syscall.SIGSTOP) // connected, and never answers again
	t.Cleanup(func() {
		if up.cmd != nil {
			up.cmd.Process.Signal(syscall.SIGCONT)
		}
	})
	k := newCollector(t)
	k.attach(g.address, "s/#")
	c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
	publishAll(t, c, "p", "s/p", 5000, 100)
	k.check(5000, "p")
	up.cmd.Process.Signal(syscall.SIGCONT)
	g.drained()
}

func TestQoS0MessagesAreStoredAndForwardedToo(t *testing.T) {
	up := newMosquitto(t)
	gate := newGate(t, up.address)
	g := newHoldfast(t, fmt.Sprintf(outRoute, gate.address()))
	g.start()
	c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
	const n = 1000
	for i := range n {
		p := packet.Publish{Topic: []byte("s/p"), Payload: fmt.Appendf(nil, "p/%d", i)}
		if err := c.Send(p.Append(nil, packet.V311)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are on disk", func() bool { return g.bridge().Queued == n }, g.tail)
	g.end(syscall.SIGTERM)
	g.start()
	up.start()
	k := newCollector(t)
	k.attach(up.address, "gw/#")
	gate.shut.Store(false)
	k.check(n, "p")
	g.drained()
}
