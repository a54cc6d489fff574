package e2e

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/edge/packet"
	"holdfast/modem/sim"
)

const modemRoute = `
[[modem]]
name = "lte"
port = %q
mode = %q
[[bridge]]
name = "cloud"
  [[bridge.upstream]]
  url = "tcp://%s"
  via = "lte"
  [[bridge.route]]
  name = "up"
  direction = "out"
  topic = "s/#"
  remote_prefix = "gw/"
  [[bridge.route]]
  name = "down"
  direction = "in"
  topic = "cmd/#"
  remote_prefix = "gw/"
`

// newModule starts a simulated module, unpaced.
func newModule(t *testing.T, dialect, sockets string) *sim.Module {
	t.Helper()
	m, err := sim.New(sim.Options{Dialect: dialect, Sockets: sockets, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// modemModes are the ways through a module, and the module that has them.
var modemModes = []struct{ name, mode, dialect, sockets string }{
	{"ecmt", "mqtt", sim.DialectECMT, sim.SocketsECSO},
	{"qmt", "mqtt", sim.DialectQMT, sim.SocketsQI},
	{"cmqtt", "auto", sim.DialectCMQTT, sim.SocketsNone},
	{"ecso", "auto", sim.DialectECMT, sim.SocketsECSO},
	{"qi", "socket", sim.DialectQMT, sim.SocketsQI},
}

func TestCommandsComeDownThroughTheModule(t *testing.T) {
	for _, mode := range modemModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			up := newMosquitto(t)
			up.start()
			m := newModule(t, mode.dialect, mode.sockets)
			g := newHoldfast(t, fmt.Sprintf(modemRoute, m.Path(), mode.mode, up.address))
			g.start()
			eventually(t, "the bridge is connected", func() bool { return g.bridge().State == "connected" }, g.tail)
			device := newCollector(t)
			device.attach(g.address, "cmd/#")
			cloud := connect(t, up.address, packet.Connect{ClientID: "cloud", CleanStart: true})
			publishAll(t, cloud, "c", "gw/cmd/valve", 50, 1)
			device.check(50, "c")
		})
	}
}

// A module is unplugged in the middle of a backlog, and another comes in its place.
func TestNothingIsLostWhenTheModuleIsUnplugged(t *testing.T) {
	for _, mode := range modemModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			up := newMosquitto(t)
			up.start()
			port := filepath.Join(t.TempDir(), "lte")
			plug := func() *sim.Module {
				m := newModule(t, mode.dialect, mode.sockets)
				if err := os.Symlink(m.Path(), port); err != nil {
					t.Fatal(err)
				}
				return m
			}
			m := plug()
			g := newHoldfast(t, fmt.Sprintf(modemRoute, port, mode.mode, up.address))
			g.start()
			k := newCollector(t)
			k.attach(up.address, "gw/s/#")
			c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
			publishAll(t, c, "p", "s/p", 100, 20)
			eventually(t, "some messages are through", func() bool { return k.distinct() >= 20 }, g.tail)
			if err := os.Remove(port); err != nil {
				t.Fatal(err)
			}
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			publishAll(t, c, "q", "s/q", 100, 20)
			eventually(t, "it is missed", func() bool {
				st, err := g.status()
				return err == nil && len(st.Modems) == 1 && strings.Contains(st.Modems[0].Problem, "there is no port")
			}, g.tail)
			plug()
			publishAll(t, c, "r", "s/r", 100, 20)
			k.check(100, "p", "q", "r")
			if n := g.drained().Modems[0].Counters.Resets; n != 0 {
				t.Errorf("it was reset %d times", n)
			}
		})
	}
}
