package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

func TestWhatIsPublishedArrivesAndIsAcknowledged(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	_, got := m.client("#", 2)
	for _, clean := range []bool{true, false} {
		up := dial(t, ClientOptions{URL: "mqtt://" + m.addr, ClientID: "gw", CleanSession: clean}, ignore)
		for qos := range byte(3) {
			done := make(chan error, 1)
			up.Publish(&holdfast.Message{Topic: "a/b", Payload: []byte{qos}, QoS: qos}, false, func(err error) { done <- err })
			if err := next(t, done, "done"); err != nil {
				t.Fatal(err)
			}
			r := next(t, got, "the message")
			want := qos
			if !clean {
				want = min(qos, 1) // see MQTT3Connect
			}
			if r.Topic() != "a/b" || r.Payload()[0] != qos || r.Qos() != want {
				t.Errorf("clean %v: %s with QoS %d arrived for QoS %d", clean, r.Topic(), r.Qos(), qos)
			}
		}
		if err := up.Close(); err != nil {
			t.Error(err)
		}
		done := make(chan error, 1)
		up.Publish(&holdfast.Message{Topic: "a/b", QoS: 1}, false, func(err error) { done <- err })
		if err := next(t, done, "done"); !errors.Is(err, holdfast.ErrUnknown) {
			t.Errorf("after the end: %v", err)
		}
	}
}

func TestWhatCannotBeSentIsRefusedAndTheConnectionLives(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	up := dial(t, ClientOptions{URL: "tcp://" + m.addr, CleanSession: true}, ignore)
	for _, tc := range []struct {
		msg  *holdfast.Message
		want error
	}{
		{&holdfast.Message{Topic: "a/+", QoS: 1}, holdfast.ErrRefused},
		{&holdfast.Message{Topic: "", QoS: 1}, holdfast.ErrRefused},
		{&holdfast.Message{Topic: strings.Repeat("x", 65536), QoS: 1}, holdfast.ErrRefused},
		{&holdfast.Message{Topic: "a", Payload: make([]byte, packet.MaxRemaining), QoS: 1}, holdfast.ErrTooLarge},
		{&holdfast.Message{Topic: "a", QoS: 1}, nil},
	} {
		done := make(chan error, 1)
		up.Publish(tc.msg, false, func(err error) { done <- err })
		if err := next(t, done, "done"); !errors.Is(err, tc.want) {
			t.Errorf("topic of %d, payload of %d bytes: %v", len(tc.msg.Topic), len(tc.msg.Payload), err)
		}
	}
}

// A far broker is killed in the middle of a window, many times. No done(nil)
// may come for a message whose acknowledgement was not on the wire, and what
// was acknowledged must be with a subscriber that was there.
func TestNothingIsTakenForAcknowledgedWhenTheFarBrokerIsKilled(t *testing.T) {
	for _, clean := range []bool{true, false} {
		for round := range 6 {
			t.Run(fmt.Sprintf("clean=%v,round=%d", clean, round), func(t *testing.T) {
				noLeaks(t)
				m := startMosquitto(t)
				_, got := m.client("#", 0)
				var wire *tap
				up := dial(t, ClientOptions{URL: "tcp://" + m.addr, ClientID: "gw", CleanSession: clean,
					Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
						c, err := new(net.Dialer).DialContext(ctx, network, addr)
						wire = &tap{Conn: c}
						return wire, err
					}}, ignore)
				const total, window = 3000, 200
				var (
					mu    sync.Mutex
					acked []string
					calls int
				)
				slots := make(chan struct{}, window)
				var all sync.WaitGroup
				for i := range total {
					slots <- struct{}{}
					p := fmt.Sprint(i)
					all.Add(1)
					up.Publish(&holdfast.Message{Topic: "t", Payload: []byte(p), QoS: 1}, false, func(err error) {
						mu.Lock()
						calls++
						if err == nil {
							acked = append(acked, p)
						} else if !errors.Is(err, holdfast.ErrUnknown) {
							t.Errorf("%v", err)
						}
						mu.Unlock()
						<-slots
						all.Done()
					})
					if i == 500+round*300 {
						m.kill()
					}
				}
				<-up.Done()
				up.Close()
				all.Wait()
				truth := wire.acknowledged()
				for _, p := range acked {
					if !truth[p] {
						t.Errorf("%s counts as acknowledged and is not", p)
					}
				}
				seen := map[string]bool{}
				for msg := range got {
					seen[string(msg.Payload())] = true
				}
				for _, p := range acked {
					if !seen[p] {
						t.Errorf("%s counts as acknowledged, and the subscriber does not have it", p)
					}
				}
				if calls != total || len(acked) == total || len(acked) == 0 {
					t.Errorf("%d answers, %d acknowledged", calls, len(acked))
				}
				if err := up.Err(); err == nil {
					t.Error("no reason")
				}
				t.Logf("%d acknowledged, %d on the wire", len(acked), len(truth))
			})
		}
	}
}

