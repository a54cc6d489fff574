package edge

import (
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/edge/packet"
)

func TestAPaceHasABurstOfASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		take := func() time.Duration { return p.take(time.Now(), 10, time.Second) }
		for i := range 10 {
			if w := take(); w != 0 {
				t.Errorf("event %d waits %v", i, w)
			}
		}
		for i := 1; i <= 10; i++ {
			if w, want := take(), time.Duration(i)*100*time.Millisecond; w != want {
				t.Errorf("event %d beyond the burst waits %v, want %v", i, w, want)
			}
		}
		for range 3 { // what is refused does not count
			if w := take(); w != 1100*time.Millisecond {
				t.Errorf("one too many waits %v", w)
			}
		}
		time.Sleep(time.Hour) // saves up no more than a second
		for range 10 {
			take()
		}
		if w := take(); w != 100*time.Millisecond {
			t.Errorf("after an hour the burst is larger: %v", w)
		}
	})
}

func TestAClientThatPublishesTooFastIsReadMoreSlowly(t *testing.T) {
	inTime(t, func(b *timed) {
		b.srv.limits.MaxPublishRate = 10
		c, _ := b.connect("fast")
		other, _ := b.connect("other")
		begun := time.Now()
		for i := range 30 {
			c.publish("a", "x", 1, uint16(i+1))
			c.expectAck(packet.PUBACK, uint16(i+1))
			if took := time.Since(begun); i == 9 && took != 0 || i == 10 && took != 100*time.Millisecond {
				t.Errorf("message %d took %v", i+1, took)
			}
			at := time.Now()
			other.expectNothing()
			if took := time.Since(at); took != 0 {
				t.Errorf("another client waited %v", took)
			}
		}
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("30 messages at 10 in a second took %v", took)
		}
		if n := b.srv.Stats().HeldPublishes; n != 20 {
			t.Errorf("%d were held", n)
		}
		for i := range 11 {
			c.publish("a", "x", 0, uint16(i))
		}
		b.drop(c) // in the middle of a pause
		c.nc.Close()
	})
}

// from is a connection that says it is from somewhere.
type from struct {
	net.Conn
	remote string
}

func (f from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.remote))
}

func TestConnectionsOfOneAddressAreHeldToARate(t *testing.T) {
	inTime(t, func(b *timed) {
		b.srv.limits.MaxConnectRate = 2
		connect := func(id, remote string) time.Duration {
			far, near := net.Pipe()
			begun := time.Now()
			b.ln.accept <- from{near, remote}
			c := &client{t: b.T, nc: far}
			c.login(id)
			far.Close()
			return time.Since(begun)
		}
		for i, want := range []time.Duration{0, 0, 500e6, 500e6} {
			if took := connect("c", "192.0.2.1:1"); took != want {
				t.Errorf("connection %d waited %v, want %v", i, took, want)
			}
			if took := connect("n", "192.0.2.2:1"); i < 2 && took != 0 {
				t.Errorf("a neighbor waited %v", took)
			}
		}
		b.pass(time.Hour)
		// Those that would have to wait too long are refused at once.
		var waiting []net.Conn
		for range 2 + 20 {
			far, near := net.Pipe()
			b.ln.accept <- from{near, "192.0.2.1:1"}
			waiting = append(waiting, far)
		}
		far, near := net.Pipe()
		b.ln.accept <- from{near, "192.0.2.1:1"}
		synctest.Wait()
		if _, err := far.Read(make([]byte, 1)); err == nil || b.srv.Stats().RefusedConnections != 1 {
			t.Errorf("%v, %d refused", err, b.srv.Stats().RefusedConnections)
		}
		for _, nc := range waiting {
			nc.Close()
		}
	})
}

func TestTheAddressesThatConnectAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a arrivals
		for i := range 3 * arrivalAddresses {
			a.take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1, time.Second)
		}
		if n := len(a.paces); n > arrivalAddresses {
			t.Errorf("%d addresses are known", n)
		}
		time.Sleep(time.Minute)
		a.take(netip.MustParseAddr("192.0.2.1"), 1, time.Second)
		if n := len(a.paces); n != 1 {
			t.Errorf("%d addresses are known after a minute", n)
		}
	})
}
