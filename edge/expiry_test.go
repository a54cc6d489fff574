package edge

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// pipes is a listener without a network, for tests in which time is made.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.accept:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// timed is a broker within synctest: time passes when all is quiet.
type timed struct {
	*testing.T
	disk *fakeDisk
	srv  *Server
	ln   *pipes
	done chan error
}

func inTime(t *testing.T, story func(b *timed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &timed{T: t, disk: newFakeDisk()}
		b.start()
		defer b.stop()
		story(b)
	})
}

func (b *timed) start() {
	b.Helper()
	var err error
	b.srv, err = NewServer(Options{Sink: b.disk, Store: b.disk, Access: AnonymousAlways, Logger: testLogger(b.T),
		Limits: Limits{RivalWait: 3 * time.Second}})
	if err != nil {
		b.Fatal(err)
	}
	b.ln = &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
	b.done = make(chan error, 1)
	go func() { b.done <- b.srv.Serve(b.ln) }()
}

func (b *timed) stop() {
	b.Helper()
	if err := b.srv.Shutdown(context.Background()); err != nil {
		b.Error(err)
	}
	<-b.done
}

// crash ends the broker without a word to the disk about its clients.
func (b *timed) crash() {
	b.Helper()
	stored := map[string]holdfast.SessionState{}
	b.disk.set(func() {
		for id, st := range b.disk.sessions {
			stored[id] = *st
		}
	})
	b.stop()
	b.disk.set(func() {
		for id, st := range stored {
			b.disk.sessions[id] = &st
		}
	})
	b.disk.restart()
	b.start()
}

func (b *timed) connect(id string, set ...func(*packet.Connect)) (c *client, present bool) {
	b.Helper()
	far, near := net.Pipe()
	b.ln.accept <- near
	c = &client{t: b.T, nc: far}
	present = c.login(id, append([]func(*packet.Connect){v5}, set...)...)
	return c, present
}

func (b *timed) sessions() int {
	synctest.Wait()
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	return len(b.disk.sessions)
}

// pass lets time pass.
func (b *timed) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// drop ends the connection of c without DISCONNECT.
func (b *timed) drop(c *client) {
	c.nc.Close()
	synctest.Wait()
}

func TestASessionEndsWhenItsExpiryHasPassed(t *testing.T) { // [MQTT-3.1.2-23]
	inTime(t, func(b *timed) {
		c, _ := b.connect("c", lasting(100))
		c.subscribe5(1, holdfast.Subscription{Filter: "a", QoS: 1})
		b.pass(time.Hour) // it counts from the end of the connection
		b.drop(c)
		b.pass(99 * time.Second)
		if c, present := b.connect("c", lasting(100)); !present {
			t.Fatal("the session ended too early")
		} else {
			b.drop(c)
		}
		b.pass(99 * time.Second) // from the last one
		if b.sessions() != 1 {
			t.Fatal("the session ended too early")
		}
		b.pass(2 * time.Second)
		if b.sessions() != 0 || b.srv.Stats().Subscriptions != 0 {
			t.Fatal("the session is still there")
		}
		if _, present := b.connect("c", lasting(100)); present {
			t.Fatal("session present is 1 after its end")
		}
	})
}

func TestASessionsClockGoesOnOverRestarts(t *testing.T) {
	inTime(t, func(b *timed) {
		c, _ := b.connect("left", lasting(100))
		b.drop(c)
		b.pass(60 * time.Second)
		b.connect("there", lasting(100))
		b.crash() // "there" has been away since
		b.pass(30 * time.Second)
		b.crash()
		b.pass(11 * time.Second)
		if b.sessions() != 1 {
			t.Fatalf("%d sessions", b.sessions())
		}
		b.pass(58 * time.Second)
		if _, present := b.connect("there", lasting(0)); !present {
			t.Fatal("the session of a client that was connected in the crash ended too early")
		}
		b.crash() // its expiry was 0: it ended with the connection
		if b.sessions() != 0 {
			t.Fatalf("%d sessions", b.sessions())
		}
	})
}

