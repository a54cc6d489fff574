package bridge

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// two runs a bridge with two brokers, the first of which is preferred, in a
// bubble of time.
func two(t *testing.T, first, second *fakeBroker) (w *world, most *atomic.Int32) {
	t.Helper()
	var now atomic.Int32
	most = new(atomic.Int32)
	alone := func(b *fakeBroker) Connect {
		return func(ctx context.Context, r Receive) (Upstream, error) {
			n := now.Add(1)
			defer now.Add(-1)
			most.Store(max(n, most.Load()))
			time.Sleep(10 * time.Millisecond) // of the bubble
			return b.Connect(ctx, r)
		}
	}
	first.name, second.name = "first ", "second "
	w = start(t, first, func(o *Options) {
		second.story = first.story
		o.Upstreams = []UpstreamOption{{Name: "first", Connect: alone(first)}, {Name: "second", Connect: alone(second)}}
		o.Failback, o.AckTimeout = 10*time.Minute, 24*time.Hour
	})
	t.Cleanup(w.stop)
	return w, most
}

// after lets time pass in a bubble, until all is quiet.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestTheBridgeMovesToTheNextUpstreamAndBackWhenThePreferredOneHasAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &fakeBroker{}, &fakeBroker{}
		first.refuse = errors.New("no")
		w, most := two(t, first, second)
		after(time.Second)
		w.want(t, "first refuse", "second connect")
		w.q.add(2, 1)
		after(time.Second)
		w.want(t, "publish 1", "publish 2")
		second.last().answer(1, nil)
		w.want(t, "ack 1")

		// A way back that does not work yet disturbs nothing.
		after(13 * time.Minute)
		if got := w.take(); !slices.Contains(got, "first refuse") || slices.Contains(got, "second close") {
			t.Errorf("in 13 minutes: %q", got)
		}
		if s := w.b.Status(); s.State != Connected || s.Upstream != "second" || len(s.Upstreams) != 2 ||
			s.Upstreams[0].LastError != "no" || s.Upstreams[0].HeldUntil.IsZero() || !s.Upstreams[1].InUse {
			t.Errorf("status %+v", s)
		}
		// What is on its way is sent again over the preferred one.
		w.q.add(1, 1)
		synctest.Wait()
		second.last().answer(1, nil)
		w.take()
		first.setRefuse(nil)
		after(13 * time.Minute)
		w.want(t, "first connect", "second close", "release [3]", "publish 3 again")
		if s := w.b.Status(); s.Upstream != "first" || s.Connections != 2 {
			t.Errorf("status %+v", s)
		}
		if most.Load() != 1 {
			t.Errorf("%d attempts at once", most.Load())
		}
	})
}

func TestADeadFirstUpstreamIsNotWaitedForWhenTheSecondBlinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &fakeBroker{}, &fakeBroker{}
		first.refuse = errors.New("no")
		w, _ := two(t, first, second)
		after(time.Minute)
		w.want(t, "first refuse", "second connect")
		second.last().lose(errors.New("blink"))
		after(5 * time.Second)
		w.want(t, "second close", "second connect")
		// When all fail, all are tried.
		second.setRefuse(errors.New("no"))
		second.last().lose(errors.New("gone"))
		after(5 * time.Second)
		if got := w.take(); !slices.Contains(got, "first refuse") || !slices.Contains(got, "second refuse") {
			t.Errorf("happened: %q", got)
		}
	})
}

func TestAnUpstreamThatComesAndGoesIsLeftForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &fakeBroker{}, &fakeBroker{}
		w, _ := two(t, first, second)
		for range maxFlaps {
			for w.b.Status().Upstream != "first" || w.b.Status().State != Connected {
				after(100 * time.Millisecond)
			}
			after(time.Second)
			first.last().lose(errors.New("flap"))
			synctest.Wait()
		}
		after(time.Minute)
		if s := w.b.Status(); s.Upstream != "second" || s.Upstreams[0].HeldUntil.IsZero() {
			t.Errorf("status %+v", s)
		}
		after(13 * time.Minute)
		if s := w.b.Status(); s.Upstream != "first" {
			t.Errorf("it has not gone back: %+v", s)
		}
	})
}

