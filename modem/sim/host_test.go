package sim

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/edge/packet"
)

// patience is the bound of every wait in these tests; none of them sleeps.
const patience = 20 * time.Second

// host is the far end of the wire: it writes bytes, and reads until it has
// what a test expects.
type host struct {
	t   *testing.T
	m   *Module
	f   *os.File
	buf string // read and not yet expected
}

func power(t *testing.T, o Options) *host {
	t.Helper()
	before := runtime.NumGoroutine()
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, m: m}
	h.plug()
	t.Cleanup(func() {
		h.f.Close()
		if err := m.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		checkGoroutines(t, before)
	})
	return h
}

// checkGoroutines gives goroutines of other closers a moment to leave.
func checkGoroutines(t *testing.T, before int) {
	for end := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			b := make([]byte, 1<<20)
			t.Errorf("goroutines leaked:\n%s", b[:runtime.Stack(b, true)])
			return
		}
	}
}

func (h *host) plug() {
	h.t.Helper()
	fd, err := unix.Open(h.m.Path(), unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	h.f = os.NewFile(uintptr(fd), h.m.Path())
}

func (h *host) write(s string) {
	h.t.Helper()
	h.f.SetWriteDeadline(time.Now().Add(patience))
	if _, err := h.f.WriteString(s); err != nil {
		h.t.Fatalf("write: %v", err)
	}
}

func (h *host) read() {
	h.t.Helper()
	b := make([]byte, 4096)
	h.f.SetReadDeadline(time.Now().Add(patience))
	n, err := h.f.Read(b)
	if err != nil {
		h.t.Fatalf("read: %v; had so far %q", err, h.buf)
	}
	h.buf += string(b[:n])
}

// until reads to the end of the first occurrence of s and returns what came
// before it.
func (h *host) until(s string) string {
	h.t.Helper()
	for {
		if before, after, ok := strings.Cut(h.buf, s); ok {
			h.buf = after
			return before
		}
		h.read()
	}
}

// urc reads to a whole line s and wants nothing else before it.
func (h *host) urc(s string) {
	h.t.Helper()
	if got := h.until("\r\n" + s + "\r\n"); got != "" {
		h.t.Fatalf("before %q came %q", s, got)
	}
}

// cmd sends a command and returns what came before its final result.
func (h *host) cmd(s, final string) string {
	h.t.Helper()
	h.write(s + "\r")
	return h.until("\r\n" + final + "\r\n")
}

// ok sends commands that are answered with a bare OK.
func (h *host) ok(list ...string) {
	h.t.Helper()
	for _, s := range list {
		if got := h.cmd(s, "OK"); got != "" {
			h.t.Fatalf("%s: before OK came %q", s, got)
		}
	}
}

func (h *host) refused(list ...string) {
	h.t.Helper()
	for _, s := range list {
		if got := h.cmd(s, "+CME ERROR: 3"); got != "" {
			h.t.Fatalf("%s: before the error came %q", s, got)
		}
	}
}

// answers sends a command and compares its one information line.
func (h *host) answers(cmd, want string) {
	h.t.Helper()
	if got := h.cmd(cmd, "OK"); got != "\r\n"+want+"\r\n" {
		h.t.Fatalf("%s: got %q, want %q", cmd, got, want)
	}
}

// setUp is the usual beginning: no echo, numeric errors.
func (h *host) setUp() *host {
	h.t.Helper()
	h.write("ATE0\r")
	h.until("\r\nOK\r\n")
	h.ok("AT+CMEE=1")
	return h
}

func (h *host) quiet() {
	h.t.Helper()
	h.ok("AT") // whatever was on its way comes before this
}

// eventually waits for a condition that nothing on the wire announces.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// broker is a listener whose connections a test plays by script.
type broker struct {
	t *testing.T
	l net.Listener
}

func newBroker(t *testing.T) *broker {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &broker{t, l}
}

func (b *broker) port() string { return strconv.Itoa(b.l.Addr().(*net.TCPAddr).Port) }

func (b *broker) open() string { return `AT+ECMTOPEN=0,"127.0.0.1",` + b.port() }

func (b *broker) accept() *peer {
	b.t.Helper()
	b.l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := b.l.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return &peer{b.t, c, bufio.NewReader(c)}
}

// peer is the broker's end of one connection.
type peer struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func (p *peer) receive(want packet.Type) frame {
	p.t.Helper()
	p.c.SetReadDeadline(time.Now().Add(patience))
	f, err := readFrame(p.r, maxPacket)
	if err != nil {
		p.t.Fatalf("waiting for %v: %v", want, err)
	}
	if f.kind != want {
		p.t.Fatalf("got %v, want %v", f.kind, want)
	}
	return f
}

func (p *peer) send(b ...byte) {
	p.t.Helper()
	if _, err := p.c.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) connect(code byte) packet.Connect {
	p.t.Helper()
	f := p.receive(packet.CONNECT)
	var c packet.Connect
	if err := c.Decode(f.body); err != nil {
		p.t.Fatal(err)
	}
	p.send(0x20, 2, 0, code)
	return c
}

func (p *peer) publish(qos int) packet.Publish {
	p.t.Helper()
	f := p.receive(packet.PUBLISH)
	var m packet.Publish
	if err := m.Decode(f.flags, f.body, packet.V311); err != nil {
		p.t.Fatal(err)
	}
	if int(m.QoS) != qos {
		p.t.Fatalf("QoS %d, want %d", m.QoS, qos)
	}
	return m
}

func (p *peer) puback(id int) { p.send(0x40, 2, byte(id>>8), byte(id)) }

func (p *peer) gone() {
	p.t.Helper()
	p.c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, p.r); errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatal("the connection was not closed")
	}
}

// online opens and connects.
func (h *host) online(b *broker) *peer {
	h.t.Helper()
	h.ok(b.open())
	p := b.accept()
	h.urc("+ECMTOPEN: 0,0")
	h.ok(`AT+ECMTCONN=0,"gw","user","secret"`)
	p.connect(0)
	h.urc("+ECMTCONN: 0,0,0")
	return p
}
