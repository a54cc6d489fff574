package edge

import (
	"fmt"
	"net"
	"testing"

	"holdfast"
	"holdfast/edge/packet"
)

func TestQoS2WithoutReleaseIsBounded(t *testing.T) {
	t.Parallel()
	disk := newFakeDisk()
	limits := func(o *Options) { o.Limits.MaxInboundQoS2, o.Limits.ReceiveMaximum = 40, 20 }
	b := startBroker(t, disk, limits)
	send := func(c *client, from, to int) {
		for id := from; id <= to; id++ {
			c.publish("a", "x", 2, uint16(id))
			c.expectAck(packet.PUBREC, uint16(id))
		}
	}
	one := b.connect("one", durable)
	send(one, 1, 20)
	one.publish("a", "x", 2, 20, dup) // a repeated one is none more
	one.expectAck(packet.PUBREC, 20)
	one.ack(packet.PUBREL, 1)
	one.expectAck(packet.PUBCOMP, 1)
	send(one, 21, 21)
	one.publish("a", "x", 2, 22)
	one.expectEnd() // over its own bound
	five := b.connect("five", with5(packet.Properties{SessionExpiry: 100, HasSessionExpiry: true}))
	send(five, 1, 20)
	three := b.dial()
	three.login("three")
	send(three, 1, fairShare) // the others have taken all, which must not keep it out
	three.publish("a", "x", 2, fairShare+1)
	three.expectEnd() // over that of all
	five.nc.Close()   // its identifiers stay, as a session on disk does
	eventually(t, "nobody is connected", func() bool { return b.srv.Stats().Clients == 0 })
	if n := b.srv.allExactly.Load(); n != 40 {
		t.Errorf("%d are counted, want 40", n)
	}
	b.stop()
	b = startBroker(t, disk, limits)
	if n := b.srv.allExactly.Load(); n != 40 {
		t.Errorf("after a restart %d are counted, want 40", n)
	}
	// A new session of the client frees them, as the end of a clean one does.
	clean := b.connect("one")
	send(clean, 1, 3)
	clean.publish("b", "x", 1, 3) // the same identifier with another QoS
	clean.expectAck(packet.PUBACK, 3)
	clean.disconnect()
	eventually(t, "those of one client are left", func() bool { return b.srv.allExactly.Load() == 20 })
	again := b.connect("five", lasting(100))
	for id := uint16(1); id <= 20; id++ {
		again.ack(packet.PUBREL, id)
		again.expectAck(packet.PUBCOMP, id)
	}
	if n := b.srv.allExactly.Load(); n != 0 {
		t.Errorf("%d are counted, and there are none", n)
	}
}

func TestQoS2ThatIsRefusedIsNotCounted(t *testing.T) {
	t.Parallel()
	disk := newFakeDisk()
	b := startBroker(t, disk)
	c := b.connect("c", v5)
	disk.set(func() { disk.refuse = holdfast.ErrFull })
	c.publish("a", "x", 2, 1)
	c.expectCode(packet.PUBREC, 1, packet.QuotaExceeded)
	disk.set(func() { disk.refuse, disk.fail = nil, errDisk })
	c.publish("a", "x", 2, 2)
	c.expectDisconnect(packet.ImplementationSpecificError)
	eventually(t, "nothing is counted", func() bool { return b.srv.allExactly.Load() == 0 })
}

func TestSharedSubscriptionsAreBounded(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxShares = 2 })
	c, d := b.connect("c", lasting(100)), b.connect("d", v5)
	sub := func(c *client, filter string) byte {
		return c.subscribe5(1, holdfast.Subscription{Filter: filter, QoS: 1})[0]
	}
	for _, step := range []struct {
		c      *client
		filter string
		code   packet.ReasonCode
	}{
		{c, "$share/g/a", packet.GrantedQoS1}, {c, "$share/g/b", packet.GrantedQoS1},
		{c, "$share/g/c", packet.QuotaExceeded}, {c, "plain", packet.GrantedQoS1},
		{d, "$share/g/a", packet.GrantedQoS1}, {d, "$share/h/a", packet.QuotaExceeded},
		{c, "$share/g/a", packet.GrantedQoS1},
	} {
		if got := sub(step.c, step.filter); got != byte(step.code) {
			t.Errorf("%s: %#x, want %v", step.filter, got, step.code)
		}
	}
	u := packet.Unsubscribe{PacketID: 2, Filters: []string{"$share/g/b"}}
	c.send(u.Append(nil, c.v))
	c.expect(packet.UNSUBACK)
	if got := sub(c, "$share/g/c"); got != 1 {
		t.Errorf("there is room again: %#x", got)
	}
}

func TestRetainedMessagesThatNobodyReadsEndWhoAskedForThem(t *testing.T) {
	t.Parallel()
	const count = 100
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxRetained, o.Limits.MaxRetainedWaiting = count, count })
	for i := range count {
		// More than the buffers of a connection hold.
		b.srv.Publish(&holdfast.Message{Topic: fmt.Sprint(i), Payload: make([]byte, 250_000), Retain: true}, func(error) {})
	}
	ask := func(c *client) {
		p := packet.Subscribe{PacketID: 1, Filters: subsOf("#", 0)}
		c.send(p.Append(nil, c.v))
	}
	deaf := b.connect("deaf")
	deaf.nc.(*net.TCPConn).SetReadBuffer(4096)
	ask(deaf)
	eventually(t, "it has asked", func() bool { return b.srv.retainedWaiting.Load() > 0 })
	// Alone it may have them all; the next one takes its place.
	reads := b.connect("reads")
	ask(reads)
	reads.expect(packet.SUBACK)
	for range count {
		reads.expect(packet.PUBLISH)
	}
	eventually(t, "the deaf one is gone", func() bool { return b.srv.Stats().Clients == 1 })
	reads.expectNothing()
	if st := b.srv.Stats(); st.SlowDisconnected != 1 || b.srv.retainedWaiting.Load() != 0 {
		t.Errorf("%d were disconnected, %d wait", st.SlowDisconnected, b.srv.retainedWaiting.Load())
	}
}

func TestOneClientDoesNotTakeAllSharedSubscriptions(t *testing.T) {
	t.Parallel()
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxShares = 2 * fairShare })
	sub := func(c *client, i int) byte {
		return c.subscribe5(1, holdfast.Subscription{Filter: fmt.Sprintf("$share/g/%d", i), QoS: 1})[0]
	}
	greedy, other := b.connect("greedy", v5), b.connect("other", v5)
	for i := range fairShare {
		if got := sub(greedy, i); got != 1 {
			t.Fatalf("shared subscription %d: %#x", i, got)
		}
	}
	if got := sub(greedy, fairShare); got != byte(packet.QuotaExceeded) {
		t.Errorf("more than its share: %#x", got)
	}
	if got := sub(other, fairShare); got != 1 {
		t.Errorf("another client: %#x", got)
	}
	if got := sub(greedy, fairShare); got != 1 {
		t.Errorf("to join one that there is: %#x", got)
	}
}
