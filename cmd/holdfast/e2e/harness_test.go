// Package e2e tries the built program on real parts: a real mosquitto, real
// client libraries, a pty, kill -9. It has tests only.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"holdfast/cmd/holdfast/client"
	"holdfast/cmd/holdfast/console"
	"holdfast/cmd/holdfast/gateway"
	"holdfast/edge/packet"
)

// patience bounds every wait for a condition. No passing test waits it out.
const patience = 60 * time.Second

var binary string // the program under test

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "holdfast-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "holdfast")
	build := exec.Command("go", "build", "-o", binary, "holdfast/cmd/holdfast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// tool returns the path of a program that the test needs. Without it the test
// is skipped, but fails where CI is set: there everything must be installed.
func tool(t testing.TB, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	missing(t, name+" is not installed; scripts/test-deps.sh installs it")
	return ""
}

// goTool builds a program that is a Go module, in the version that is named, and
// returns its path. It is for benchmarks only: the build takes its time.
func goTool(b *testing.B, module, name string) string {
	b.Helper()
	dir := b.TempDir()
	install := exec.Command("go", "install", module)
	install.Dir = dir
	install.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "CGO_ENABLED=0")
	if out, err := install.CombinedOutput(); err != nil {
		b.Fatalf("install %s: %v\n%s", module, err, out)
	}
	return filepath.Join(dir, name)
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

var nextPort atomic.Int64 // the last one that freePort has given

// freePort finds a TCP port on the loopback interface that is free now, and gives
// each one once. It is below those that the kernel takes for outgoing connections,
// so that it is still free when a program that was killed is started again.
func freePort(t testing.TB) string {
	t.Helper()
	nextPort.CompareAndSwap(0, 10_000+int64(os.Getpid()%20_000))
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+nextPort.Add(1)%20_000)
		if ln, err := net.Listen("tcp", address); err == nil {
			ln.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// eventually waits until ok, and fails the test with what and detail if it never is.
func eventually(t testing.TB, what string, ok func() bool, detail ...func() string) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			for _, d := range detail {
				t.Log(d())
			}
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// process is a program under the test's control, ended by its own pid.
type process struct {
	t    testing.TB
	name string
	args []string
	env  []string // nil: that of the test
	cmd  *exec.Cmd
	out  *os.File // standard output and error, appended to over restarts
	done chan error
}

func newProcess(t testing.TB, name string, args ...string) *process {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), filepath.Base(name)+".log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, args: args, out: out}
	t.Cleanup(func() {
		p.end(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("%s said last:\n%s", filepath.Base(name), p.tail())
		}
		out.Close()
	})
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.name, p.args...)
	p.cmd.Env = p.env
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	cmd, done := p.cmd, make(chan error, 1)
	p.done = done
	go func() { done <- cmd.Wait() }()
}

// end signals the process and waits for it.
func (p *process) end(sig os.Signal) error {
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
	err := <-p.done
	p.cmd = nil
	return err
}

func (p *process) tail() string {
	b, _ := os.ReadFile(p.out.Name())
	if len(b) > 4000 {
		b = b[len(b)-4000:]
	}
	return string(b)
}

// holdfast is a gateway process with its own folder and configuration.
type holdfast struct {
	*process
	dir, address, socket string
}

// newHoldfast makes a gateway with a listener and what else the configuration
// says; nothing is started.
func newHoldfast(t testing.TB, config string) *holdfast {
	t.Helper()
	return newNamed(t, "gw", config)
}

// newNamed is newHoldfast with that gateway id.
func newNamed(t testing.TB, id, config string) *holdfast {
	t.Helper()
	dir := t.TempDir()
	g := &holdfast{dir: dir, address: freePort(t), socket: socketPath(t)}
	file := filepath.Join(dir, "gateway.toml")
	whole := fmt.Sprintf("[gateway]\nid = %q\ndata_dir = %q\n[console]\naddress = \"\"\nsocket = %q\n[[listener]]\naddress = %q\n%s",
		id, filepath.Join(dir, "data"), g.socket, g.address, config)
	if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	g.process = newProcess(t, binary, "run", "-c", file)
	return g
}

