package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	vocabulary "holdfast"
	"holdfast/edge/packet"
)

func TestARouteLeavesOutWhatItIsToldToAndTheBooksBalance(t *testing.T) {
	t.Parallel()
	up := newMosquitto(t)
	up.start()
	far := connect(t, up.address, packet.Connect{ClientID: "far", CleanStart: true})
	if err := far.Subscribe(vocabulary.Subscription{Filter: "#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	g := newHoldfast(t, fmt.Sprintf(`
[[bridge]]
name = "cloud"
state_topic = ""
  [[bridge.upstream]]
  url = "tcp://%s"
  [[bridge.route]]
  name = "doors"
  direction = "out"
  topic = "door/#"
  exclude = ["door/raw"]
  on_change = true
  stamp = true
  [[bridge.route]]
  name = "heat"
  direction = "out"
  topic = "heat"
  sample = "24h"
`, up.address))
	g.start()
	c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
	send := func(name, payload string) {
		t.Helper()
		p := packet.Publish{Topic: []byte(name), Payload: []byte(payload), QoS: 1, PacketID: 1}
		if err := c.Send(p.Append(nil, packet.V311)); err != nil {
			t.Fatal(err)
		}
		if h, _, err := c.Next(); err != nil || h.Type != packet.PUBACK {
			t.Fatal(h, err)
		}
	}
	for _, p := range []string{"open", "open", "shut", "shut", "shut"} {
		send("door/1", p)
		send("door/raw", p)
	}
	for i := range 4 {
		send("heat", fmt.Sprint(i))
	}
	// What goes: open and shut with their places, the first of heat; the last of
	// heat is kept until tomorrow.
	var got []string
	seq := uint64(0)
	for range 3 {
		far.Conn.SetReadDeadline(time.Now().Add(patience))
		p, err := far.NextPublish()
		if err != nil {
			t.Fatalf("%v after %q\n%s", err, got, g.tail())
		}
		var stamp struct {
			Text, Gateway string
			Seq           uint64
			Time          time.Time
		}
		if json.Unmarshal(p.Payload, &stamp) == nil && stamp.Gateway != "" {
			if stamp.Gateway != "gw" || stamp.Seq <= seq || time.Since(stamp.Time) > patience {
				t.Errorf("stamp is %s", p.Payload)
			}
			seq = stamp.Seq
			got = append(got, stamp.Text)
			continue
		}
		got = append(got, string(p.Payload))
	}
	if s := fmt.Sprint(got); s != "[open shut 0]" {
		t.Errorf("%s came", s)
	}
	var b vocabulary.Counts
	eventually(t, "all but one has left the queue", func() bool {
		b = vocabulary.Counts{}
		for _, r := range g.bridge().Routes {
			b.Add(r)
		}
		return b.Queued == 1 && g.bridge().Held == 1
	}, g.tail)
	if !b.Balanced() || b.Accepted != 9 || b.Delivered != 3 || b.Dropped["unchanged"] != 3 || b.Dropped["sampled"] != 2 {
		t.Errorf("%+v", b)
	}
}