func TestALoginIsRefusedInWords(t *testing.T) {
	noLeaks(t)
	file := filepath.Join(t.TempDir(), "passwords")
	if out, err := exec.Command("mosquitto_passwd", "-c", "-b", file, "gateway", "right").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "true" {
			t.Skipf("mosquitto_passwd does not run: %v", err)
		}
		t.Fatalf("%v: %s", err, out)
	}
	m := startMosquitto(t, "allow_anonymous false", "password_file "+file)
	password := func(s string) func() (string, error) { return func() (string, error) { return s, nil } }
	o := ClientOptions{URL: "tcp://" + m.addr, ClientID: "gw", CleanSession: true}
	_, err := MQTT3Connect(o)(t.Context(), ignore)
	wantWords(t, err, "without a user", "not authorized (5)", "set username and password")
	o.Username, o.Password = "gateway", password("wrong-secret")
	_, err = MQTT3Connect(o)(t.Context(), ignore)
	wantWords(t, err, `user "gateway"`, "not authorized (5)", "check username, password")
	if strings.Contains(err.Error(), "wrong-secret") {
		t.Error("the password is told")
	}
	o.Password = func() (string, error) { return "", errors.New("no such file") }
	_, err = MQTT3Connect(o)(t.Context(), ignore)
	wantWords(t, err, "read the password: no such file")
	o.Password = password("right")
	dial(t, o, ignore).Close()
}

func wantWords(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not said in: %v", w, err)
		}
	}
}

func TestACommandThatWasNotAcknowledgedComesAgain(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	o := ClientOptions{URL: "tcp://" + m.addr, ClientID: "gw"}
	type arrival struct {
		topic string
		again bool
		ack   func()
	}
	got := make(chan arrival, 10)
	receive := func(msg *holdfast.Message, again bool, ack func()) { got <- arrival{msg.Topic, again, ack} }
	up := dial(t, o, receive)
	if err := up.Subscribe(t.Context(), "cmd/#", 1); err != nil {
		t.Fatal(err)
	}
	far, _ := m.client("", 0)
	m.publish(far, "cmd/1", "x", 1)
	if a := next(t, got, "the command"); a.again || a.topic != "cmd/1" {
		t.Fatalf("%+v", a)
	}
	up.Close()
	m.publish(far, "cmd/2", "x", 1)

	// On the new connection both come before there is a subscription.
	up = dial(t, o, receive)
	first, second := next(t, got, "the command"), next(t, got, "the next command")
	if first.topic != "cmd/1" || !first.again || second.topic != "cmd/2" {
		t.Fatalf("%+v, %+v", first, second)
	}
	first.ack()
	second.ack()
	second.ack() // twice does no harm
	up.Close()   // not before the acknowledgements have gone
	m.publish(far, "cmd/3", "x", 1)
	up = dial(t, o, receive)
	if a := next(t, got, "the last command"); a.topic != "cmd/3" {
		t.Errorf("%s came again after its acknowledgement", a.topic)
	}
	first.ack() // of a connection long gone
	up.Close()
}

func TestWithTheBridgeBitNothingOfOurOwnComesBack(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	far, _ := m.client("", 0)
	for _, bit := range []bool{false, true} {
		got := make(chan string, 10)
		up := dial(t, ClientOptions{URL: "tcp://" + m.addr, ClientID: "gw", CleanSession: true, BridgeBit: bit},
			func(msg *holdfast.Message, _ bool, ack func()) { got <- msg.Topic; ack() })
		if err := up.Subscribe(t.Context(), "b/#", 1); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		up.Publish(&holdfast.Message{Topic: "b/own", QoS: 1}, false, func(err error) { done <- err })
		if err := next(t, done, "done"); err != nil {
			t.Fatal(err)
		}
		m.publish(far, "b/other", "", 1)
		want := "b/own"
		if bit {
			want = "b/other"
		}
		if s := next(t, got, "a message"); s != want {
			t.Errorf("bit %v: %s came", bit, s)
		}
		if up.(quiet).NoEcho() != bit {
			t.Errorf("bit %v: NoEcho is %v", bit, !bit)
		}
		up.Close()
	}
}

