package e2e

import (
	"fmt"
	"syscall"
	"testing"

	"holdfast/cmd/holdfast/gateway"
	"holdfast/edge/packet"
)

// While a real upstream answers, nothing is written; when it goes, everything
// that was on its way is, and a kill loses nothing of what was acknowledged.
func TestSpillWritesOnlyWhatTheUpstreamDoesNotAcknowledge(t *testing.T) {
	up := newMosquitto(t, "persistence true", "persistence_location "+t.TempDir()+"/")
	up.start()
	// So long that a busy machine is never taken for a slow upstream.
	g := newHoldfast(t, "[storage]\nsync = \"spill\"\nspill_after = \"10s\"\n"+fmt.Sprintf(outRoute, up.address))
	g.start()
	eventually(t, "the bridge is connected", func() bool { return g.bridge().State == "connected" }, g.tail)
	k := newCollector(t)
	k.attach(up.address, "gw/#")
	const n = 2000
	c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
	storage := func() gateway.StorageStatus {
		st, err := g.status()
		if err != nil {
			t.Fatal(err)
		}
		return st.Storage
	}
	publishAll(t, c, "p", "s/p", n, 50)
	before := storage()
	publishAll(t, c, "q", "s/p", n, 50)
	after := storage()
	if after.Direct-before.Direct != n || after.Commits-before.Commits > 3 || after.Pending != 0 {
		t.Errorf("%d messages: %d without the disk, %d commits, %d bytes wait", n, after.Direct-before.Direct, after.Commits-before.Commits, after.Pending)
	}
	k.check(n, "p", "q")

	up.end(syscall.SIGTERM) // saves what it has acknowledged
	publishAll(t, c, "r", "s/p", n, 50)
	g.end(syscall.SIGKILL)
	g.start()
	k.wg.Wait()
	up.start()
	k.attach(up.address, "gw/#")
	k.check(n, "p", "q", "r")
	g.drained()
}
