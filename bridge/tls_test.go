package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast"
)

// startTLS runs a mosquitto that speaks TLS, with a certificate of ca.
func startTLS(t testing.TB, ca *authority, change func(*x509.Certificate), lines ...string) *mosquitto {
	t.Helper()
	cert, key := ca.server(change)
	return startMosquitto(t, append([]string{"allow_anonymous true", "certfile " + cert, "keyfile " + key}, lines...)...)
}

// startSocket is one with a WebSocket, with TLS if ca is not nil. This mosquitto
// does not start without another listener, so that is there too.
func startSocket(t testing.TB, ca *authority) *mosquitto {
	t.Helper()
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	lines := []string{"allow_anonymous true", "listener " + port + " 127.0.0.1", "protocol websockets"}
	if ca != nil {
		cert, key := ca.server(nil)
		lines = append(lines, "certfile "+cert, "keyfile "+key)
	}
	m := startMosquitto(t, lines...)
	m.addr = address
	return m
}

// publishOne publishes one message and fails the test unless it was
// acknowledged.
func publishOne(t testing.TB, up Upstream) {
	t.Helper()
	done := make(chan error, 1)
	up.Publish(&holdfast.Message{Topic: "over/tls", Payload: []byte("x"), QoS: 1}, false, func(err error) { done <- err })
	if err := next(t, done, "the answer to a publish"); err != nil {
		t.Fatal(err)
	}
}

func TestMessagesGoThroughEveryKindOfWire(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "Test CA")
	secure := startTLS(t, ca, nil)
	plainSocket := startSocket(t, nil)
	secureSocket := startSocket(t, ca)
	trust := TLSOptions{CAFile: ca.file}
	for _, o := range []ClientOptions{
		{URL: "ssl://" + secure.addr, TLS: trust},
		{URL: "mqtts://" + strings.Replace(secure.addr, "127.0.0.1", "localhost", 1), TLS: trust},
		{URL: "tls://" + secure.addr, TLS: TLSOptions{CAFile: ca.file, ServerName: "localhost"}},
		{URL: "ws://" + plainSocket.addr},
		{URL: "wss://" + secureSocket.addr + "/any/path", TLS: trust},
	} {
		t.Run(o.URL[:strings.Index(o.URL, ":")], func(t *testing.T) {
			o.CleanSession = true
			received := make(chan string, 1)
			up := dial(t, o, func(m *holdfast.Message, _ bool, ack func()) { ack(); received <- m.Topic })
			if err := up.Subscribe(t.Context(), "over/#", 1); err != nil {
				t.Fatal(err)
			}
			publishOne(t, up)
			if got := next(t, received, "the message"); got != "over/tls" {
				t.Errorf("received %q", got)
			}
			up.Close()
		})
	}
}

func TestAClientCertificateIsShown(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "Test CA")
	m := startTLS(t, ca, nil, "cafile "+ca.file, "require_certificate true", "use_identity_as_username true")
	cert, key := ca.client("gateway")
	o := ClientOptions{URL: "ssl://" + m.addr, ClientID: "gw", TLS: TLSOptions{CAFile: ca.file, CertFile: cert, KeyFile: key}}
	up := dial(t, o, ignore)
	publishOne(t, up)
	up.Close()

	o.TLS.CertFile, o.TLS.KeyFile = "", ""
	_, err := MQTT3Connect(o)(t.Context(), ignore)
	wantWords(t, err, "wants a client certificate", "set cert and key")

	other := newAuthority(t, "Other CA")
	o.TLS.CertFile, o.TLS.KeyFile = other.client("gateway")
	_, err = MQTT3Connect(o)(t.Context(), ignore)
	wantWords(t, err, "does not take the client certificate", o.TLS.CertFile)
}