func TestAWayBackThatTakesTheLoginOfTheOtherIsGoneOnWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &fakeBroker{}, &fakeBroker{}
		first.refuse = errors.New("no")
		w, _ := two(t, first, second)
		after(time.Minute)
		w.take()
		// One broker behind both: who logs in throws the other out first.
		first.onConnect = func(*fakeUpstream) {
			second.last().lose(errors.New("session taken over"))
			time.Sleep(time.Second) // of the bubble
		}
		first.setRefuse(nil)
		after(13 * time.Minute)
		w.want(t, "first connect", "second close")
		if s := w.b.Status(); s.Upstream != "first" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestStoppingDuringTheWayBackLeavesNothingOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &fakeBroker{}, &fakeBroker{}
		first.refuse = errors.New("no")
		w, _ := two(t, first, second)
		after(time.Minute)
		w.take()
		first.onConnect = func(*fakeUpstream) { w.cancel() }
		first.setRefuse(nil)
		<-w.ended
		w.want(t, "first connect", "second close", "first close")
	})
}

func TestAnUpstreamThatNeverAnswersDoesNotKeepTheNextOneWaitingForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := &fakeBroker{}
		w := start(t, second, func(o *Options) {
			never := func(ctx context.Context, _ Receive) (Upstream, error) { <-ctx.Done(); return nil, ctx.Err() }
			o.Upstreams = append([]UpstreamOption{{Name: "never", Connect: never}}, o.Upstreams...)
		})
		t.Cleanup(w.stop)
		after(attemptTimeout + time.Second)
		w.want(t, "connect")
		if s := w.b.Status().Upstreams[0]; !strings.Contains(s.LastError, "see its state") {
			t.Errorf("it says %q", s.LastError)
		}
	})
}

// TestEverythingArrivesWhileBrokersComeAndGo uses real ones.
func TestEverythingArrivesWhileBrokersComeAndGo(t *testing.T) {
	noLeaks(t)
	first, second := startMosquitto(t), startMosquitto(t)
	q := newFakeQueue(&story{})
	option := func(name string, m *mosquitto) UpstreamOption {
		return UpstreamOption{Name: name, Connect: MQTT3Connect(ClientOptions{URL: "tcp://" + m.addr, CleanSession: true})}
	}
	b, err := New(Options{
		Name: "b", Queue: q, Routes: []Route{{Filter: "t/#", QoS: 1}},
		BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond, Failback: 100 * time.Millisecond, MaxAttempts: 1000,
		Upstreams: []UpstreamOption{option("first", first), option("second", second)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	uses := func(name string) func() bool {
		return func() bool { s := b.Status(); return s.State == Connected && s.Upstream == name }
	}
	done := func(n uint64) func() bool { return func() bool { return b.Status().Acked == n } }
	until(t, "the first broker", uses("first"))
	q.add(100, 1)
	until(t, "100 acknowledgements", done(100))
	first.kill()
	q.add(100, 1)
	until(t, "the second broker", uses("second"))
	until(t, "200 acknowledgements", done(200))
	first.start("/usr/sbin/mosquitto")
	q.add(100, 1)
	until(t, "the way back", uses("first"))
	until(t, "300 acknowledgements", done(300))
	cancel()
	<-ended
	if len(q.gone) != 300 || len(q.out) != 0 || len(q.waiting) != 0 {
		t.Errorf("%d are done, %d handed out, %d wait", len(q.gone), len(q.out), len(q.waiting))
	}
}

func TestAConnectionStaysOnItsInterface(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := BoardDialer("lo")(t.Context(), "tcp", l.Addr().String())
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this user may not choose an interface")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var device string
	var timeout, keep int
	if err := raw.Control(func(fd uintptr) {
		device, _ = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
		timeout, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		keep, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
	}); err != nil {
		t.Fatal(err)
	}
	if strings.TrimRight(device, "\x00") != "lo" || timeout != 60_000 || keep != 0 {
		t.Errorf("bound to %q, TCP_USER_TIMEOUT %d ms, SO_KEEPALIVE %d", device, timeout, keep)
	}
	_, err = MQTT3Connect(ClientOptions{URL: "tcp://" + l.Addr().String(), CleanSession: true, Dial: BoardDialer("nosuch0")})(t.Context(), ignore)
	wantWords(t, err, "there is no such interface now", "nosuch0", "check interface")
}
