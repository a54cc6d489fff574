package bridge

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"holdfast"
	"holdfast/edge/packet"
)

// A message names the gateways that it has passed where that may keep it from going
// round, and costs nothing elsewhere.
func TestAMessageNamesTheGatewaysThatItHasPassed(t *testing.T) {
	passed := func(ids ...string) *holdfast.Message {
		m := &holdfast.Message{Topic: "t", Origin: "leaf"}
		for _, id := range ids {
			m = m.Via(id)
		}
		return m
	}
	state := &holdfast.Message{Topic: "holdfast/far/bridge/cloud/state", Origin: "leaf"}
	down := &holdfast.Message{Topic: "t", Origin: holdfast.BridgeOrigin("other")}
	for name, tc := range map[string]struct {
		far     string
		old     bool // MQTT 3.1.1
		msg     *holdfast.Message
		named   bool
		circles bool
	}{
		"from here to a broker":                   {msg: passed()},
		"from here to a gateway":                  {far: "far", msg: passed(), named: true},
		"from a bridge to a broker":               {msg: down, named: true},
		"from a gateway to a broker":              {msg: passed("leaf"), named: true},
		"from a gateway back to it":               {far: "leaf", msg: passed("leaf", "other"), circles: true},
		"a gateway's own state to it":             {far: "far", msg: state, circles: true},
		"a gateway's own state to another":        {far: "next", msg: state, named: true},
		"from here to a gateway with MQTT 3.1.1":  {far: "far", old: true, msg: passed()},
		"from a bridge to a broker of MQTT 3.1.1": {old: true, msg: down},
	} {
		c := connection{b: &Bridge{gateway: "gw"}, far: tc.far, props: !tc.old}
		it := holdfast.Item{Msg: tc.msg}
		if circles := c.via(&it); circles != tc.circles {
			t.Errorf("%s: it circles: %v", name, circles)
		}
		if named := it.Msg.Passed("gw"); named != tc.named {
			t.Errorf("%s: this gateway is named: %v", name, named)
		}
	}
}

// Two gateways of one id cannot be told apart: nothing may be lost for it.
func TestTheFarGatewayIsKnownByItsID(t *testing.T) {
	for own, known := range map[string]string{"near": "far", "far": ""} {
		noLeaks(t)
		var log bytes.Buffer
		p := packet.Connack{Properties: new(packet.Properties)}
		p.Properties.Message.User = []holdfast.UserProperty{{Name: "x", Value: "y"}, {Name: holdfast.PropertyGateway, Value: "far"}}
		connack, err := p.Append(nil, packet.V5)
		if err != nil {
			t.Fatal(err)
		}
		up, _, err := conversation(t, connack, ClientOptions{GatewayID: own, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if got := up.(gatewayed).Gateway(); got != known {
			t.Errorf("%s meets %q", own, got)
		}
		if told := strings.Contains(log.String(), "give each an id of its own"); told != (known == "") {
			t.Errorf("the log of %s has %s", own, &log)
		}
		up.Close()
	}
}

func TestWhatComesDownAgainGoesNowhere(t *testing.T) {
	b := quietBridge(t, Route{Name: "r", Direction: In, Filter: "#"})
	b.gateway = "gw"
	m := &holdfast.Message{Topic: "t"}
	if _, ok := b.bringDown(m.Via("far")); !ok {
		t.Error("what is new goes nowhere")
	}
	if _, ok := b.bringDown(m.Via("gw").Via("far")); ok || b.Status().DroppedLoop != 1 {
		t.Errorf("what was here comes again; %d are counted", b.Status().DroppedLoop)
	}
}
