package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"holdfast"
)

// far is a broker that does what a test says, one connection after another.
type far struct {
	net.Conn
	t *testing.T
}

func scripted(t *testing.T, scripts ...func(*far)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for _, s := range scripts {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s(&far{c, t})
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// receive reads one packet; nil when there is none any more.
func (f *far) receive() packets.ControlPacket {
	p, err := packets.ReadPacket(f)
	if err != nil {
		return nil
	}
	return p
}

func (f *far) send(b ...byte) { _, _ = f.Write(b) }

// welcome takes the login.
func (f *far) welcome() *packets.ConnectPacket {
	c, _ := f.receive().(*packets.ConnectPacket)
	f.send(0x20, 2, 0, 0)
	return c
}

// untilEnd reads until the other side has gone.
func (f *far) untilEnd() { _, _ = io.Copy(io.Discard, f) }

func code(c byte) func(*far) {
	return func(f *far) { f.receive(); f.send(0x20, 2, 0, c); f.untilEnd() }
}

func TestAFailedConnectSaysWhatToDo(t *testing.T) {
	answer := func(s string) func(*far) { return func(f *far) { f.receive(); f.send([]byte(s)...); f.untilEnd() } }
	for name, tc := range map[string]struct {
		script func(*far)
		words  []string
	}{
		"version":        {code(1), []string{"(1)", "3.1.1"}},
		"identifier":     {code(2), []string{"(2)", `"gw"`, "client_id"}},
		"unavailable":    {code(3), []string{"(3)", "not available"}},
		"password":       {code(4), []string{"(4)", `"user"`, "check username and password"}},
		"not authorized": {code(5), []string{"(5)", `"user"`, "permits"}},
		"code 6":         {code(6), []string{"code 6", "MQTT 5"}},
		"code 135":       {code(135), []string{"code 135"}},
		"closed":         {func(f *far) { f.receive() }, []string{"without an answer", "TLS"}},
		"TLS":            {answer("\x15\x03\x03\x00\x02\x02\x46"), []string{"does not speak MQTT", "TLS"}},
		"HTTP":           {answer("HTTP/1.1 400 Bad Request\r\n\r\n"), []string{"does not speak MQTT"}},
		"silent":         {func(f *far) { f.untilEnd() }, []string{"does not answer the login within 300ms"}},
		"too long":       {answer("\x20\xff\xff\xff\xff\x01"), []string{"does not speak MQTT"}},
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			o := ClientOptions{URL: "tcp://" + scripted(t, tc.script), ClientID: "gw", Username: "user",
				Password: func() (string, error) { return "sesame", nil }, ConnectTimeout: 300 * time.Millisecond}
			if name != "silent" {
				o.ConnectTimeout = patience
			}
			up, err := MQTT3Connect(o)(t.Context(), ignore)
			if up != nil {
				t.Fatal("it is connected")
			}
			wantWords(t, err, tc.words...)
			if strings.Contains(err.Error(), "sesame") {
				t.Error("the password is told")
			}
		})
	}
}

func TestAnUnreachableBrokerIsExplained(t *testing.T) {
	noLeaks(t)
	dialError := func(err error) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) { return nil, err }
	}
	op := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	for _, tc := range []struct {
		o     ClientOptions
		words []string
	}{
		{ClientOptions{URL: "tcp://" + freeAddress(t)}, []string{"refuses connections", "port"}},
		{ClientOptions{URL: "tcp://broker.invalid", Dial: dialError(op(&net.DNSError{Name: "broker.invalid", IsNotFound: true}))}, []string{`"broker.invalid" is not known to DNS`}},
		{ClientOptions{URL: "tcp://b", Dial: dialError(op(&net.DNSError{Name: "b", IsTimeout: true}))}, []string{"DNS does not answer"}},
		{ClientOptions{URL: "tcp://b", Dial: dialError(op(syscall.ENETUNREACH))}, []string{"no route"}},
		{ClientOptions{URL: "tcp://b", Dial: dialError(op(context.DeadlineExceeded))}, []string{"b:1883 does not answer within 30s"}},
		{ClientOptions{URL: "quic://b"}, []string{`scheme "quic" is not known`, "ssl://"}},
		{ClientOptions{URL: "tcp://b/mqtt"}, []string{"must end after the port"}},
		{ClientOptions{URL: "wss://b/mqtt?token=secret"}, []string{"must not have a ?"}},
		{ClientOptions{URL: "tcp://b:0"}, []string{"port that is not 1 to 65535"}},
		{ClientOptions{URL: "ssl://b", TLS: TLSOptions{CertFile: "c"}}, []string{"cert and key go together"}},
		{ClientOptions{URL: "tcp://me:secret@b"}, []string{"set username and password"}},
		{ClientOptions{URL: "b:1883"}, []string{"must look like"}},
		{ClientOptions{URL: "tcp://b", KeepAlive: time.Second, Will: &holdfast.Message{Topic: "+"}}, []string{"keepalive is 1s", "will topic"}},
	} {
		tc.o.CleanSession = true
		_, err := MQTT3Connect(tc.o)(t.Context(), ignore)
		wantWords(t, err, tc.words...)
		if strings.Contains(fmt.Sprint(err), "secret") {
			t.Error("the password is told")
		}
	}
	_, err := MQTT3Connect(ClientOptions{URL: "tcp://b"})(t.Context(), ignore)
	wantWords(t, err, "client_id is empty")
}

