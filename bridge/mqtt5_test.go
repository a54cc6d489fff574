package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

func dial5(t testing.TB, o ClientOptions, receive Receive) Upstream {
	t.Helper()
	up, err := MQTT5Connect(o)(context.Background(), receive)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { up.Close() })
	return up
}

// send5 publishes and waits for the answer.
func send5(t testing.TB, up Upstream, m *holdfast.Message) error {
	t.Helper()
	done := make(chan error, 1)
	up.Publish(m, false, func(err error) { done <- err })
	return next(t, done, "done")
}

func TestInMQTT5MessagesKeepTheirPropertiesAndTopicsBecomeNumbers(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	got := make(chan *holdfast.Message, 100)
	sub := dial5(t, ClientOptions{URL: "tcp://" + m.addr, ClientID: "sub", CleanSession: true}, func(m *holdfast.Message, _ bool, ack func()) {
		ack()
		got <- m
	})
	if err := sub.Subscribe(t.Context(), "plant/#", 2); err != nil {
		t.Fatal(err)
	}
	var wire *tap
	up := dial5(t, ClientOptions{URL: "tcp://" + m.addr, ClientID: "gw", Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		wire = &tap{Conn: c}
		return wire, err
	}}, ignore)
	const topic = "plant/a/rather/long/name/of/a/topic"
	for n := range 5 {
		for qos := range byte(3) {
			sent := &holdfast.Message{Topic: topic, Payload: []byte{byte(n), qos}, QoS: qos, Properties: &holdfast.Properties{
				ContentType: "x/y", HasExpiry: true, Expiry: 100, CorrelationData: []byte{1}, ResponseTopic: "back",
				User: []holdfast.UserProperty{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}},
			}}
			if err := send5(t, up, sent); err != nil {
				t.Fatal(err)
			}
			r := next(t, got, "the message")
			if r.Topic != topic || !bytes.Equal(r.Payload, sent.Payload) || r.QoS != min(qos, 1) || // see MQTT3Connect

				fmt.Sprint(*r.Properties) != fmt.Sprint(*sent.Properties) {
				t.Errorf("%+v with %+v arrived", r, r.Properties)
			}
		}
	}
	wire.mu.Lock()
	if n := strings.Count(wire.out.String(), topic); n != 1 {
		t.Errorf("the topic was sent %d times", n)
	}
	wire.mu.Unlock()
	if w := up.Window(); w < 1 || w > 65534 {
		t.Errorf("a window of %d", w)
	}
	for _, tc := range []struct {
		msg  *holdfast.Message
		want error
	}{
		{&holdfast.Message{Topic: "a/+", QoS: 1}, holdfast.ErrRefused},
		{&holdfast.Message{Topic: "", QoS: 1}, holdfast.ErrRefused},
		{&holdfast.Message{Topic: "plant/empty", QoS: 0}, nil},
	} {
		if err := send5(t, up, tc.msg); !errors.Is(err, tc.want) {
			t.Errorf("%q: %v", tc.msg.Topic, err)
		}
	}
	if err := up.Close(); err != nil {
		t.Error(err)
	}
	if err := send5(t, up, &holdfast.Message{Topic: "a", QoS: 1}); !errors.Is(err, holdfast.ErrUnknown) {
		t.Errorf("after the end: %v", err)
	}
}

func TestInMQTT5NothingOfOurOwnComesBack(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	got := make(chan string, 10)
	up := dial5(t, ClientOptions{URL: "tcp://" + m.addr, ClientID: "gw", BridgeBit: true}, func(m *holdfast.Message, _ bool, ack func()) {
		ack()
		got <- string(m.Payload)
	})
	if err := up.Subscribe(t.Context(), "#", 1); err != nil || !up.(quiet).NoEcho() {
		t.Fatal(err)
	}
	if err := send5(t, up, &holdfast.Message{Topic: "a", Payload: []byte("ours"), QoS: 1}); err != nil {
		t.Fatal(err)
	}
	c, _ := m.client("", 0)
	m.publish(c, "a", "theirs", 2)
	if p := next(t, got, "a message"); p != "theirs" {
		t.Errorf("%s came", p)
	}
}

