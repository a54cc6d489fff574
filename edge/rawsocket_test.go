package edge

import (
	"bytes"
	"flag"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"holdfast"
	"holdfast/edge/packet"
)

// In all tests of this package a read buffer that comes back is filled with what no
// client sends: whatever still looks into it shows that, and is a data race.
func init() {
	rubbish := bytes.Repeat([]byte{0xDB}, readBuffer)
	measured := sync.OnceValue(func() bool { return flag.Lookup("test.bench").Value.String() != "" })
	returned = func(b *[readBuffer]byte) {
		if !measured() {
			copy(b[:], rubbish)
		}
	}
}

// Whatever a packet has left behind is still what the client has sent when the
// buffer that it was read into is someone else's.
func TestNothingLooksIntoABufferThatWasGivenBack(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	c := b.connect("c", durable, v5, withWill("will/of/c", "the last will", 1, false), func(p *packet.Connect) {
		p.Properties = &packet.Properties{SessionExpiry: 3600, HasSessionExpiry: true}
	})
	var reader *conn
	b.srv.mu.Lock()
	for reader = range b.srv.conns {
	}
	b.srv.mu.Unlock()
	c.subscribe(1, "left/alone", 1, "left/#", 1, "gone/#", 1, "$share/team/work/#", 1)
	c.send((&packet.Unsubscribe{PacketID: 2, Filters: []string{"gone/#"}}).Append(nil, c.v))
	c.expect(packet.UNSUBACK)
	full := packet.Properties{TopicAlias: 1, Message: holdfast.Properties{
		ContentType: "text/plain", ResponseTopic: "answers/here", CorrelationData: []byte("correlation"),
		User: []holdfast.UserProperty{{Name: "a name", Value: "a value"}},
	}}
	for qos := byte(0); qos <= 2; qos++ {
		c.publish("somewhere/else", "payload", qos, uint16(qos)*10, retaining, func(p *packet.Publish) { p.Properties = &full })
	}
	c.publish("", "behind an alias", 0, 0, func(p *packet.Publish) { p.Properties = &packet.Properties{TopicAlias: 1} })
	c.publish("left/x", "to itself", 1, 11)
	c.expectAck(packet.PUBACK, 10)
	c.expectAck(packet.PUBREC, 20)
	c.expectAck(packet.PUBACK, 11)
	c.nc.Close()
	<-reader.gone
	if reader.pub.Topic != nil || reader.pub.Payload != nil {
		t.Error("the last PUBLISH keeps the buffer in memory")
	}

	want := []string{"somewhere/else payload", "somewhere/else payload", "somewhere/else payload",
		"somewhere/else behind an alias", "left/x to itself", "will/of/c the last will"}
	disk.mu.Lock()
	var got []string
	for i, m := range disk.accepted {
		got = append(got, m.Topic+" "+string(m.Payload))
		if p := m.Properties; i < 3 && (p == nil || p.ContentType != "text/plain" || p.ResponseTopic != "answers/here" ||
			string(p.CorrelationData) != "correlation" || len(p.User) != 1 || p.User[0] != full.Message.User[0]) {
			t.Errorf("%s has the properties %+v", m.Topic, p)
		}
	}
	disk.mu.Unlock()
	if !slices.Equal(got, want) {
		t.Errorf("accepted were %q, want %q", got, want)
	}
	if filters, _ := filtersOnDisk(disk, "c"); filters != "$share/team/work/# left/# left/alone" {
		t.Errorf("the session has %q on disk", filters)
	}
	other := b.connect("other")
	other.subscribe(1, "somewhere/else", 0)
	other.expectPublish("somewhere/else", "payload", 0)
	c = b.connect("c", durable)
	c.expectPublish("left/x", "to itself", 1)
	c.publish("left/alone", "once", 0, 0)
	c.expectPublish("left/alone", "once", 0)
	c.expectNothing()
}

func TestAReadBufferIsLentWhileThereIsSomethingToRead(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	c := newConn(&Server{limits: Limits{}.withDefaults()}, near)
	c.sess = newSession("c", false)
	look := func() (something bool) {
		if err := c.raw.conn.Control(func(fd uintptr) { something = c.readSocket(int(fd)) }); err != nil {
			t.Fatal(err)
		}
		return something
	}
	c.buf = nil
	if look() || c.buf != nil || c.raw.lent != nil {
		t.Error("without traffic there is a buffer")
	}
	if _, err := far.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	n, err := c.read()
	if c.w += n; err != nil || c.raw.lent == nil {
		t.Fatalf("read %d bytes, error %v, into %d", n, err, len(c.buf))
	}
	for c.w < 3 {
		if n, err = c.read(); err != nil {
			t.Fatal(err)
		}
		c.w += n
	}
	if look() || c.raw.lent != nil || len(c.buf) != firstBuffer || string(c.buf[:c.w]) != "abc" {
		t.Errorf("what is not whole is in %d bytes as %q", len(c.buf), c.buf[:c.w])
	}
}

func TestAPacketLargerThanTheReadBufferArrivesInPieces(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	c, other := b.connect("c"), b.connect("other")
	other.subscribe(1, "a", 0)
	p := packet.Publish{Topic: []byte("a"), Payload: []byte(strings.Repeat("0123456789", readBuffer/3)), QoS: 1, PacketID: 7}
	whole := whole(t)(p.Append(nil, packet.V311))
	at := 0
	for _, end := range []int{1, 3, 100, readBuffer - 1, readBuffer + 5000, len(whole) - 1, len(whole)} {
		c.raw(whole[at:end])
		at = end
		if end < len(whole) {
			other.expectNothing()
		}
	}
	c.expectAck(packet.PUBACK, 7)
	other.expectPublish("a", string(p.Payload), 0)
}

// Each message is kept with its payload; what else is allocated ends with it.
func TestPublishingAllocatesLittle(t *testing.T) {
	for _, story := range []struct {
		qos  byte
		most float64
	}{{0, 4}, {1, 6}} {
		disk := newFakeDisk()
		srv, err := NewServer(Options{Sink: nowhere{disk}, Store: disk, Access: AnonymousAlways, Logger: testLogger(t)})
		if err != nil {
			t.Fatal(err)
		}
		conn := func(id string) *conn {
			_, near := net.Pipe()
			c := newConn(srv, near)
			c.version, c.clientID, c.sess, c.started, c.window = packet.V311, id, newSession(id, false), true, 64
			c.sess.outbox = newMemoryOutbox(1 << 20)
			c.sess.conn.Store(c)
			return c
		}
		p, sub := conn("pub"), conn("sub")
		srv.router.subscribe(sub.sess, holdfast.Subscription{Filter: "bench/#"})
		m := packet.Publish{Topic: []byte("bench/sensor"), QoS: story.qos, PacketID: uint16(story.qos), Payload: make([]byte, 64)}
		raw := whole(t)(m.Append(nil, packet.V311))
		h, n, _ := packet.ReadHeader(raw)
		p.beginBatch() // that never ends: nothing is written to a socket
		got := testing.AllocsPerRun(200, func() {
			if err := p.handle(h, raw[n:]); err != nil {
				t.Error(err)
			}
			p.out, sub.out = p.out[:0], sub.out[:0]
		})
		if got > story.most {
			t.Errorf("QoS %d: %v allocations, at most %v wanted", story.qos, got, story.most)
		}
	}
}
