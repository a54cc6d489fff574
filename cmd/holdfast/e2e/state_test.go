package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	vocabulary "holdfast"
	"holdfast/edge/packet"
	"holdfast/modem/sim"
)

// retained is what is retained under name at a broker; "" if nothing comes soon.
func retained(t testing.TB, address, name string) string {
	t.Helper()
	c := connect(t, address, packet.Connect{ClientID: "looker", CleanStart: true})
	defer c.Conn.Close()
	if err := c.Subscribe(vocabulary.Subscription{Filter: name}); err != nil {
		t.Fatal(err)
	}
	c.Conn.SetReadDeadline(time.Now().Add(time.Second))
	p, err := c.NextPublish()
	if err != nil {
		return ""
	}
	return string(p.Payload)
}

func TestTheStateOfABridgeIsRetainedHereAndThere(t *testing.T) {
	t.Parallel()
	up := newMosquitto(t)
	up.start()
	g := newHoldfast(t, fmt.Sprintf(outRoute, up.address))
	g.start()
	is := func(address, word string) {
		t.Helper()
		eventually(t, word+" at "+address, func() bool {
			return retained(t, address, "holdfast/gw/bridge/cloud/state") == word
		}, g.tail)
	}
	is(g.address, "connected")
	is(up.address, "connected")
	g.end(syscall.SIGKILL)
	is(up.address, "disconnected") // its will
	g.start()
	is(up.address, "connected")
	is(g.address, "connected")
	up.end(syscall.SIGTERM)
	is(g.address, "disconnected")
	up.start()
	is(g.address, "connected")
	g.end(syscall.SIGTERM)
	is(up.address, "disconnected")
}

// The client of a module has a will too.
func TestTheStateIsToldThroughTheClientOfAModule(t *testing.T) {
	for _, dialect := range []string{sim.DialectECMT, sim.DialectQMT, sim.DialectCMQTT} {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			up := newMosquitto(t)
			up.start()
			m := newModule(t, dialect, sim.SocketsNone)
			g := newHoldfast(t, fmt.Sprintf(modemRoute, m.Path(), "mqtt", up.address))
			g.start()
			is := func(word string) {
				t.Helper()
				eventually(t, word+" at the far broker", func() bool {
					return retained(t, up.address, "holdfast/gw/bridge/cloud/state") == word
				}, g.tail)
			}
			is("connected")
			if err := m.Close(); err != nil { // the connection is cut
				t.Fatal(err)
			}
			is("disconnected")
		})
	}
}