// The whole bridge over a link that is cut again and again: everything arrives,
// in order, apart from repetitions.
func TestEverythingArrivesInOrderOverALinkThatIsCut(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	_, got := m.client("#", 1)
	var mu sync.Mutex
	cuts := 0
	s := &story{}
	q := newFakeQueue(s)
	b, err := New(Options{
		Name: "b", Queue: q, Routes: []Route{{Filter: "t/#", QoS: 1}},
		BackoffMin: time.Millisecond, BackoffMax: 5 * time.Millisecond, MaxAttempts: 50,
		Upstreams: []UpstreamOption{{Name: "u", Connect: MQTT3Connect(ClientOptions{
			URL: "tcp://" + m.addr, ClientID: "gw",
			Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := new(net.Dialer).DialContext(ctx, network, addr)
				mu.Lock()
				defer mu.Unlock()
				cuts++
				return &frail{Conn: c, in: 200 * (cuts % 7), out: 3000 * (cuts % 5)}, err
			},
		})}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const total = 3000
	q.add(total, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	last, repeated := 0, 0
	seen := map[string]bool{}
	for last < total {
		p := string(next(t, got, fmt.Sprintf("message %d", last+1)).Payload())
		if seen[p] {
			repeated++
			continue
		}
		seen[p] = true
		if last++; p != fmt.Sprint(last) {
			t.Fatalf("%s came in place %d", p, last)
		}
	}
	cancel()
	<-ended
	mu.Lock()
	defer mu.Unlock()
	if cuts < 5 {
		t.Errorf("only %d connections", cuts)
	}
	for id, how := range q.gone {
		if how != "acked" {
			t.Errorf("%d is %s", id.Position(), how)
		}
	}
	t.Logf("%d connections, %d repetitions of %d messages", cuts, repeated, total)
}

// TestALargePacketOverASlowLinkIsNoDeadLink: it takes longer than a ping may, and the
// answer to the ping is behind it.
func TestALargePacketOverASlowLinkIsNoDeadLink(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(io.Discard, far) })
		wg.Go(func() {
			defer far.Close()
			_, _ = far.Write([]byte{0x20, 2, 0, 0})
			_, _ = far.Write([]byte{0x30, 127, 0, 1, 't'})
			for range 124 {
				time.Sleep(time.Second)
				if _, err := far.Write([]byte{'x'}); err != nil {
					return
				}
			}
			time.Sleep(time.Hour) // and now it is dead
		})
		got := make(chan int, 1)
		up, err := MQTT3Connect(ClientOptions{URL: "tcp://far", ClientID: "gw", KeepAlive: time.Minute,
			Dial: func(context.Context, string, string) (net.Conn, error) { return near, nil },
		})(t.Context(), func(m *holdfast.Message, _ bool, _ func()) { got <- len(m.Payload) })
		if err != nil {
			t.Fatal(err)
		}
		<-up.Done()
		select {
		case n := <-got:
			if n != 124 || !errors.Is(up.Err(), errNoPing) {
				t.Errorf("%d bytes came, and then: %v", n, up.Err())
			}
		default:
			t.Error("the link was ended while bytes came:", up.Err())
		}
		up.Close()
		wg.Wait()
	})
}

// frail breaks after some bytes in either direction; 0 is never.
type frail struct {
	net.Conn
	in, out int
}

func (f *frail) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	if f.in > 0 {
		if f.in -= n; f.in <= 0 {
			f.Conn.Close()
			return 0, net.ErrClosed
		}
	}
	return n, err
}

func (f *frail) Write(p []byte) (int, error) {
	if f.out > 0 {
		if f.out -= len(p); f.out <= 0 {
			_, _ = f.Conn.Write(p[:len(p)/2])
			f.Conn.Close()
			return len(p) / 2, net.ErrClosed
		}
	}
	return f.Conn.Write(p)
}
