package modem_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"holdfast/modem"
	"holdfast/modem/sim"
)

// socketKinds are the modules whose sockets are tried.
var socketKinds = []struct {
	name string
	o    sim.Options
}{
	{"ecso", sim.Options{}},
	// Nothing holds it back but its line: faster than any UART, but not without
	// bounds, or a reader who waits for a busy processor loses the connection.
	{"ecso pushes", sim.Options{Baud: 10_000_000, Traps: sim.Traps{PushedBytes: 1}}},
	{"ecso without acknowledgements", sim.Options{Traps: sim.Traps{NoSendAcks: 1, SocketErrors: 1}}},
	{"qi", sim.Options{Sockets: sim.SocketsQI}},
	{"qi with OK", sim.Options{Sockets: sim.SocketsQI, Traps: sim.Traps{SendInfo: 1}}},
}

// dial makes one connection through the module, and gives both of its ends.
func (s *site) dial() (through, far net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	through, err = s.modem.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	l.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second))
	if far, err = l.Accept(); err != nil {
		through.Close()
		return nil, nil, err
	}
	return through, far, nil
}

func TestSimASocketIsANetConn(t *testing.T) {
	for _, k := range socketKinds {
		t.Run(k.name, func(t *testing.T) {
			s := build(t, k.o, modem.Options{Mode: "socket"})
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				c1, c2, err = s.dial()
				return c1, c2, func() { c1.Close(); c2.Close() }, err
			})
		})
	}
}

// All bytes, both ways at once, and the end of the far side behind its last one.
func TestSimASocketCarriesEveryByte(t *testing.T) {
	for _, k := range socketKinds {
		t.Run(k.name, func(t *testing.T) {
			s := build(t, k.o, modem.Options{Mode: "socket"})
			through, far, err := s.dial()
			if err != nil {
				t.Fatal(err)
			}
			up, down := make([]byte, 100_000), make([]byte, 100_000)
			rand.New(rand.NewSource(1)).Read(up)
			rand.New(rand.NewSource(2)).Read(down)
			copy(down, "\r\nOK\r\n> \r\nRDY\r\n\r\n+QIURC: \"closed\",0\r\n\x1a\x1b")
			copy(up, "\x1a\x1bAT\r+++ATO\r")
			go through.Write(up)
			go far.Write(down)
			far.SetReadDeadline(time.Now().Add(20 * time.Second))
			through.SetReadDeadline(time.Now().Add(20 * time.Second))
			was := make(chan bool)
			go func() {
				b := make([]byte, len(up))
				_, err := io.ReadFull(far, b)
				was <- err == nil && bytes.Equal(b, up)
			}()
			b := make([]byte, len(down)-100)
			if n, err := io.ReadFull(through, b); err != nil {
				t.Errorf("%d bytes came down, %v", n, err)
			}
			if !<-was {
				t.Error("what went up is not what was sent")
			}
			// The last bytes come before the end.
			far.(*net.TCPConn).CloseWrite()
			rest, err := io.ReadAll(through)
			if b = append(b, rest...); err != nil || !bytes.Equal(b, down) {
				t.Errorf("%d bytes came down, %v", len(b), err)
			}
			far.Close()
			through.Close()
		})
	}
}

func TestSimARebootEndsASocket(t *testing.T) {
	s := build(t, sim.Options{}, modem.Options{Mode: "socket"})
	through, far, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	s.module.Reboot()
	through.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := through.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF) {
		t.Errorf("Read gave %v", err)
	}
	if _, err := through.Write([]byte("x")); err == nil {
		t.Error("it can be written to")
	}
	through.Close()
	until(t, "there is a new one", func() bool {
		again, far, err := s.dial()
		if err != nil {
			return false
		}
		again.Close()
		far.Close()
		return true
	})
}

func TestSimADialThatFailsIsExplained(t *testing.T) {
	for _, k := range socketKinds[:4] {
		t.Run(k.name, func(t *testing.T) {
			s := build(t, k.o, modem.Options{Mode: "socket"})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := l.Addr().String()
			l.Close()
			_, err = s.modem.DialContext(t.Context(), "tcp", address)
			if err == nil || !strings.Contains(err.Error(), "could not reach "+address) {
				t.Errorf("got %v", err)
			}
			if _, err := s.modem.DialContext(t.Context(), "udp", address); err == nil {
				t.Error("udp went through")
			}
		})
	}
}

func TestSimASocketThatDoesNotOpenIsGivenUp(t *testing.T) {
	for _, kind := range []string{sim.SocketsECSO, sim.SocketsQI} {
		t.Run(kind, func(t *testing.T) {
			s := build(t, sim.Options{Sockets: kind, Traps: sim.Traps{OpenWedge: 1}}, modem.Options{Mode: "socket"})
			for range 2 {
				if _, _, err := s.dial(); err == nil || !strings.Contains(err.Error(), "said nothing") {
					t.Errorf("got %v", err)
				}
			}
			until(t, "the module was reset", func() bool { return s.modem.Status().Counters.Resets > 0 })
			s.module.SetTraps(sim.Traps{})
			until(t, "it connects", func() bool {
				through, far, err := s.dial()
				if err != nil {
					return false
				}
				through.Close()
				far.Close()
				return true
			})
		})
	}
}

// Sockets that an earlier process left open must not use up the ten there are.
func TestSimSocketsOfAnEarlierLifeAreClosed(t *testing.T) {
	s := build(t, sim.Options{}, modem.Options{Mode: "socket"})
	for i := range 25 {
		through, far, err := s.dial()
		if err != nil {
			t.Fatalf("dial %d: %v", i, err)
		}
		far.Close()
		through.Close()
	}
}

func TestSimAModuleWithoutSocketsSaysSo(t *testing.T) {
	s := build(t, sim.Options{Sockets: sim.SocketsNone}, modem.Options{Mode: "socket"})
	until(t, "it is said", func() bool { return strings.Contains(s.modem.Status().Problem, `set mode = "mqtt"`) })
}
