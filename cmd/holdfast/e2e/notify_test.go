package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A gateway without its link and without its modem is healthy: the service
// manager is told that it is ready, its watchdog is fed, and it is told when the
// gateway stops.
func TestTheServiceManagerIsTold(t *testing.T) {
	path := filepath.Join(filepath.Dir(socketPath(t)), "notify")
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	next := func() string {
		t.Helper()
		b := make([]byte, 4096)
		if err := sock.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		n, err := sock.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	g := newHoldfast(t, `
[[modem]]
name = "lte"
port = "/dev/no-such-port"
[[bridge]]
name = "cloud"
  [[bridge.upstream]]
  url = "tcp://`+freePort(t)+`"
  [[bridge.upstream]]
  url = "tcp://broker.invalid:1883"
  via = "lte"
  [[bridge.route]]
  direction = "out"
  topic = "a/#"
`)
	g.env = append(os.Environ(), "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=200000")
	g.start()
	if s := next(); s != "READY=1" {
		t.Fatalf("first %q", s)
	}
	for range 10 {
		if s := next(); s != "WATCHDOG=1" {
			t.Fatalf("then %q", s)
		}
	}
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s := next()
	for ; s == "WATCHDOG=1"; s = next() {
	}
	if !strings.HasPrefix(s, "STOPPING=1") {
		t.Fatalf("at the end %q", s)
	}
	if err := g.end(syscall.Signal(0)); err != nil {
		t.Errorf("it ended with %v", err)
	}
}