func TestDisconnectMayChangeTheExpiry(t *testing.T) { // MQTT 5, 3.14.2.2.2
	inTime(t, func(b *timed) {
		leave := func(seconds uint32) {
			c, _ := b.connect("c", lasting(1000))
			d := packet.Disconnect{Properties: &packet.Properties{SessionExpiry: seconds, HasSessionExpiry: true}}
			c.send(d.Append(nil, c.v))
			c.expectEnd()
		}
		leave(0)
		if b.sessions() != 0 {
			t.Fatal("the session is still there")
		}
		leave(10)
		b.pass(11 * time.Second)
		if b.sessions() != 0 {
			t.Fatal("the session is still there after its new expiry")
		}
		leave(holdfast.NeverExpires)
		b.pass(1000 * time.Hour)
		if b.sessions() != 1 {
			t.Fatal("a session without an end has ended")
		}
	})
}

func TestCleanStartEndsTheOldSessionAndBeginsADurableOne(t *testing.T) { // [MQTT-3.1.2-4]
	inTime(t, func(b *timed) {
		c, _ := b.connect("c", lasting(1000))
		c.subscribe5(1, holdfast.Subscription{Filter: "a", QoS: 1})
		b.drop(c)
		c, present := b.connect("c", lasting(1000), func(p *packet.Connect) { p.CleanStart = true })
		if present || b.srv.Stats().Subscriptions != 0 {
			t.Fatal("something of the old session is there")
		}
		b.drop(c)
		if _, present = b.connect("c", lasting(1000)); !present {
			t.Fatal("the new session did not last")
		}
		// Without an expiry a session ends with its connection.
		c, _ = b.connect("brief", func(p *packet.Connect) { p.CleanStart = false })
		b.drop(c)
		if _, present := b.connect("brief", func(p *packet.Connect) { p.CleanStart = false }); present {
			t.Fatal("a session without expiry is present")
		}
		if b.sessions() != 1 {
			t.Fatalf("%d sessions on disk", b.sessions())
		}
	})
}

func delayed(seconds uint32, session ...func(*packet.Connect)) func(*packet.Connect) {
	return func(p *packet.Connect) {
		for _, f := range session {
			f(p)
		}
		withWill("w", "gone", 1, false)(p)
		p.Will.Properties = &packet.Properties{WillDelay: seconds, Message: holdfast.Properties{ContentType: "c"}}
	}
}

