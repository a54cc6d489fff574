package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"holdfast/edge/packet"
)

// twoWayTime is for how long messages go both ways, HOLDFAST_TWO_WAY=1h for an hour.
func twoWayTime(t *testing.T) time.Duration {
	d, err := time.ParseDuration(os.Getenv("HOLDFAST_TWO_WAY"))
	if err != nil && os.Getenv("HOLDFAST_TWO_WAY") != "" {
		t.Fatal(err)
	}
	return d
}

// TestATwoWayBridgeWithOverlappingRoutesMakesNoLoop: two gateways, of which one has a
// bridge to the other, with routes both ways that overlap. Whatever is published on
// either side arrives on both, once but for what QoS 1 repeats when the link is cut.
func TestATwoWayBridgeWithOverlappingRoutesMakesNoLoop(t *testing.T) {
	t.Parallel()
	const n, window = 500, 100
	for _, protocol := range []string{"3.1.1", "5"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			far := newNamed(t, "far", "")
			far.start()
			proxy := newCutter(t, far.address)
			near := newHoldfast(t, fmt.Sprintf(`
[[bridge]]
name = "twin"
protocol = %q
  [[bridge.upstream]]
  url = "tcp://%s"
  [[bridge.route]]
  direction = "both"
  topic = "plant/+/state"
  priority = "high"
  [[bridge.route]]
  direction = "both"
  topic = "plant/#"
  [[bridge.route]]
  direction = "both"
  topic = "#"
`, protocol, proxy.address()))
			near.start()
			eventually(t, "the bridge is connected", func() bool { return near.bridge().State == "connected" }, near.tail)
			here, there := newCollector(t), newCollector(t)
			here.attach(near.address, "plant/#")
			there.attach(far.address, "plant/#")
			a := connect(t, near.address, packet.Connect{ClientID: "a", CleanStart: true})
			b := connect(t, far.address, packet.Connect{ClientID: "b", CleanStart: true})
			var names []string
			cuts := 0
			begun := time.Now()
			for round := 0; round < 3 || time.Since(begun) < twoWayTime(t); round++ {
				up, down := fmt.Sprint("up", round), fmt.Sprint("down", round)
				names = append(names, up, down)
				publishAll(t, a, up, "plant/pump/state", n, window)
				publishAll(t, b, down, "plant/valve/state", n, window)
				if round%2 == 0 { // while some of it is on its way
					proxy.cut()
					cuts++
				}
				// No more than fits the far side's queue for a bridge that is away.
				eventually(t, "all of a round has arrived on both sides", func() bool {
					return here.distinct() == len(names)*n && there.distinct() == len(names)*n
				}, near.tail)
			}
			for side, k := range map[string]*collector{"near": here, "far": there} {
				k.check(n, names...)
				k.mu.Lock()
				again := k.again
				k.mu.Unlock()
				// A cut may repeat what was on its way, in each direction.
				if most := cuts * 2 * 500; again > most {
					t.Errorf("%s: %d repetitions of %d messages by %d cuts", side, again, len(names)*n, cuts)
				}
				t.Logf("%s: %d repetitions of %d messages by %d cuts", side, again, len(names)*n, cuts)
			}
			// What came from there must not have gone back: the books of all routes have
			// what was published here, and nothing else.
			st := near.drained()
			if got, want := st.Books().Accepted, uint64(len(names)/2*n); got != want {
				t.Errorf("the bridge has taken %d messages, %d were published here", got, want)
			}
		})
	}
}
