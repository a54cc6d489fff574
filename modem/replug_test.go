package modem_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"holdfast/modem"
	"holdfast/modem/sim"
)

// socket is a USB socket of a fake machine.
type socket struct {
	t        *testing.T
	sys, dev string
}

func newSocket(t *testing.T) *socket {
	dir := t.TempDir()
	s := &socket{t, filepath.Join(dir, "sys"), filepath.Join(dir, "dev")}
	s.try(os.MkdirAll(filepath.Join(s.sys, "class/tty"), 0o755))
	s.try(os.MkdirAll(s.dev, 0o755))
	return s
}

func (s *socket) try(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// plug shows a pty as the port of one interface of 2c7c:6005.
func (s *socket) plug(name, pty string, iface int) {
	s.t.Helper()
	folder := filepath.Join(s.sys, "devices/1-1", fmt.Sprintf("1-1:1.%d", iface))
	s.try(os.MkdirAll(folder, 0o755))
	for file, text := range map[string]string{
		filepath.Join(folder, "bInterfaceNumber"):        fmt.Sprintf("%02x\n", iface),
		filepath.Join(filepath.Dir(folder), "idVendor"):  "2c7c\n",
		filepath.Join(filepath.Dir(folder), "idProduct"): "6005\n",
	} {
		s.try(os.WriteFile(file, []byte(text), 0o644))
	}
	class := filepath.Join(s.sys, "class/tty", name)
	s.try(os.MkdirAll(class, 0o755))
	s.try(os.Symlink(pty, filepath.Join(s.dev, name)))
	s.try(os.Symlink(folder, filepath.Join(class, "device")))
}

func (s *socket) unplug(name string) {
	s.t.Helper()
	s.try(os.RemoveAll(filepath.Join(s.sys, "class/tty", name)))
	s.try(os.Remove(filepath.Join(s.dev, name)))
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newModule(t *testing.T) *sim.Module {
	t.Helper()
	m, err := sim.New(sim.Options{})
	if err != nil {
		t.Skipf("no simulated module here: %v", err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// A module is unplugged and comes back under another number, with a port before
// its AT port that does not answer.
func TestAModuleThatIsPluggedInAgainIsFoundUnderAnotherNumber(t *testing.T) {
	t.Parallel()
	usb := newSocket(t)
	module := newModule(t)
	usb.plug("ttyUSB0", module.Path(), 2)
	log := &lockedBuffer{}
	m, err := modem.New(modem.Options{Name: "lte", Port: "usb:2c7c:6005", Timing: quickly, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	m.SetTree(usb.sys, usb.dev)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	b := newBroker(t)
	defer b.close()
	s := &site{t: t, broker: b, module: module, modem: m}
	c := s.connect(ignore)
	if d := m.Status().Device; d != filepath.Join(usb.dev, "ttyUSB0") {
		t.Errorf("it was found at %q", d)
	}

	usb.unplug("ttyUSB0")
	module.Close()
	<-c.Done()
	c.Close()
	until(t, "it is missed", func() bool { return strings.Contains(m.Status().Problem, "no USB device usb:2c7c:6005") })
	if said := log.String(); !strings.Contains(said, "was unplugged or hung up") {
		t.Errorf("the log does not tell:\n%s", said)
	}

	mute, err := sim.New(sim.Options{Traps: sim.Traps{Deaf: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	usb.plug("ttyUSB4", mute.Path(), 0)
	usb.plug("ttyUSB7", newModule(t).Path(), 2)
	c = s.connect(ignore)
	defer c.Close()
	if err := publish(c, "back", 1); err != nil {
		t.Error(err)
	}
	st := m.Status()
	if st.Device != filepath.Join(usb.dev, "ttyUSB7") || st.Counters.Resets != 0 {
		t.Errorf("it was found at %q, after %d resets", st.Device, st.Counters.Resets)
	}
	if n := strings.Count(log.String(), "modem failed"); n > 4 {
		t.Errorf("%d lines about one failure:\n%s", n, log)
	}
}