func TestAWillIsDelayed(t *testing.T) { // MQTT 5, 3.1.3.2.2
	watch := func(b *timed) *client {
		w, _ := b.connect("watch")
		w.subscribe5(1, holdfast.Subscription{Filter: "w", QoS: 1})
		return w
	}
	gone := func(w *client) {
		w.t.Helper()
		got := w.expectPublish("w", "gone", 1)
		if got.Properties == nil || got.Properties.Message.ContentType != "c" || got.Properties.WillDelay != 0 {
			w.t.Fatalf("properties %+v", got.Properties)
		}
		w.ack(packet.PUBACK, got.PacketID)
		w.expectNothing()
	}
	for name, story := range map[string]func(b *timed, w *client){
		"until its time": func(b *timed, w *client) {
			c, _ := b.connect("c", delayed(10, lasting(100)))
			b.drop(c)
			b.pass(9 * time.Second)
			w.expectNothing()
			b.pass(2 * time.Second)
			gone(w)
			if len(b.disk.wills) != 0 {
				t.Error("it is still on disk")
			}
		},
		"until the session ends, if that is sooner [MQTT-3.1.3-9]": func(b *timed, w *client) {
			c, _ := b.connect("c", delayed(1000, lasting(10)))
			b.drop(c)
			b.pass(9 * time.Second)
			w.expectNothing()
			b.pass(2 * time.Second)
			gone(w)
		},
		"not at all if the session ends with the connection": func(b *timed, w *client) {
			c, _ := b.connect("c", delayed(1000))
			b.drop(c)
			gone(w)
		},
		"and not published if its client is back [MQTT-3.1.3-9]": func(b *timed, w *client) {
			c, _ := b.connect("c", delayed(10, lasting(100)))
			b.drop(c)
			b.pass(5 * time.Second)
			b.connect("c", lasting(100))
			if len(b.disk.wills) != 0 {
				t.Error("it is still on disk")
			}
			b.pass(20 * time.Second)
			w.expectNothing()
		},
		"nor in a takeover": func(b *timed, w *client) {
			b.connect("c", delayed(10, lasting(100)))
			b.connect("c", lasting(100))
			b.pass(20 * time.Second)
			w.expectNothing()
		},
		"but published by a clean start, which ends the session": func(b *timed, w *client) {
			c, _ := b.connect("c", delayed(10, lasting(100)))
			b.drop(c)
			b.connect("c")
			gone(w)
		},
		"and not published after DISCONNECT [MQTT-3.14.4-3]": func(b *timed, w *client) {
			c, _ := b.connect("c", delayed(10, lasting(100)))
			c.disconnect()
			b.pass(20 * time.Second)
			w.expectNothing()
		},
		"but published after DISCONNECT with will message": func(b *timed, w *client) {
			c, _ := b.connect("c", delayed(10, lasting(100)))
			d := packet.Disconnect{Code: packet.DisconnectWithWill}
			c.send(d.Append(nil, c.v))
			c.expectEnd()
			b.pass(11 * time.Second)
			gone(w)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(b *timed) { story(b, watch(b)) })
		})
	}
	t.Run("over a restart", func(t *testing.T) {
		inTime(t, func(b *timed) {
			c, _ := b.connect("c", delayed(100, lasting(holdfast.NeverExpires)))
			b.drop(c)
			b.pass(60 * time.Second)
			b.crash()
			w := watch(b)
			b.pass(39 * time.Second)
			w.expectNothing()
			b.pass(2 * time.Second)
			gone(w)
		})
	})
}

func TestMessagesCountDownWhileTheyWait(t *testing.T) { // [MQTT-3.3.2-5] [MQTT-3.3.2-6]
	inTime(t, func(b *timed) {
		p, _ := b.connect("pub")
		expiring := func(topic, payload string, seconds uint32, set ...func(*packet.Publish)) {
			set = append(set, having(packet.Properties{Message: holdfast.Properties{HasExpiry: true, Expiry: seconds}}))
			p.publish(topic, payload, 1, 1, set...)
			p.expectAck(packet.PUBACK, 1)
		}
		left := func(c *client, topic, payload string, want uint32) {
			t.Helper()
			got := c.expectPublish(topic, payload, 1)
			if got.Properties == nil || got.Properties.Message.Expiry != want {
				t.Fatalf("%s: %+v, want %d s", payload, got.Properties, want)
			}
			c.ack(packet.PUBACK, got.PacketID)
		}
		// In the window of a clean session.
		c, _ := b.connect("c", with5(packet.Properties{ReceiveMaximum: 1}))
		c.subscribe5(1, holdfast.Subscription{Filter: "a", QoS: 1})
		expiring("a", "first", 10)
		expiring("a", "short", 10)
		expiring("a", "long", 100)
		b.pass(30 * time.Second)
		left(c, "a", "first", 10)
		left(c, "a", "long", 70)
		// As a retained message.
		expiring("r/short", "x", 20, retaining)
		expiring("r/long", "x", 200, retaining)
		b.pass(50 * time.Second)
		c.subscribe5(2, holdfast.Subscription{Filter: "r/#", QoS: 1})
		left(c, "r/long", "x", 150)
		d, _ := b.connect("d", lasting(1000))
		d.subscribe5(2, holdfast.Subscription{Filter: "r/#", QoS: 1})
		left(d, "r/long", "x", 150)
		c.expectNothing()
		d.expectNothing()
		b.pass(2 * retainedSweep)
		if n := len(b.disk.retained); n != 1 || b.srv.Stats().Retained != 1 {
			t.Errorf("%d are retained on disk, %d in memory", n, b.srv.Stats().Retained)
		}
		b.pass(time.Hour)
		if n := len(b.disk.retained); n != 0 || b.srv.Stats().Retained != 0 || b.srv.retained.bytes != 0 {
			t.Errorf("%d are retained on disk, %d in memory", n, b.srv.Stats().Retained)
		}
	})
}