func TestASessionIsResumedUntilTheFilesChange(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "Test CA")
	m := startTLS(t, ca, nil)
	connect := MQTT3Connect(ClientOptions{URL: "ssl://" + m.addr, CleanSession: true, TLS: TLSOptions{CAFile: ca.file}})
	resumed := func() bool {
		t.Helper()
		up, err := connect(t.Context(), ignore)
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close()
		publishOne(t, up)
		return up.(*client).link.Conn.(*tlsWire).ConnectionState().DidResume
	}
	if resumed() {
		t.Error("the first connection has resumed a session")
	}
	if !resumed() {
		t.Error("the second connection has not resumed the session of the first")
	}
	pem, err := os.ReadFile(ca.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca.file, append(pem, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	if resumed() {
		t.Error("a session has outlived the file with what is trusted")
	}
}

func TestALPNAndSNIReachTheBroker(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "Test CA")
	cert, key := ca.server(nil)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"mqtt"}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan tls.ConnectionState, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if c.(*tls.Conn).Handshake() == nil {
				asked <- c.(*tls.Conn).ConnectionState()
			}
			c.Close()
		}
	}()
	o := ClientOptions{URL: "ssl://" + l.Addr().String(), CleanSession: true, TLS: TLSOptions{CAFile: ca.file, ServerName: "localhost", ALPN: "mqtt"}}
	_, err = MQTT3Connect(o)(t.Context(), ignore)
	wantWords(t, err, "without an answer")
	if s := next(t, asked, "the handshake"); s.ServerName != "localhost" || s.NegotiatedProtocol != "mqtt" {
		t.Errorf("the broker saw SNI %q and ALPN %q", s.ServerName, s.NegotiatedProtocol)
	}
	o.TLS.ALPN = "other"
	_, err = MQTT3Connect(o)(t.Context(), ignore)
	wantWords(t, err, `does not know the protocol "other"`, "check alpn")
}