func TestAConnectEndsWithItsContext(t *testing.T) {
	noLeaks(t)
	waiting := make(chan struct{})
	o := ClientOptions{URL: "tcp://" + scripted(t, func(f *far) { f.receive(); close(waiting); f.untilEnd() }), CleanSession: true}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-waiting; cancel() }()
	if _, err := MQTT3Connect(o)(ctx, ignore); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestABrokerThatDoesNotTakeTheBridgeBitIsConnectedToWithoutIt(t *testing.T) {
	noLeaks(t)
	for name, refusal := range map[string]func(*far){"refused": code(1), "closed": func(f *far) { f.receive() }} {
		t.Run(name, func(t *testing.T) {
			versions := make(chan byte, 3)
			welcome := func(f *far) { versions <- f.welcome().ProtocolVersion; f.untilEnd() }
			connect := MQTT3Connect(ClientOptions{URL: "tcp://" + scripted(t, refusal, welcome, welcome), CleanSession: true, BridgeBit: true})
			for range 2 { // the second time it is known
				up, err := connect(t.Context(), ignore)
				if err != nil {
					t.Fatal(err)
				}
				if v := next(t, versions, "a login"); v != 4 || up.(quiet).NoEcho() {
					t.Errorf("version %#x, no echo %v", v, up.(quiet).NoEcho())
				}
				up.Close()
			}
		})
	}
}

func TestASubscriptionThatIsNotGrantedIsAnErrorInWords(t *testing.T) {
	noLeaks(t)
	for name, tc := range map[string]struct {
		suback  []byte
		refused bool
		words   string
	}{
		"refused":        {[]byte{0x90, 3, 0, 0, 0x80}, true, "does not permit the subscription"},
		"lower":          {[]byte{0x90, 3, 0, 0, 0}, false, ""},
		"too many codes": {[]byte{0x90, 4, 0, 0, 1, 1}, false, "connection was lost"},
		"no code":        {[]byte{0x90, 2, 0, 0}, false, "connection was lost"},
	} {
		t.Run(name, func(t *testing.T) {
			up := dial(t, ClientOptions{CleanSession: true, URL: "tcp://" + scripted(t, func(f *far) {
				f.welcome()
				s := f.receive().(*packets.SubscribePacket)
				tc.suback[2], tc.suback[3] = byte(s.MessageID>>8), byte(s.MessageID)
				f.send(tc.suback...)
				f.untilEnd()
			})}, ignore)
			err := up.Subscribe(t.Context(), "a/#", 1)
			if tc.words != "" {
				wantWords(t, err, tc.words)
			} else if err != nil {
				t.Error(err)
			}
			if errors.Is(err, holdfast.ErrRefused) != tc.refused {
				t.Errorf("refused: %v", err)
			}
			up.Close()
		})
	}
}