// socketPath is short enough for a unix socket, unlike t.TempDir.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// start runs the gateway and waits until it answers.
func (g *holdfast) start() {
	g.t.Helper()
	g.process.start()
	eventually(g.t, "the gateway answers", func() bool { _, err := g.status(); return err == nil }, g.tail)
}

func (g *holdfast) status() (st gateway.Status, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return st, console.FetchStatus(ctx, g.socket, &st)
}

// bridge is the status of the first bridge; the test ends if there is none.
func (g *holdfast) bridge() gateway.BridgeStatus {
	g.t.Helper()
	st, err := g.status()
	if err != nil {
		g.t.Fatalf("%v\n%s", err, g.tail())
	}
	return st.Bridges[0]
}

// drained waits until the queue is empty and checks that the books balance
// with everything accepted being delivered.
func (g *holdfast) drained() gateway.Status {
	g.t.Helper()
	eventually(g.t, "the backlog has drained", func() bool { return g.bridge().Queued == 0 }, g.tail)
	st, err := g.status()
	if err != nil {
		g.t.Fatal(err)
	}
	if c := st.Books(); !c.Balanced() || c.Accepted != c.Delivered+c.Unconfirmed {
		g.t.Errorf("the books do not balance: %+v", c)
	}
	return st
}

// mosquitto is a real broker with its own port, persistent if asked.
type mosquitto struct {
	*process
	address string
}

func newMosquitto(t testing.TB, config ...string) *mosquitto {
	t.Helper()
	m := &mosquitto{address: freePort(t)}
	_, port, _ := strings.Cut(m.address, ":")
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	// As root mosquitto becomes another user, who may not write our folders.
	whole := "user root\nlistener " + port + " 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n" + strings.Join(config, "\n") + "\n"
	if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	m.process = newProcess(t, tool(t, "mosquitto"), "-c", file)
	return m
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.process.start()
	awaitPort(m.t, m.process, m.address)
}

// awaitPort waits until the process listens there.
func awaitPort(t testing.TB, p *process, address string) {
	t.Helper()
	eventually(t, filepath.Base(p.name)+" answers", func() bool {
		nc, err := net.Dial("tcp", address)
		if err == nil {
			nc.Close()
		}
		return err == nil
	}, p.tail)
}

// connect logs in, and the connection ends with the test.
func connect(t testing.TB, address string, login packet.Connect) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Dial(ctx, address, login)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Conn.Close() })
	return c
}

// cutter is a TCP proxy whose connections a test can cut.
type cutter struct {
	t       testing.TB
	ln      net.Listener
	target  string
	running sync.WaitGroup
	carried atomic.Int64 // bytes, both ways
	// shut: connections are ended at once, as long as it is. A gateway that is on
	// its way up again must not be there before those who are to see what it sends.
	shut atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu
}

// newGate is a cutter that is shut.
func newGate(t testing.TB, target string) *cutter {
	p := newCutter(t, target)
	p.shut.Store(true)
	return p
}

func newCutter(t testing.TB, target string) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &cutter{t: t, ln: ln, target: target, conns: make(map[net.Conn]bool)}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		ln.Close()
		p.cut()
		p.running.Wait()
	})
	return p
}

func (p *cutter) address() string { return p.ln.Addr().String() }

func (p *cutter) accept() {
	for {
		in, err := p.ln.Accept()
		if err != nil {
			return
		}
		if p.shut.Load() {
			in.Close()
			continue
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		p.conns[in], p.conns[out] = true, true
		p.mu.Unlock()
		p.running.Go(func() { p.pipe(out, in) })
		p.running.Go(func() { p.pipe(in, out) })
	}
}

func (p *cutter) pipe(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.carried.Add(int64(n))
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// cut ends every connection at once, in mid-packet as it happens.
func (p *cutter) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tc, ok := c.(*net.TCPConn); ok {
			tc.SetLinger(0) // a reset, as from a NAT that forgot the connection
		}
		c.Close()
	}
	clear(p.conns)
}