func TestACertificateThatIsNotAcceptedIsExplained(t *testing.T) {
	noLeaks(t)
	ca, other := newAuthority(t, "Test CA"), newAuthority(t, "Other CA")
	good := startTLS(t, ca, nil)
	expired := startTLS(t, ca, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	})
	elsewhere := startTLS(t, ca, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"broker.example"}, nil })
	early := func() (time.Time, bool) { return time.Unix(0, 0), false }
	late := func() (time.Time, bool) { return time.Now().Add(1000 * 24 * time.Hour), false }
	for name, tc := range map[string]struct {
		to    *mosquitto
		tls   TLSOptions
		words []string
	}{
		"expired":                  {expired, TLSOptions{CAFile: ca.file}, []string{"has expired on", "this board's clock says", "must renew it"}},
		"clock too early":          {good, TLSOptions{CAFile: ca.file, Clock: early}, []string{"is valid only from", "1970-01-01", "is not synchronised", "NTP"}},
		"clock too late":           {good, TLSOptions{CAFile: ca.file, Clock: late}, []string{"has expired on", "is not synchronised", "check the clock first"}},
		"unknown to the file":      {good, TLSOptions{CAFile: other.file}, []string{`signed by "CN=Test CA"`, "is not in " + other.file}},
		"unknown to the system":    {good, TLSOptions{}, []string{"set ca"}},
		"another name":             {elsewhere, TLSOptions{CAFile: ca.file}, []string{`is for "broker.example", not for "127.0.0.1"`, "server_name"}},
		"another name by a server": {good, TLSOptions{CAFile: ca.file, ServerName: "broker.example"}, []string{`"localhost", 127.0.0.1, not for "broker.example"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := MQTT3Connect(ClientOptions{URL: "ssl://" + tc.to.addr, CleanSession: true, TLS: tc.tls})(t.Context(), ignore)
			wantWords(t, err, tc.words...)
		})
	}
	// The clock that is right makes the same certificate good.
	back := func() (time.Time, bool) { return time.Now().Add(-36 * time.Hour), true }
	_, err := MQTT3Connect(ClientOptions{URL: "ssl://" + expired.addr, CleanSession: true, TLS: TLSOptions{CAFile: ca.file, Clock: back}})(t.Context(), ignore)
	wantWords(t, err, "valid only from") // the authority is an hour old
}

func TestMistakesInFilesAreExplained(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "Test CA")
	cert, _ := ca.client("a")
	_, key := ca.client("b")
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, make([]byte, maxPEM+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		o     TLSOptions
		words string
	}{
		{TLSOptions{CAFile: "/nowhere/ca.pem"}, "ca: /nowhere/ca.pem cannot be read"},
		{TLSOptions{CAFile: "/dev/zero"}, "not a regular file"},
		{TLSOptions{CAFile: large}, "more than"},
		{TLSOptions{CAFile: junk}, "there is no certificate in " + junk},
		{TLSOptions{CertFile: cert, KeyFile: key}, "are no pair"},
		{TLSOptions{CertFile: cert, KeyFile: junk}, "are no pair"},
	} {
		_, err := MQTT3Connect(ClientOptions{URL: "ssl://127.0.0.1:1", CleanSession: true, TLS: tc.o})(t.Context(), ignore)
		wantWords(t, err, tc.words)
	}
}

func TestTheWrongKindOfPortIsExplained(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "Test CA")
	plain, secure := startMosquitto(t), startTLS(t, ca, nil)
	web := func(answer string) string {
		return scripted(t, func(f *far) {
			buf := make([]byte, 4096)
			_, _ = f.Read(buf)
			f.send([]byte(answer)...)
			f.untilEnd()
		})
	}
	trust := TLSOptions{CAFile: ca.file}
	for name, tc := range map[string]struct {
		o     ClientOptions
		words []string
	}{
		"TLS to plain":       {ClientOptions{URL: "ssl://" + plain.addr, TLS: trust}, []string{"TLS", "check the port|is it a TLS port"}},
		"plain to TLS":       {ClientOptions{URL: "tcp://" + secure.addr}, []string{"TLS"}},
		"WebSocket to plain": {ClientOptions{URL: "ws://" + plain.addr}, []string{"does not answer like the WebSocket", "check the port"}},
		"WebSocket to TLS":   {ClientOptions{URL: "ws://" + secure.addr}, []string{"does not answer like the WebSocket", "wss://"}},
		"not found":          {ClientOptions{URL: "ws://" + web("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") + "/x"}, []string{"nothing at /x", "check the path"}},
		"forbidden":          {ClientOptions{URL: "ws://" + web("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")}, []string{"HTTP 403"}},
		"elsewhere":          {ClientOptions{URL: "ws://" + web("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2/\r\nContent-Length: 0\r\n\r\n")}, []string{"http://127.0.0.2/", "final address"}},
		"a web site":         {ClientOptions{URL: "ws://" + web("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")}, []string{"is not the WebSocket of a broker", "HTTP 200"}},
		"broken":             {ClientOptions{URL: "ws://" + web("HTTP/1.1 503 Broken\r\nContent-Length: 0\r\n\r\n")}, []string{"HTTP 503", "tried again"}},
		"endless header":     {ClientOptions{URL: "ws://" + web("HTTP/1.1 101 X\r\n"+strings.Repeat("A: b\r\n", 20000))}, []string{"does not answer like"}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.o.CleanSession = true
			_, err := MQTT3Connect(tc.o)(t.Context(), ignore)
			for _, w := range tc.words {
				first, second, either := strings.Cut(w, "|")
				if err == nil || !strings.Contains(err.Error(), first) && !(either && strings.Contains(err.Error(), second)) {
					t.Errorf("%v: wanted %q", err, w)
				}
			}
		})
	}
}

// TestALinkThatIsCutAnywhereInTheHandshakeIsSaidAndLeavesNothing cuts after
// every few bytes of what the broker answers: TCP, TLS, the request of a
// WebSocket, CONNACK.
func TestALinkThatIsCutAnywhereInTheHandshakeIsSaidAndLeavesNothing(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "Test CA")
	secure, socket := startTLS(t, ca, nil), startSocket(t, ca)
	for url, m := range map[string]*mosquitto{"ssl://": secure, "wss://": socket} {
		t.Run(url[:3], func(t *testing.T) {
			for after := 0; ; after += 97 {
				cut := &budget{left: after}
				o := ClientOptions{URL: url + m.addr, CleanSession: true, TLS: TLSOptions{CAFile: ca.file}, ConnectTimeout: patience, Dial: cut.dial}
				up, err := MQTT3Connect(o)(t.Context(), ignore)
				if err == nil {
					if after < 500 {
						t.Fatalf("a whole handshake in %d bytes", after)
					}
					up.Close()
					return
				}
				if strings.Contains(err.Error(), "context") || !strings.Contains(err.Error(), "?") && !strings.Contains(err.Error(), "check") {
					t.Errorf("cut after %d bytes, but it is not said what to do: %v", after, err)
				}
			}
		})
	}
}

func TestASilentOrFrozenPeerIsGivenUpInTime(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "Test CA")
	frozen := startTLS(t, ca, nil)
	frozen.freeze()
	silent := func() string { return scripted(t, func(f *far) { f.untilEnd() }) }
	for name, tc := range map[string]struct {
		url   string
		words string
	}{
		"silent TLS":       {"ssl://" + silent(), "does not finish the TLS handshake within 300ms"},
		"frozen TLS":       {"ssl://" + frozen.addr, "does not finish the TLS handshake within 300ms"},
		"silent WebSocket": {"ws://" + silent(), "does not answer the WebSocket request within 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := MQTT3Connect(ClientOptions{URL: tc.url, CleanSession: true, TLS: TLSOptions{CAFile: ca.file}, ConnectTimeout: 300 * time.Millisecond})(t.Context(), ignore)
			wantWords(t, err, tc.words)
		})
	}
}

func TestClosingATLSConnectionDoesNotWaitForAPeerThatDoesNotRead(t *testing.T) {
	noLeaks(t)
	a, b := net.Pipe() // a write waits for a read
	defer b.Close()
	w := newTLSWire(tls.Client(a, &tls.Config{ServerName: "x"}), a)
	wrote := make(chan struct{})
	go func() { defer close(wrote); _ = w.Handshake() }() // stuck in its first write
	closed := make(chan struct{})
	go func() { defer close(closed); w.Close() }()
	next(t, closed, "the end of Close")
	next(t, wrote, "the end of the handshake")
}

// budget is a Dialer whose wires end after left bytes from the far broker.
type budget struct{ left int }

func (b *budget) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &budgetWire{Conn: c, b: b}, nil
}

type budgetWire struct {
	net.Conn
	b *budget
}

func (w *budgetWire) Read(p []byte) (int, error) {
	if w.b.left <= 0 {
		return 0, io.EOF
	}
	n, err := w.Conn.Read(p[:min(len(p), w.b.left)])
	w.b.left -= n
	return n, err
}

// TestABrokerThatFreezesIsLeftAndGetsEverythingWhenItGoesOn stops the broker as
// a virtual machine stops: the kernel keeps its connections alive.
func TestABrokerThatFreezesIsLeftAndGetsEverythingWhenItGoesOn(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "Test CA")
	m := startTLS(t, ca, nil)
	q := newFakeQueue(&story{})
	b, err := New(Options{
		Name: "b", Queue: q, Routes: []Route{{Filter: "t/#", QoS: 1}},
		BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond, AckTimeout: time.Second, MaxAttempts: 1000,
		Upstreams: []UpstreamOption{{Name: "u", Connect: MQTT3Connect(ClientOptions{
			URL: "ssl://" + m.addr, CleanSession: true, TLS: TLSOptions{CAFile: ca.file}, ConnectTimeout: time.Second,
		})}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.Run(ctx) }()
	until(t, "the first messages", func() bool { return b.Status().State == Connected })
	q.add(100, 1)
	until(t, "their acknowledgement", func() bool { return b.Status().Acked == 100 })
	m.freeze()
	q.add(100, 1)
	until(t, "the end of the connection", func() bool { return b.Status().State != Connected })
	if s := b.Status(); s.Acked != 100 {
		t.Errorf("%d were acknowledged, by a broker that was frozen after 100", s.Acked)
	}
	m.thaw()
	until(t, "the rest", func() bool { return b.Status().Acked == 200 })
	cancel()
	<-ended
	if len(q.gone) != 200 || len(q.out) != 0 || len(q.waiting) != 0 {
		t.Errorf("%d are done, %d handed out, %d wait", len(q.gone), len(q.out), len(q.waiting))
	}
}

// until waits for a condition.
func until(t testing.TB, what string, met func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("%s did not come", what)
		case <-time.After(time.Millisecond):
		}
	}
}