func TestInMQTT5NothingIsTakenForAcknowledgedWhenTheFarBrokerIsKilled(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	var wire *tap
	up := dial5(t, ClientOptions{URL: "tcp://" + m.addr, ClientID: "gw", CleanSession: true,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			wire = &tap{Conn: c}
			return wire, err
		}}, ignore)
	const total = 5000
	window := make(chan struct{}, min(up.Window(), 100))
	var mu sync.Mutex
	acked, calls := map[string]bool{}, 0
	var all sync.WaitGroup
	for i := range total {
		if i == total/2 {
			all.Go(m.kill)
		}
		window <- struct{}{}
		all.Add(1)
		p := fmt.Sprint(i)
		up.Publish(&holdfast.Message{Topic: "t", Payload: []byte(p), QoS: 1}, false, func(err error) {
			mu.Lock()
			calls++
			acked[p] = err == nil
			mu.Unlock()
			if err != nil && !errors.Is(err, holdfast.ErrUnknown) {
				t.Errorf("%v", err)
			}
			<-window
			all.Done()
		})
	}
	all.Wait()
	up.Close()
	answers := 0
	wire.mu.Lock()
	eachPacket(wire.in.Bytes(), func(kind byte, _ []byte) {
		if packet.Type(kind>>4) == packet.PUBACK {
			answers++
		}
	})
	wire.mu.Unlock()
	mu.Lock()
	defer mu.Unlock()
	n := 0
	for _, ok := range acked {
		if ok {
			n++
		}
	}
	if calls != total || n < total/4 || n > answers {
		t.Errorf("%d calls, %d acknowledged, %d answers on the wire", calls, n, answers)
	}
}

// conversation makes a connection to a broker that a test plays.
func conversation(t *testing.T, connack []byte, o ClientOptions) (up Upstream, far net.Conn, err error) {
	t.Helper()
	near, far := net.Pipe()
	o.URL, o.ClientID = "tcp://far", "gw"
	o.Dial = func(context.Context, string, string) (net.Conn, error) { return near, nil }
	t.Cleanup(func() { far.Close() })
	go func() {
		buf := make([]byte, 1000)
		_, _ = far.Read(buf) // CONNECT
		_, _ = far.Write(connack)
	}()
	up, err = MQTT5Connect(o)(t.Context(), ignore)
	return up, far, err
}

var accepted = []byte{0x20, 3, 0, 0, 0}

