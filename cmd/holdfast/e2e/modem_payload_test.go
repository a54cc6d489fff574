package e2e

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	vocabulary "holdfast"
	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
	"holdfast/modem/sim"
)

// Payloads that the command line of the module's own client cannot carry, and
// one that is too long for it even in base64.
var awkward = []string{"a\x00b", "line\r\nline", "\x1a", strings.Repeat("x", 700) + "\x00", strings.Repeat("y", 1025)}

const payloadRoutes = `
[[modem]]
name = "lte"
port = %q
mode = "mqtt"
[[bridge]]
name = "cloud"
  [[bridge.upstream]]
  url = "tcp://%s"
  via = "lte"
  %s
  [[bridge.route]]
  direction = "out"
  topic = "plain/#"
  [[bridge.route]]
  direction = "out"
  topic = "coded/#"
  encoding = "base64"
`

// arrivals subscribes at a broker and returns the next n payloads.
func arrivals(t *testing.T, address, filter string) func(n int) []string {
	t.Helper()
	c := connect(t, address, packet.Connect{ClientID: "arrivals", CleanStart: true})
	if err := c.Subscribe(vocabulary.Subscription{Filter: filter, QoS: 1}); err != nil {
		t.Fatal(err)
	}
	return func(n int) (list []string) {
		t.Helper()
		for len(list) < n {
			p, err := c.NextPublish()
			if err != nil {
				t.Fatalf("%d of %d payloads: %v", len(list), n, err)
			}
			list = append(list, string(p.Payload))
		}
		return list
	}
}

// publishPayloads publishes each with QoS 1 and waits for its acknowledgement.
func publishPayloads(t *testing.T, c *client.Client, name string, payloads ...string) {
	t.Helper()
	for i, payload := range payloads {
		p := packet.Publish{Topic: []byte(name), QoS: 1, PacketID: packetID(i), Payload: []byte(payload)}
		if err := c.Send(p.Append(nil, packet.V311)); err != nil {
			t.Fatal(err)
		}
		if h, _, err := c.Next(); err != nil || h.Type != packet.PUBACK {
			t.Fatalf("%v, %v instead of PUBACK", h.Type, err)
		}
	}
}

func TestPayloadsThatTheModuleCannotCarryGoInBase64OrIntoQuarantine(t *testing.T) {
	t.Parallel()
	up := newMosquitto(t)
	up.start()
	next := arrivals(t, up.address, "+/p")
	m := newModule(t, sim.DialectECMT, sim.SocketsNone)
	g := newHoldfast(t, fmt.Sprintf(payloadRoutes, m.Path(), up.address, ""))
	g.start()
	c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
	publishPayloads(t, c, "plain/p", awkward...)
	publishPayloads(t, c, "coded/p", awkward...)
	publishPayloads(t, c, "plain/p", "behind")
	var want []string
	for _, p := range awkward[:4] {
		want = append(want, base64.StdEncoding.EncodeToString([]byte(p)))
	}
	if got := next(5); !slices.Equal(got, append(want, "behind")) {
		t.Errorf("%q has arrived", got)
	}
	eventually(t, "the queue is empty", func() bool { return g.bridge().Queued == 0 }, g.tail)
	st, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	if b := st.Books(); !b.Balanced() || b.Delivered != 5 || b.Quarantined["refused"] != 4 || b.Quarantined["too large"] != 2 {
		t.Errorf("the books say %+v", b)
	}
}

func TestPayloadsThatTheModuleCannotCarryGoByAnotherUpstream(t *testing.T) {
	t.Parallel()
	up := newMosquitto(t)
	up.start()
	next := arrivals(t, up.address, "+/p")
	m := newModule(t, sim.DialectECMT, sim.SocketsNone)
	wired := fmt.Sprintf("[[bridge.upstream]]\nurl = \"tcp://%s\"\nclient_id = \"wired\"\n", up.address)
	g := newHoldfast(t, fmt.Sprintf(payloadRoutes, m.Path(), up.address, wired))
	g.start()
	eventually(t, "the bridge is connected", func() bool { return g.bridge().State == "connected" }, g.tail)
	c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
	publishPayloads(t, c, "plain/p", awkward...)
	publishPayloads(t, c, "coded/p", awkward...)
	publishPayloads(t, c, "plain/p", "text")
	got := next(11)
	for _, p := range awkward {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s != p })); n != 2 {
			t.Errorf("%q has arrived %d times, among %q", p, n, got)
		}
	}
	st := g.drained()
	if b := g.bridge(); !strings.HasSuffix(b.Upstream, "via lte") || b.Beside != 10 || st.Books().Delivered != 11 {
		t.Errorf("%+v", b)
	}
}