func TestTwoDevicesWithOneIdentifierAreSlowedDown(t *testing.T) {
	inTime(t, func(b *timed) {
		took := func() time.Duration {
			start := time.Now()
			c, _ := b.connect("same")
			took := time.Since(start)
			c.nc.SetReadDeadline(time.Time{})
			go io.Copy(io.Discard, c.nc) // it listens until it is ended
			return took
		}
		took()
		for i := range rivalTimes {
			if d := took(); d != 0 {
				t.Fatalf("takeover %d waited for %v", i+1, d)
			}
		}
		for _, want := range []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second, 3 * time.Second} {
			if d := took(); d != want {
				t.Fatalf("waited for %v, want %v", d, want)
			}
		}
		if n := b.srv.Stats().RivalsHeld; n != 7 {
			t.Errorf("%d were counted", n)
		}
		b.pass(2 * rivalWithin)
		if d := took(); d != 0 {
			t.Errorf("waited for %v after they had given up", d)
		}
	})
}

func TestTheShutdownDoesNotWaitForASlowedDevice(t *testing.T) {
	inTime(t, func(b *timed) {
		for range rivalTimes + 6 {
			c, _ := b.connect("same")
			c.nc.SetReadDeadline(time.Time{})
			go io.Copy(io.Discard, c.nc)
		}
		far, near := net.Pipe()
		b.ln.accept <- near
		p := packet.Connect{Version: packet.V5, CleanStart: true, ClientID: "same"}
		raw, _ := p.Append(nil)
		far.Write(raw)
		go io.Copy(io.Discard, far)
		synctest.Wait()
		start := time.Now()
		b.stop()
		if d := time.Since(start); d >= 2*time.Second {
			t.Errorf("the shutdown took %v", d)
		}
		b.start() // for inTime to stop
	})
}

func TestSubscriptionsCountUntilTheyAreOnDisk(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	c := b.connect("c", durable)
	disk.hold()
	p := packet.Subscribe{PacketID: 1, Filters: subsOf("a/long/filter", 1)}
	c.send(p.Append(nil, c.v))
	c.expectNothing()
	if n := b.srv.Stats().PendingBytes; n < int64(len("a/long/filter")) {
		t.Errorf("%d bytes are pending", n)
	}
	disk.letGo()
	c.expect(packet.SUBACK)
	if n := b.srv.Stats().PendingBytes; n != 0 {
		t.Errorf("%d bytes are pending behind the end", n)
	}
}

func TestAnExpiryThatDisconnectSetsIsStored(t *testing.T) {
	for _, seconds := range []uint32{5, holdfast.NeverExpires} {
		disk := newFakeDisk()
		b := startBroker(t, disk)
		c := b.connect("c", lasting(60))
		p := packet.Disconnect{Properties: &packet.Properties{SessionExpiry: seconds, HasSessionExpiry: true}}
		c.send(p.Append(nil, c.v))
		c.expectEnd()
		eventually(t, "it is on disk", func() bool {
			disk.mu.Lock()
			defer disk.mu.Unlock()
			return disk.sessions["c"].Expiry == seconds
		})
	}
}

func TestASessionIsReplacedThoughNoMoreAreKept(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.MaxSessions = 1 })
	b.connect("c", lasting(60)).disconnect()
	anew := func(p *packet.Connect) { p.CleanStart = true }
	if c := b.dial(); c.login("c", lasting(60), anew) {
		t.Error("session present after clean start")
	}
	if a := b.dial().greet("other", lasting(60), anew); packet.ReasonCode(a.Code) != packet.QuotaExceeded {
		t.Errorf("one more session: %+v", a)
	}
}