func TestTheFarBrokersReasonsAreUnderstood(t *testing.T) {
	for name, tc := range map[string]struct {
		connack []byte
		want    string
	}{
		"a wrong password":    {[]byte{0x20, 3, 0, 0x86, 0}, "bad user name or password"},
		"an old broker":       {[]byte{0x20, 2, 0, 1}, `write protocol = "3.1.1"`},
		"no MQTT 5":           {[]byte{0x20, 3, 0, 0x84, 0}, `write protocol = "3.1.1"`},
		"QoS 0 only":          {[]byte{0x20, 3, 0, 0x9B, 0}, `state_topic = ""`},
		"no RETAIN":           {[]byte{0x20, 3, 0, 0x9A, 0}, `state_topic = ""`},
		"moved":               {[]byte{0x20, 3, 0, 0x9D, 0}, "server moved"},
		"another packet":      {[]byte{0xD0, 0}, "does not speak MQTT"},
		"something else":      {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak MQTT"},
		"an endless length":   {[]byte{0x20, 0xff, 0xff, 0xff, 0xff, 0xff}, "does not speak MQTT"},
		"a length of 256 MB":  {[]byte{0x20, 0xff, 0xff, 0xff, 0x7f}, "larger than"},
		"a truncated CONNACK": {[]byte{0x20, 1, 0}, "does not speak MQTT"},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			_, _, err := conversation(t, tc.connack, ClientOptions{Username: "u"})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
	for code, want := range map[byte]error{0: nil, 0x10: nil, 0x87: holdfast.ErrRefused, 0x97: errFull, 0x80: errLater, 0x83: errLater} {
		up, far, err := conversation(t, accepted, ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		up.Publish(&holdfast.Message{Topic: "a", QoS: 1}, false, func(err error) { done <- err })
		far.Read(make([]byte, 100))
		far.Write([]byte{0x40, 3, 0, 1, code})
		if err := next(t, done, "done"); !errors.Is(err, want) {
			t.Errorf("0x%02x is %v", code, err)
		}
		go far.Write([]byte{0xE0, 1, 0x8E})
		<-up.Done()
		if err := up.Err(); !strings.Contains(err.Error(), "same client identifier") {
			t.Errorf("%v", err)
		}
		far.Close()
		up.Close()
	}
}

func TestTheFarBrokersBoundsAreKept(t *testing.T) {
	// Receive Maximum 5, Maximum Packet Size 100, no RETAIN, QoS 0 at most.
	up, far, err := conversation(t, []byte{0x20, 15, 0, 0, 12, 0x21, 0, 5, 0x27, 0, 0, 0, 100, 0x25, 0, 0x24, 0}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if up.Window() != 4 {
		t.Errorf("a window of %d", up.Window())
	}
	if err := send5(t, up, &holdfast.Message{Topic: "a", Payload: make([]byte, 100), QoS: 1}); !errors.Is(err, holdfast.ErrTooLarge) {
		t.Errorf("%v", err)
	}
	done := make(chan error, 1)
	up.Publish(&holdfast.Message{Topic: "a", Payload: []byte("x"), QoS: 2, Retain: true}, false, func(err error) { done <- err })
	b := make([]byte, 100)
	n, _ := far.Read(b)
	if !bytes.Equal(b[:n], []byte{0x30, 5, 0, 1, 'a', 0, 'x'}) {
		t.Errorf("% x was sent", b[:n])
	}
	if err := next(t, done, "done"); err != nil {
		t.Error(err)
	}
	far.Close()
	up.Close()
}

// The link is lost, and the teller has ended; the reader does not know yet.
func TestAPublishWhileTheConnectionEndsIsAnswered(t *testing.T) {
	noLeaks(t)
	up, far, err := conversation(t, accepted, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	up.(*client).written.drop()
	answers := 0
	up.Publish(&holdfast.Message{Topic: "a", QoS: 0}, false, func(err error) {
		if answers++; !errors.Is(err, holdfast.ErrUnknown) {
			t.Errorf("%v", err)
		}
	})
	far.Close()
	up.Close()
	if answers != 1 {
		t.Errorf("%d answers", answers)
	}
}

// The state of the bridge has no place in the window of a broker that takes one.
func TestABrokerThatTakesOneAtATimeGetsOneAtATime(t *testing.T) {
	noLeaks(t)
	up, far, err := conversation(t, []byte{0x20, 6, 0, 0, 3, 0x21, 0, 1}, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 4)
	for _, name := range []string{"a", "b", "+", "c"} {
		up.Publish(&holdfast.Message{Topic: name, QoS: 1}, false, func(err error) { done <- err })
	}
	if err := next(t, done, "done"); !errors.Is(err, holdfast.ErrRefused) {
		t.Error(err)
	}
	b := make([]byte, 100)
	for id, name := range []string{"a", "b"} {
		n, _ := far.Read(b)
		if want := []byte{0x32, 6, 0, 1, name[0], 0, byte(id + 1), 0}; !bytes.Equal(b[:n], want) {
			t.Fatalf("% x came, wanted % x", b[:n], want)
		}
		if id == 0 {
			far.Write([]byte{0x40, 2, 0, 1})
			if err := next(t, done, "done"); err != nil {
				t.Error(err)
			}
		}
	}
	far.Close()
	for range 2 { // b has no answer, c was not sent
		if err := next(t, done, "done"); !errors.Is(err, holdfast.ErrUnknown) {
			t.Error(err)
		}
	}
	up.Close()
	if len(done) > 0 {
		t.Error("one was answered twice")
	}
}

func TestALinkOnWhichNoPingIsAnsweredIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, far, err := conversation(t, accepted, ClientOptions{KeepAlive: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		ping := make([]byte, 10)
		for range 3 { // three are answered
			if n, _ := far.Read(ping); !bytes.Equal(ping[:n], packet.AppendPingreq(nil)) {
				t.Fatalf("% x", ping[:n])
			}
			far.Write([]byte{0xD0, 0})
		}
		go far.Read(ping)
		<-up.Done()
		if d := time.Since(begun); d != 4*time.Minute+30*time.Second || !errors.Is(up.Err(), errNoPing) {
			t.Errorf("after %v: %v", d, up.Err())
		}
		far.Close()
		up.Close()
	})
}

// A dead link takes what is written for a long time.
func TestALinkOnWhichNothingIsHeardIsGivenUpAlthoughMuchIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, far, err := conversation(t, accepted, ClientOptions{KeepAlive: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, far)
		begun := time.Now()
		for range 10 * 60 {
			up.Publish(&holdfast.Message{Topic: "a"}, false, func(error) {})
			if !wait(t.Context(), time.Second) || up.Err() != nil {
				break
			}
		}
		if d := time.Since(begun); d > 2*time.Minute || !errors.Is(up.Err(), errNoPing) {
			t.Errorf("after %v: %v", d, up.Err())
		}
		far.Close()
		up.Close()
	})
}

func TestAFarBrokerThatAcknowledgesNothingIsForRoutesOfQoS0(t *testing.T) {
	connack := []byte{0x20, 5, 0, 0, 2, 0x24, 0} // Maximum QoS 0
	for qos := range byte(3) {
		s := &story{}
		b, err := New(Options{Name: "b", Queue: newFakeQueue(s), Routes: []Route{{Name: "r", Filter: "#", QoS: qos}},
			Upstreams: []UpstreamOption{{Name: "u", Connect: func(context.Context, Receive) (Upstream, error) {
				up, _, err := conversation(t, connack, ClientOptions{})
				return up, err
			}}}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := b.open(t.Context(), t.Context(), 0)
		if (err == nil) != (qos == 0) || err != nil && !strings.Contains(err.Error(), `write qos = 0 in route "r"`) {
			t.Errorf("qos %d: %v", qos, err)
		}
		if c != nil {
			c.abandon()
		}
	}
}

func TestWhatComesWithQoS2IsTakenOnce(t *testing.T) {
	for name, v := range map[string]struct {
		connect func(ClientOptions) Connect
		publish []byte
		connack []byte
	}{
		"3.1.1": {MQTT3Connect, []byte{0x34, 6, 0, 1, 'a', 0, 9, 'x'}, []byte{0x20, 2, 0, 0}},
		"5":     {MQTT5Connect, []byte{0x34, 7, 0, 1, 'a', 0, 9, 0, 'x'}, accepted},
	} {
		t.Run(name, func(t *testing.T) { takenOnce(t, v.connect, v.connack, v.publish) })
	}
}

func takenOnce(t *testing.T, connect func(ClientOptions) Connect, connack, publish []byte) {
	near, far := net.Pipe()
	defer far.Close()
	var got []string
	var acks []func()
	go func() {
		far.Read(make([]byte, 1000))
		far.Write(connack)
	}()
	up, err := connect(ClientOptions{URL: "tcp://far", ClientID: "gw", Dial: func(context.Context, string, string) (net.Conn, error) { return near, nil }})(t.Context(),
		func(m *holdfast.Message, _ bool, ack func()) {
			got = append(got, string(m.Payload))
			acks = append(acks, ack)
			ack()
		})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want ...byte) {
		t.Helper()
		b := make([]byte, 10)
		n, err := far.Read(b)
		if !bytes.Equal(b[:n], want) {
			t.Fatalf("% x came, %v; wanted % x", b[:n], err, want)
		}
	}
	far.Write(publish)
	expect(0x50, 2, 0, 9)
	publish[0] |= 8 // DUP
	far.Write(publish)
	expect(0x50, 2, 0, 9)
	far.Write([]byte{0x62, 2, 0, 9})
	expect(0x70, 2, 0, 9)
	far.Write([]byte{0x62, 2, 0, 9}) // PUBCOMP was lost
	expect(0x70, 2, 0, 9)
	far.Close()
	up.Close()
	if len(got) != 1 {
		t.Errorf("%q", got)
	}
}
