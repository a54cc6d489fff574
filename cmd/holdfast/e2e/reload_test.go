package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"holdfast/edge/packet"
)

// configure writes another configuration, has the gateway read it, and waits for
// what its log says of that.
func (g *holdfast) configure(old, new, says string) {
	g.t.Helper()
	b, err := os.ReadFile(g.file())
	if err != nil || !strings.Contains(string(b), old) {
		g.t.Fatal(err, string(b))
	}
	if err := os.WriteFile(g.file(), []byte(strings.Replace(string(b), old, new, 1)), 0o600); err != nil {
		g.t.Fatal(err)
	}
	said := func() int {
		b, _ := os.ReadFile(g.out.Name())
		return strings.Count(string(b), says)
	}
	before := said()
	if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		g.t.Fatal(err)
	}
	eventually(g.t, "the log says "+says, func() bool { return said() > before }, g.tail)
}

const taken = "configuration read again"

func TestBridgesChangeWhileTheGatewayRunsAndNothingIsLostOrReordered(t *testing.T) {
	t.Parallel()
	up := newMosquitto(t)
	nowhere := freePort(t)
	g := newHoldfast(t, fmt.Sprintf(outRoute, nowhere))
	g.start()
	c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
	from := 0
	more := func(n int) { // the publisher goes on while the gateway changes
		t.Helper()
		for i := from; i < from+n; i++ {
			p := packet.Publish{Topic: []byte("s/p"), Payload: fmt.Appendf(nil, "p/%d", i), QoS: 1, PacketID: uint16(i%60000 + 1)}
			if err := c.Send(p.Append(nil, packet.V311)); err != nil {
				t.Fatal(err)
			}
			if h, _, err := c.Next(); err != nil || h.Type != packet.PUBACK {
				t.Fatal(h, err)
			}
		}
		from += n
	}
	more(200)
	// A fault changes nothing.
	g.configure("remote_prefix", "remote_prefx", "the one before stays in use")
	more(10)
	g.configure("remote_prefx", "remote_prefix", taken)
	// A renamed bridge leaves its queue to the name, and says so.
	g.configure(`name = "cloud"`, `name = "sky"`, taken)
	more(50)
	st, err := g.status()
	if err != nil || len(st.Retired) != 1 || st.Retired[0].Name != "cloud" || st.Retired[0].Queued != 210 || g.bridge().Queued != 50 {
		t.Fatalf("%v: %+v, %d queued", err, st.Retired, g.bridge().Queued)
	}
	if !strings.Contains(g.tail(), "is not in the configuration any more") {
		t.Errorf("nobody is told:\n%s", g.tail())
	}
	up.start()
	k := newCollector(t)
	k.attach(up.address, "gw/#")
	g.configure(nowhere, up.address, taken)
	eventually(t, "the new one has drained", func() bool { return g.bridge().Queued == 0 }, g.tail)
	g.configure(`name = "sky"`, `name = "cloud"`, taken)
	eventually(t, "the old queue has drained", func() bool { return g.bridge().Queued == 0 }, g.tail)
	eventually(t, "all have arrived", func() bool { return k.distinct() == from }, g.tail)
	k.mu.Lock()
	k.first = map[string][]int{} // two queues have no common order
	k.seen = map[string]map[int]bool{}
	k.mu.Unlock()
	// Changes in the middle of traffic.
	from = 0
	const round = 300
	for n, change := range [][2]string{
		{"name = \"all\"", "name = \"every\""}, {"[[bridge.upstream]]", "[bridge.queue]\n  window = 3\n  [[bridge.upstream]]"},
		{"window = 3", "window = 50\n  rate = 2000"},
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			more(round)
		}()
		g.configure(change[0], change[1], taken)
		<-done
		if n == 0 {
			eventually(t, "the retired route is told", func() bool { return len(g.bridge().RetiredRoutes) > 0 }, g.tail)
		}
	}
	k.check(3*round, "p")
	eventually(t, "the last is acknowledged", func() bool { return g.bridge().Queued == 0 }, g.tail)
	st, err = g.status()
	if b := st.Books(); err != nil || !b.Balanced() || b.Accepted != b.Delivered || b.Accepted != 260+3*round {
		t.Errorf("%v: %+v", err, b)
	}
}

func TestABridgeThatIsTheSameGoesOnUndisturbed(t *testing.T) {
	t.Parallel()
	up := newMosquitto(t)
	up.start()
	other := strings.Replace(fmt.Sprintf(outRoute, up.address), "cloud", "other", 1)
	g := newHoldfast(t, fmt.Sprintf(outRoute, up.address)+other)
	g.start()
	connected := func() (n uint64) {
		st, err := g.status()
		if err != nil || st.Bridges[0].State != "connected" {
			return 0
		}
		return st.Bridges[0].Connections
	}
	eventually(t, "it is connected", func() bool { return connected() == 1 }, g.tail)
	g.configure(other, "", taken)
	eventually(t, "the other has gone", func() bool { st, err := g.status(); return err == nil && len(st.Bridges) == 1 }, g.tail)
	g.configure("[gateway]", "[gateway]", taken)
	if n := connected(); n != 1 {
		t.Errorf("it is in its connection %d", n)
	}
	// Another identifier would be another session at the far broker, by itself.
	g.configure(`id = "gw"`, `id = "other"`, taken)
	if !strings.Contains(g.tail(), "gateway.id: this gateway is gw until it is restarted") {
		t.Errorf("nobody is told:\n%s", g.tail())
	}
	g.configure(`id = "other"`, `id = "gw"`, taken)
	if n := connected(); n != 1 {
		t.Errorf("it is in its connection %d", n)
	}
	// A modem cannot come while the gateway runs.
	g.configure("[[bridge]]\nname = \"cloud\"\n", `[[modem]]
name = "lte"
port = "/dev/ttyNone"
[[bridge]]
name = "cloud"
  [[bridge.upstream]]
  url = "tcp://x"
  via = "lte"
`, "restart the gateway for it")
	if n := connected(); n != 1 {
		t.Errorf("it is in its connection %d", n)
	}
}
