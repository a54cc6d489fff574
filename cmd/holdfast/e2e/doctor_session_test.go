package e2e

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	vocabulary "holdfast"
	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
	"holdfast/modem/sim"
)

// doctor runs the doctor for a board with a modem that is well.
func doctor(t *testing.T, board int, o sim.Options, mode, address string) (said string, err error) {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	m, err := sim.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "gateway.toml")
	text := fmt.Sprintf(doctorConfig, board, filepath.Join(dir, "data"), m.Path(), mode, "", "", "tcp://"+address)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary, "modem", "doctor", "-c", file).CombinedOutput()
	return string(out), err
}

// What waits for the bridge at the far broker is there for it behind the doctor.
func TestTheDoctorTakesNoMessageOfTheBridge(t *testing.T) {
	t.Parallel()
	up := newMosquitto(t)
	up.start()
	for i, c := range []struct {
		mode string
		o    sim.Options
	}{{mode: "socket"}, {mode: "mqtt"}, {mode: "mqtt", o: sim.Options{Dialect: sim.DialectQMT}}} {
		t.Run(fmt.Sprint(c.mode, c.o.Dialect), func(t *testing.T) {
			t.Parallel()
			kept := packet.Connect{ClientID: fmt.Sprintf("holdfast-board-%d-cloud", i)}
			topic := fmt.Sprint("cmd/", i)
			b := connect(t, up.address, kept)
			if err := b.Subscribe(vocabulary.Subscription{Filter: topic, QoS: 1}); err != nil {
				t.Fatal(err)
			}
			if err := b.Disconnect(); err != nil {
				t.Fatal(err)
			}
			publishAll(t, connect(t, up.address, packet.Connect{ClientID: fmt.Sprint("cloud", i), CleanStart: true}), "open", topic, 1, 10)
			if said, err := doctor(t, i, c.o, c.mode, up.address); err != nil || !strings.Contains(said, "ok      echo") {
				t.Errorf("%v, it said\n%s", err, said)
			}
			b = connect(t, up.address, kept)
			_ = b.Conn.SetDeadline(time.Now().Add(patience))
			if p, err := b.NextPublish(); err != nil || string(p.Topic) != topic {
				t.Errorf("%v, %q came", err, p.Topic)
			}
		})
	}
}

// onlyBridge is a far broker that takes one client_id, for which a message waits,
// and tells what it was sent.
type onlyBridge struct {
	clientID string
	present  bool // it has a session of it

	mu   sync.Mutex
	seen []string
}

func (f *onlyBridge) serve(c net.Conn) {
	defer c.Close()
	in := client.Client{Conn: c}
	for {
		h, body, err := in.Next()
		if err != nil {
			return
		}
		if h.Type == packet.DISCONNECT {
			return
		}
		said := h.Type.String()
		var login packet.Connect
		if h.Type == packet.CONNECT && login.Decode(body) == nil {
			said = fmt.Sprintf("CONNECT %s clean=%v", login.ClientID, login.CleanStart)
		}
		f.mu.Lock()
		f.seen = append(f.seen, said)
		f.mu.Unlock()
		switch {
		case h.Type != packet.CONNECT:
		case login.ClientID != f.clientID:
			_, _ = c.Write([]byte{0x20, 2, 0, 2})
			return
		case f.present:
			_, _ = c.Write([]byte{0x20, 2, 1, 0, 0x32, 6, 0, 1, 'c', 0, 7, 'x'})
		default:
			_, _ = c.Write([]byte{0x20, 2, 0, 0})
		}
	}
}

// Where the broker takes no other client_id, the doctor looks at the login and
// touches nothing; a session that it had to make is gone again.
func TestTheDoctorAcknowledgesNothingWithTheLoginOfTheBridge(t *testing.T) {
	t.Parallel()
	for i, present := range []bool{true, false} {
		t.Run(fmt.Sprint(present), func(t *testing.T) {
			t.Parallel()
			id := fmt.Sprintf("holdfast-board-%d-cloud", i)
			f := &onlyBridge{clientID: id, present: present}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var running sync.WaitGroup
			running.Go(func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					running.Go(func() { f.serve(c) })
				}
			})
			said, err := doctor(t, i, sim.Options{}, "socket", ln.Addr().String())
			ln.Close()
			running.Wait()
			if err != nil || !strings.Contains(said, "as "+id+"; the broker does not take "+id+"-doctor") || strings.Contains(said, "subscribe ") {
				t.Errorf("%v, it said\n%s", err, said)
			}
			want := []string{"CONNECT " + id + "-doctor clean=true", "CONNECT " + id + " clean=false"}
			if !present {
				want = append(want, "CONNECT "+id+" clean=true")
			}
			if !slices.Equal(f.seen, want) {
				t.Errorf("the broker was sent %q", f.seen)
			}
		})
	}
}
