package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/configs"
	"holdfast/modem"
)

// inNetwork runs f in a network namespace of its own, on a thread that ends with it.
func inNetwork(f func() error) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is of no use to others
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ended <- fmt.Errorf("%w: %w", errNoNetworks, err)
			return
		}
		ended <- f()
	}()
	return <-ended
}

var errNoNetworks = fmt.Errorf("this user cannot make networks")

func ip(args string) error {
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// A module with a network card, as usb0, beside a network that has the same
// addresses: the connection must take the module's.
func TestAModemWithAnInterfaceIsTheWayOfItsUpstreams(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	setUp := func(commands ...string) error {
		for _, c := range commands {
			if err := ip(c); err != nil {
				return err
			}
		}
		return nil
	}
	// Each far side listens in a network of its own.
	type side struct {
		thread int
		ready  chan struct{} // its end of the cable is there
		ended  chan error
		l      net.Listener
	}
	sides := map[string]*side{}
	for _, name := range []string{"usb", "eth"} {
		s := &side{ready: make(chan struct{}), ended: make(chan error, 1)}
		sides[name] = s
		started := make(chan struct{})
		go func() {
			s.ended <- inNetwork(func() (err error) {
				s.thread = unix.Gettid()
				close(started)
				<-s.ready
				if err := setUp("addr add 10.9.9.1/24 dev far-"+name, "link set far-"+name+" up"); err != nil {
					return err
				}
				s.l, err = net.Listen("tcp", "10.9.9.1:1883")
				return err
			})
		}()
		select {
		case <-started:
		case err := <-s.ended:
			t.Skip(err)
		}
	}
	err := inNetwork(func() error {
		for _, name := range []string{"eth", "usb"} { // the first has the better route
			if err := setUp(fmt.Sprintf("link add %s0 type veth peer name far-%[1]s netns %d", name, sides[name].thread),
				"addr add 10.9.9.2/24 dev "+name+"0", "link set "+name+"0 up"); err != nil {
				return err
			}
			close(sides[name].ready)
			if err := <-sides[name].ended; err != nil {
				return err
			}
			defer sides[name].l.Close()
		}
		o := modemOptions(configs.Modem{Name: "lte", Port: "/dev/ttyNONE7", Interface: "usb0"}, "", slog.New(slog.DiscardHandler))
		m, err := modem.New(o)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		c, err := m.DialContext(ctx, "tcp", "10.9.9.1:1883")
		if err != nil {
			return err
		}
		defer c.Close()
		if err := sides["usb"].l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		far, err := sides["usb"].l.Accept()
		if err != nil {
			return err
		}
		defer far.Close()
		if _, err := io.WriteString(far, "by the module"); err != nil {
			return err
		}
		said := make([]byte, 13)
		if _, err := io.ReadFull(c, said); err != nil || string(said) != "by the module" {
			return fmt.Errorf("got %q, %w", said, err)
		}
		// Without the interface nothing goes by another way.
		if err := ip("link del usb0"); err != nil {
			return err
		}
		if _, err := m.DialContext(ctx, "tcp", "10.9.9.1:1883"); err == nil || !strings.Contains(err.Error(), "there is no interface usb0 now") {
			return fmt.Errorf("without the interface: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOnlyTheClientInsideAModuleMayLackSomething(t *testing.T) {
	g := &Gateway{cfg: &configs.Config{Modems: []configs.Modem{
		{Name: "auto", Mode: "auto"}, {Name: "socket", Mode: configs.ModeSocket}, {Name: "card", Mode: "auto", Interface: "usb0"},
	}}}
	for via, want := range map[string]bool{"": true, "auto": false, "socket": true, "card": true} {
		if got := g.carriesAll(configs.Upstream{Via: via}); got != want {
			t.Errorf("via %q: %v", via, got)
		}
	}
}
