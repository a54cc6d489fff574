package edge

import (
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

func withSys(o *Options) { o.SysInterval, o.Version = time.Millisecond, "v9" }

func TestSysTellsHowTheBrokerIs(t *testing.T) {
	t.Parallel()
	disk := newFakeDisk()
	b := startBroker(t, disk, withSys)
	c := b.connect("c")
	p := packet.Subscribe{PacketID: 1, Filters: subsOf("$SYS/#", 1)}
	c.send(p.Append(nil, c.v))
	c.expect(packet.SUBACK)
	values := map[string]string{}
	await := func(name, value string) {
		t.Helper()
		for values[name] != value {
			c.nc.SetReadDeadline(time.Now().Add(patience))
			h, body, err := c.next()
			if err != nil || h.Type != packet.PUBLISH || h.Flags&^1 != 0 {
				t.Fatalf("waiting for %s %q: %v %x, %v; there are %v", name, value, h.Type, h.Flags, err, values)
			}
			var p packet.Publish
			if err := p.Decode(h.Flags, body, c.v); err != nil {
				t.Fatal(err)
			}
			values[strings.TrimPrefix(string(p.Topic), "$SYS/broker/")] = string(p.Payload)
		}
	}
	await("version", "holdfast version v9")
	await("clients/connected", "1")
	d := b.connect("d", durable)
	await("clients/connected", "2")
	await("clients/total", "2")
	d.publish("a", "x", 0, 0, retaining)
	await("publish/messages/received", "1")
	await("retained messages/count", "1")
	d.disconnect()
	await("clients/disconnected", "1")
	await("clients/maximum", "2")
	if !strings.HasSuffix(values["uptime"], " seconds") || values["subscriptions/count"] != "1" {
		t.Errorf("%v", values)
	}
	if n := b.srv.Stats().Retained; n != 1 {
		t.Errorf("%d messages are retained, besides the tree", n)
	}
	disk.mu.Lock()
	defer disk.mu.Unlock()
	if len(disk.accepted) != 1 || len(disk.retained) != 1 {
		t.Errorf("the disk and the bridges got %d messages, %d to retain", len(disk.accepted), len(disk.retained))
	}
}

func TestSysIsNotInEverything(t *testing.T) { // [MQTT-4.7.2-1]
	t.Parallel()
	b := startBroker(t, newFakeDisk(), withSys)
	eventually(t, "the tree is there", func() bool { return len(b.srv.retained.matching(map[string]holdfast.Subscription{"$SYS/#": {}})) > 10 })
	c := b.connect("c", v5)
	c.subscribe5(1, subsOf("#", 0)...)
	c.subscribe5(2, subsOf("+/broker/uptime", 0)...)
	c.expectNothing()
	c.publish("$SYS/broker/uptime", "for ever", 1, 1, retaining)
	c.expectCode(packet.PUBACK, 1, packet.NotAuthorized)
	if a := b.dial().greet("d", withWill("$SYS/x", "x", 0, true)); a.Code != byte(packet.NotAuthorized) {
		t.Errorf("a will below $SYS: %#x", a.Code)
	}
}

func TestWithoutAnIntervalThereIsNoSys(t *testing.T) {
	t.Parallel()
	disk := newFakeDisk()
	disk.retained["$SYS/old"] = &holdfast.Message{Topic: "$SYS/old", Payload: []byte("x"), Retain: true}
	b := startBroker(t, disk)
	c := b.connect("c")
	c.subscribe(1, "$SYS/#", 0)
	c.expectNothing()
	if kept, _ := disk.Retained(); len(kept) != 0 {
		t.Error("what a client had retained there is on disk still")
	}
}

func TestNobodyElseWritesTheSysTree(t *testing.T) {
	t.Parallel()
	disk := newFakeDisk()
	b := startBroker(t, disk, withSys, func(o *Options) { o.Limits.MaxRetained = 2 })
	eventually(t, "the tree is there", func() bool { return len(b.srv.retained.matching(map[string]holdfast.Subscription{"$SYS/#": {}})) > 10 })
	for _, m := range []*holdfast.Message{
		{Topic: "$SYS/broker/uptime", Retain: true, QoS: 1},
		{Topic: "$SYS/x", Payload: []byte("x"), Retain: true, QoS: 1},
		{Topic: "$SYS", Payload: []byte("x"), Retain: true, QoS: 1},
	} {
		done := make(chan error, 1)
		b.srv.Publish(m, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Errorf("%s: %v: the bridge would bring it again for ever", m.Topic, err)
		}
	}
	if st := b.srv.Stats(); st.Retained != 0 || st.DroppedDenied != 3 {
		t.Errorf("%d retained, %d denied", st.Retained, st.DroppedDenied)
	}
	c := b.connect("c", v5)
	c.publish("$SYS", "x", 1, 1, retaining)
	c.expectCode(packet.PUBACK, 1, packet.NotAuthorized)
	// What the broker tells of itself takes no place from the others.
	for i, topic := range []string{"a", "b"} {
		c.publish(topic, "x", 1, uint16(i+1), retaining)
		c.expect(packet.PUBACK)
	}
	if n := b.srv.Stats().Retained; n != 2 {
		t.Errorf("%d retained, want 2", n)
	}
	if kept, _ := disk.Retained(); len(kept) != 2 {
		t.Errorf("%d are on disk, want 2", len(kept))
	}
}
