package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	vocabulary "holdfast"
	"holdfast/edge/packet"
)

func TestFreshDataGoesBeforeTheBacklogAndOldValuesReplaceNoNewerOnes(t *testing.T) {
	t.Parallel()
	up := newMosquitto(t)
	g := newHoldfast(t, fmt.Sprintf(`
[[bridge]]
name = "cloud"
  [bridge.queue]
  order = "live-first"
  rate = 200
  [[bridge.upstream]]
  url = "tcp://%s"
  [[bridge.route]]
  direction = "out"
  topic = "s/#"
`, up.address))
	g.start()
	c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
	const topics, backlog = 10, 600
	put := func(i int, payload string) {
		t.Helper()
		p := packet.Publish{Topic: fmt.Appendf(nil, "s/%d", i%topics), Payload: []byte(payload), QoS: 1, Retain: true, PacketID: uint16(i%60000 + 1)}
		if err := c.Send(p.Append(nil, packet.V311)); err != nil {
			t.Fatal(err)
		}
		if h, _, err := c.Next(); err != nil || h.Type != packet.PUBACK {
			t.Fatal(h, err)
		}
	}
	for i := range backlog {
		put(i, fmt.Sprint("old ", i))
	}
	up.start()
	far := connect(t, up.address, packet.Connect{ClientID: "far", CleanStart: true})
	if err := far.Subscribe(vocabulary.Subscription{Filter: "s/#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the drain has begun", func() bool { return g.bridge().Acked > 0 }, g.tail)
	for i := range topics / 2 {
		put(i, "new")
	}
	before, fresh := 0, 0
	for n := range backlog + topics/2 {
		far.Conn.SetReadDeadline(time.Now().Add(patience))
		p, err := far.NextPublish()
		if err != nil {
			t.Fatalf("%v after %d messages\n%s", err, n, g.tail())
		}
		switch {
		case string(p.Payload) == "new":
			fresh++
			before = n
		case !strings.HasPrefix(string(p.Payload), "old "):
			t.Errorf("%q came", p.Payload)
		}
	}
	if fresh != topics/2 || before > backlog*3/4 {
		t.Errorf("%d fresh messages, the last in place %d of %d", fresh, before, backlog+topics/2)
	}
	t.Logf("the fresh messages were there after %d of %d", before, backlog)
	g.drained()
	for i := range topics {
		want := "new"
		if i >= topics/2 {
			want = fmt.Sprint("old ", backlog-topics+i)
		}
		if got := retained(t, up.address, fmt.Sprintf("s/%d", i)); got != want {
			t.Errorf("s/%d has %q, want %q", i, got, want)
		}
	}
}