func TestAMessageTooLargeToHoldIsAcknowledgedAndDropped(t *testing.T) {
	noLeaks(t)
	acks := make(chan []byte, 2)
	log := &bytes.Buffer{}
	got := make(chan string, 2)
	up := dial(t, ClientOptions{CleanSession: true, MaxPacket: 1000, Logger: slog.New(slog.NewTextHandler(log, nil)),
		URL: "tcp://" + scripted(t, func(f *far) {
			f.welcome()
			for _, qos := range []byte{1, 2} {
				p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
				p.Qos, p.TopicName, p.MessageID, p.Payload = qos, "big", 0x1234, make([]byte, 100_000)
				_ = p.Write(f)
				b := make([]byte, 4)
				_, _ = io.ReadFull(f, b)
				acks <- b
			}
			f.send(0x30, 7, 0, 5, 's', 'm', 'a', 'l', 'l')
			f.untilEnd()
		})}, func(m *holdfast.Message, _ bool, _ func()) { got <- m.Topic })
	for _, want := range []byte{0x40, 0x50} {
		if b := next(t, acks, "the acknowledgement"); !bytes.Equal(b, []byte{want, 2, 0x12, 0x34}) {
			t.Errorf("% x", b)
		}
	}
	if s := next(t, got, "the small one"); s != "small" {
		t.Errorf("%s arrived", s)
	}
	up.Close()
	if !strings.Contains(log.String(), "larger than what is taken") {
		t.Errorf("the log says %s", log)
	}
}

func TestAPeerThatDoesNotReadDelaysNeitherPublishNorClose(t *testing.T) {
	noLeaks(t)
	release := make(chan struct{})
	up := dial(t, ClientOptions{CleanSession: true, URL: "tcp://" + scripted(t, func(f *far) { f.welcome(); <-release })}, ignore)
	defer close(release)
	const n = 200
	errs := make(chan error, n)
	since := time.Now()
	for range n {
		up.Publish(&holdfast.Message{Topic: "t", Payload: make([]byte, 100_000), QoS: 1}, false, func(err error) { errs <- err })
	}
	up.Close()
	if d := time.Since(since); d > linkStall/2 { // so long the peer may take; only then the link is given up
		t.Errorf("publishing and closing took %v", d)
	}
	for range n {
		if err := next(t, errs, "done"); !errors.Is(err, holdfast.ErrUnknown) {
			t.Fatal(err)
		}
	}
}

func TestAMessageOfQoS0IsDoneWhenItIsWritten(t *testing.T) {
	noLeaks(t)
	release := make(chan struct{})
	up := dial(t, ClientOptions{CleanSession: true, URL: "tcp://" + scripted(t, func(f *far) { f.welcome(); <-release; f.untilEnd() })}, ignore)
	done := make(chan error, 2)
	// Far more than the buffers of the kernel: it cannot be written yet.
	up.Publish(&holdfast.Message{Topic: "t", Payload: make([]byte, 64<<20)}, false, func(err error) { done <- err })
	select {
	case err := <-done:
		t.Fatalf("done with %v while nobody reads", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	if err := next(t, done, "done"); err != nil {
		t.Error(err)
	}
}

// The reader of the bridge must not be in the way of its own acknowledgements
// for long, and a command that is not acknowledged must not end them.
func TestAcknowledgementsOfPublishesAreTakenWhileACommandWaits(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	s := &story{}
	q, local := newFakeQueue(s), &fakeLocal{story: s}
	b, err := New(Options{Name: "b", Queue: q, Local: local,
		Routes:    []Route{{Filter: "t/#", QoS: 1}, {Filter: "cmd/#", Direction: In, QoS: 1}},
		Upstreams: []UpstreamOption{{Name: "u", Connect: MQTT3Connect(ClientOptions{URL: "tcp://" + m.addr, ClientID: "gw"})}}})
	if err != nil {
		t.Fatal(err)
	}
	arrived := make(chan func(error), 1)
	local.answer = func(_ *holdfast.Message, done func(error)) { arrived <- done }
	_, up := m.client("t/#", 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	q.add(1, 1)
	next(t, up, "the first message") // so the subscription is there
	c, _ := m.client("", 0)
	m.publish(c, "cmd/1", "x", 1)
	done := next(t, arrived, "the command")
	q.add(500, 1)
	for range 500 {
		next(t, up, "a message")
	}
	done(nil)
	cancel()
	<-ended
	if st := b.Status(); st.Acked != 501 || st.Received != 1 || st.RTT <= 0 {
		t.Errorf("status is %+v", st)
	}
}
