package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// patience is how long a script waits for what must come. Nothing waits it out
// in a test that passes.
const patience = 5 * time.Second

// bench is a broker under test on a loopback port.
type bench struct {
	t    *testing.T
	srv  *Server
	disk *fakeDisk
	addr string
}

func startBroker(t *testing.T, disk *fakeDisk, tweak ...func(*Options)) *bench {
	t.Helper()
	o := Options{Sink: disk, Store: disk, Access: AnonymousLoopback, Logger: testLogger(t),
		Limits: Limits{RivalWait: time.Millisecond}}
	for _, f := range tweak {
		f(&o)
	}
	srv, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	b := &bench{t: t, srv: srv, disk: disk, addr: ln.Addr().String()}
	t.Cleanup(func() {
		b.stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return b
}

// stop shuts the broker down as a crash would leave it: sessions stay as they are on disk.
func (b *bench) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.srv.Shutdown(ctx); err != nil {
		b.t.Errorf("Shutdown: %v", err)
	}
}

func testLogger(t *testing.T) *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// client is a connection driven by a script: Send this, Receive that.
type client struct {
	t   *testing.T
	nc  net.Conn
	buf []byte
	v   packet.Version
}

func (b *bench) dial() *client {
	b.t.Helper()
	nc, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { nc.Close() })
	return &client{t: b.t, nc: nc, v: packet.V311}
}

// connect dials and logs in; set tweaks the CONNECT.
func (b *bench) connect(id string, set ...func(*packet.Connect)) *client {
	b.t.Helper()
	c := b.dial()
	c.login(id, set...)
	return c
}

// login sends CONNECT and returns the CONNACK's session present flag.
func (c *client) login(id string, set ...func(*packet.Connect)) bool {
	c.t.Helper()
	p := packet.Connect{Version: packet.V311, CleanStart: true, ClientID: id}
	for _, f := range set {
		f(&p)
	}
	c.v = p.Version
	c.send(p.Append(nil))
	ack := c.connack()
	if ack.Code != packet.Accepted {
		c.t.Fatalf("CONNACK with code %#x", ack.Code)
	}
	return ack.SessionPresent
}

func durable(p *packet.Connect) { p.CleanStart = false }

func withWill(topic, payload string, qos byte, retain bool) func(*packet.Connect) {
	return func(p *packet.Connect) {
		p.Will = &packet.Will{Topic: topic, Payload: []byte(payload), QoS: qos, Retain: retain}
	}
}

func (c *client) connack() packet.Connack {
	c.t.Helper()
	var a packet.Connack
	if err := a.Decode(c.expect(packet.CONNACK), c.v); err != nil {
		c.t.Fatal(err)
	}
	return a
}

func (c *client) send(b []byte, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	c.raw(b)
}

func (c *client) raw(b []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func (c *client) publish(topic, payload string, qos byte, id uint16, set ...func(*packet.Publish)) {
	c.t.Helper()
	p := packet.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, PacketID: id}
	for _, f := range set {
		f(&p)
	}
	c.send(p.Append(nil, c.v))
}

func dup(p *packet.Publish)       { p.Dup = true }
func retaining(p *packet.Publish) { p.Retain = true }

func (c *client) subscribe(id uint16, subs ...any) {
	c.t.Helper()
	p := packet.Subscribe{PacketID: id}
	var want []byte
	for i := 0; i < len(subs); i += 2 {
		p.Filters = append(p.Filters, holdfast.Subscription{Filter: subs[i].(string), QoS: byte(subs[i+1].(int))})
		want = append(want, byte(subs[i+1].(int)))
	}
	c.send(p.Append(nil, c.v))
	var a packet.Suback
	if err := a.Decode(c.expect(packet.SUBACK), c.v); err != nil || a.PacketID != id || !bytes.Equal(a.Codes, want) {
		c.t.Fatalf("SUBACK %+v, error %v; want %v", a, err, want)
	}
}

func (c *client) ack(t packet.Type, id uint16) {
	c.t.Helper()
	a := packet.Ack{PacketID: id}
	c.raw(a.Append(nil, t, c.v))
}

// next reads one packet.
func (c *client) next() (packet.Header, []byte, error) {
	for {
		h, n, err := packet.ReadHeader(c.buf)
		if err != nil {
			return h, nil, err
		}
		if n > 0 && len(c.buf) >= n+h.Remaining {
			body := c.buf[n : n+h.Remaining : n+h.Remaining]
			c.buf = c.buf[n+h.Remaining:]
			return h, body, nil
		}
		b := make([]byte, 4096)
		m, err := c.nc.Read(b)
		c.buf = append(c.buf, b[:m]...)
		if err != nil && m == 0 {
			return h, nil, err
		}
	}
}

// expect reads one packet, which must be of type t, and returns its body.
func (c *client) expect(t packet.Type) []byte {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	h, body, err := c.next()
	if err != nil {
		c.t.Fatalf("waiting for %v: %v", t, err)
	}
	if h.Type != t {
		c.t.Fatalf("received %v, want %v", h.Type, t)
	}
	return body
}

func (c *client) expectAck(t packet.Type, id uint16) {
	c.t.Helper()
	var a packet.Ack
	if err := a.Decode(c.expect(t), c.v); err != nil || a.PacketID != id {
		c.t.Fatalf("%v for %d, error %v; want it for %d", t, a.PacketID, err, id)
	}
}

// expectPublish reads a PUBLISH and returns it.
func (c *client) expectPublish(topic, payload string, qos byte) packet.Publish {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	h, body, err := c.next()
	if err != nil {
		c.t.Fatalf("waiting for PUBLISH %s %q: %v", topic, payload, err)
	}
	var p packet.Publish
	if h.Type != packet.PUBLISH {
		c.t.Fatalf("received %v, want PUBLISH %s %q", h.Type, topic, payload)
	}
	if err := p.Decode(h.Flags, body, c.v); err != nil {
		c.t.Fatal(err)
	}
	if string(p.Topic) != topic || string(p.Payload) != payload || p.QoS != qos {
		c.t.Fatalf("PUBLISH %s %q with QoS %d, want %s %q with QoS %d", p.Topic, p.Payload, p.QoS, topic, payload, qos)
	}
	return p
}

// expectNothing proves that nothing was sent before an answer that the client
// asks for now.
func (c *client) expectNothing() {
	c.t.Helper()
	c.raw(packet.AppendPingreq(nil))
	c.expect(packet.PINGRESP)
}

// expectEnd waits until the broker closes the connection.
func (c *client) expectEnd() {
	c.t.Helper()
	c.nc.SetReadDeadline(time.Now().Add(patience))
	h, _, err := c.next()
	if err == nil {
		c.t.Fatalf("received %v, want the end of the connection", h.Type)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the connection was not closed")
	}
	if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		c.t.Fatal(err)
	}
}

func (c *client) disconnect() {
	c.t.Helper()
	c.send(new(packet.Disconnect).Append(nil, c.v))
	c.expectEnd()
}

// eventually waits for a condition that no packet tells of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// newTick is a moment, for loops that make something happen.
func newTick() *time.Timer { return time.NewTimer(10 * time.Millisecond) }

// whole is the bytes of a packet that must be possible to write.
func whole(t *testing.T) func([]byte, error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}
