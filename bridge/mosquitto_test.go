package bridge

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"holdfast"
	"holdfast/edge/packet"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// mosquitto is a real far broker.
type mosquitto struct {
	t    testing.TB
	addr string
	conf string
	cmd  *exec.Cmd
}

// startMosquitto runs one on a free port, with more lines of configuration.
func startMosquitto(t testing.TB, lines ...string) *mosquitto {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto"
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mosquitto is not installed: the upstream must be tested against a real broker")
		}
		t.Skip("mosquitto is not installed: the upstream is not tested against a real broker")
	}
	m := &mosquitto{t: t, addr: freeAddress(t), conf: filepath.Join(t.TempDir(), "mosquitto.conf")}
	if len(lines) == 0 {
		lines = []string{"allow_anonymous true"}
	}
	_, port, _ := net.SplitHostPort(m.addr)
	lines = append([]string{"listener " + port + " 127.0.0.1", "user root", "log_dest stderr",
		"max_queued_messages 0", "max_inflight_messages 0"}, lines...)
	if err := os.WriteFile(m.conf, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start(path)
	t.Cleanup(m.kill)
	return m
}

func (m *mosquitto) start(path string) {
	m.t.Helper()
	m.cmd = exec.Command(path, "-c", m.conf)
	log, err := m.cmd.StderrPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	running := make(chan bool, 1)
	go func() {
		said, started := &bytes.Buffer{}, false
		for s := bufio.NewScanner(log); s.Scan(); {
			fmt.Fprintln(said, s.Text())
			if strings.HasSuffix(s.Text(), " running") {
				started = true
				running <- true
			}
		}
		if !started {
			m.t.Logf("mosquitto said:\n%s", said)
			running <- false
		}
	}()
	select {
	case ok := <-running:
		if !ok {
			m.t.Fatal("mosquitto does not start")
		}
	case <-time.After(patience):
		m.t.Fatal("mosquitto does not start in time")
	}
}

// kill is kill -9, of the process that this test has started.
func (m *mosquitto) kill() {
	if m.cmd.ProcessState == nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait() // it says that it was killed
	}
}

// freeze stops it as SIGSTOP does: the kernel still takes connections for it.
// thaw lets it go on; kill ends it in any case.
func (m *mosquitto) freeze() { m.signal(syscall.SIGSTOP) }
func (m *mosquitto) thaw()   { m.signal(syscall.SIGCONT) }

func (m *mosquitto) signal(s os.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		m.t.Fatal(err)
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// client is a plain client of the far broker; messages are what it receives,
// and they are closed when it has received everything and lost its connection.
func (m *mosquitto) client(filter string, qos byte) (c mqtt.Client, messages chan mqtt.Message) {
	m.t.Helper()
	messages = make(chan mqtt.Message, 100_000)
	o := mqtt.NewClientOptions().AddBroker("tcp://" + m.addr).SetAutoReconnect(false)
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { messages <- m })
	o.SetConnectionLostHandler(func(mqtt.Client, error) { close(messages) })
	c = mqtt.NewClient(o)
	if tok := c.Connect(); !tok.WaitTimeout(patience) || tok.Error() != nil {
		m.t.Fatalf("connect: %v", tok.Error())
	}
	m.t.Cleanup(func() { c.Disconnect(100) })
	if filter != "" {
		if tok := c.Subscribe(filter, qos, nil); !tok.WaitTimeout(patience) || tok.Error() != nil {
			m.t.Fatalf("subscribe: %v", tok.Error())
		}
	}
	return c, messages
}

func (m *mosquitto) publish(c mqtt.Client, topic, payload string, qos byte) {
	m.t.Helper()
	if tok := c.Publish(topic, qos, false, payload); !tok.WaitTimeout(patience) || tok.Error() != nil {
		m.t.Fatalf("publish: %v", tok.Error())
	}
}

// next is the next value of ch; the test fails if there is none in time.
func next[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

func ignore(*holdfast.Message, bool, func()) {}

// dial connects an Upstream, or fails the test.
func dial(t testing.TB, o ClientOptions, receive Receive) Upstream {
	t.Helper()
	up, err := MQTT3Connect(o)(context.Background(), receive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { up.Close() })
	return up
}

// noLeaks fails the test if goroutines of this package or of the library are
// left when it has ended. It must come first, so that its check comes last.
func noLeaks(t testing.TB) {
	t.Cleanup(func() {
		deadline := time.After(patience)
		for {
			buf := make([]byte, 1<<20)
			stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
			var left []string
			for _, s := range stacks[1:] { // the first is this one
				if !strings.Contains(s, "testing.tRunner") &&
					(strings.Contains(s, "eclipse/paho") || strings.Contains(s, "holdfast/bridge.")) {
					left = append(left, s)
				}
			}
			if len(left) == 0 {
				return
			}
			select {
			case <-deadline:
				t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
}

// tap is a wire that remembers what went over it, and that can be cut.
type tap struct {
	net.Conn
	mu      sync.Mutex
	in, out bytes.Buffer
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.in.Write(p[:n])
	return n, err
}

func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.out.Write(p)
	t.mu.Unlock()
	return t.Conn.Write(p)
}

// eachPacket calls visit for each whole packet.
func eachPacket(stream []byte, visit func(kind byte, body []byte)) {
	for len(stream) >= 2 {
		size, n := 0, 1
		for shift := 0; n < len(stream); shift += 7 {
			size |= int(stream[n]&0x7f) << shift
			n++
			if stream[n-1]&0x80 == 0 {
				break
			}
		}
		if len(stream) < n+size {
			return
		}
		visit(stream[0], stream[n:n+size])
		stream = stream[n+size:]
	}
}

// acknowledged are the payloads that the far broker has acknowledged on t.
func (t *tap) acknowledged() map[string]bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	sent := map[uint16]string{}
	eachPacket(t.out.Bytes(), func(kind byte, body []byte) {
		if packet.Type(kind>>4) == packet.PUBLISH && kind&6 != 0 {
			n := 2 + int(body[0])<<8 + int(body[1])
			sent[uint16(body[n])<<8|uint16(body[n+1])] = string(body[n+2:])
		}
	})
	acked := map[string]bool{}
	eachPacket(t.in.Bytes(), func(kind byte, body []byte) {
		if t := packet.Type(kind >> 4); t == packet.PUBACK || t == packet.PUBCOMP {
			acked[sent[uint16(body[0])<<8|uint16(body[1])]] = true
		}
	})
	return acked
}
