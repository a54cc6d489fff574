package edge

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"holdfast"
	"holdfast/edge/packet"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key, _ = a.sign("authority", true)
	return a
}

func (a *authority) sign(name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey, tls.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.n++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return c, key, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: c}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// write puts a certificate for the server, its key and the authority into dir.
func (a *authority) write(dir, name string) TLSFiles {
	a.t.Helper()
	cert, key, _ := a.sign(name, false)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	f := TLSFiles{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	for file, block := range map[string]*pem.Block{
		f.Cert: {Type: "CERTIFICATE", Bytes: cert.Raw}, f.Key: {Type: "EC PRIVATE KEY", Bytes: der},
		filepath.Join(dir, "ca.pem"): {Type: "CERTIFICATE", Bytes: a.cert.Raw},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return f
}

// serveOn serves b on one more listener.
func (b *bench) serveOn(ln net.Listener) {
	served := make(chan error, 1)
	go func() { served <- b.srv.Serve(ln) }()
	b.t.Cleanup(func() {
		b.stop()
		if err := <-served; err != nil {
			b.t.Errorf("Serve: %v", err)
		}
	})
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// echo is a client's whole day on any connection.
func (b *bench) echo(nc net.Conn, version packet.Version) {
	b.t.Helper()
	b.t.Cleanup(func() { nc.Close() })
	c := &client{t: b.t, nc: nc}
	c.login("echo", func(p *packet.Connect) { p.Version = version })
	c.subscribe(1, "echo", 1)
	large := strings.Repeat("x", 200_000)
	for i, payload := range []string{"small", large, ""} {
		c.publish("echo", payload, 1, uint16(i+1))
		for range 2 {
			h, body, err := c.next()
			if err != nil {
				b.t.Fatal(err)
			}
			switch h.Type {
			case packet.PUBACK:
			case packet.PUBLISH:
				var p packet.Publish
				if err := p.Decode(h.Flags, body, version); err != nil || string(p.Payload) != payload {
					b.t.Fatalf("received %d bytes, want %d, error %v", len(p.Payload), len(payload), err)
				}
				c.ack(packet.PUBACK, p.PacketID)
			}
		}
	}
}

func TestMQTTWithinTLS(t *testing.T) {
	ca := newAuthority(t)
	config, err := ServerTLS(ca.write(t.TempDir(), "server"), testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	b := startBroker(t, newFakeDisk())
	ln := loopback(t)
	b.serveOn(tls.NewListener(ln, config))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, v := range []packet.Version{packet.V31, packet.V311, packet.V5} {
			nc, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: ca.pool(), ServerName: "localhost", MinVersion: version, MaxVersion: version})
			if err != nil {
				t.Fatal(err)
			}
			b.echo(nc, v)
		}
	}
	if nc, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: ca.pool(), ServerName: "localhost", MaxVersion: tls.VersionTLS11}); err == nil {
		nc.Close()
		t.Error("TLS 1.1 was accepted")
	}
	plain, err := net.Dial("tcp", ln.Addr().String()) // a client that forgot TLS
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, nc: plain}
	c.send((&packet.Connect{Version: packet.V311, CleanStart: true, ClientID: "c"}).Append(nil))
	for err == nil {
		plain.SetReadDeadline(time.Now().Add(patience))
		_, err = plain.Read(make([]byte, 100)) // a TLS alert, and the end
	}
	if os.IsTimeout(err) {
		t.Error("the connection was not closed")
	}
}

func TestAClientWithACertificateIsWhoItSays(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	files := ca.write(dir, "server")
	files.ClientCA = filepath.Join(dir, "ca.pem")
	config, err := ServerTLS(files, testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, ws := range []bool{false, true} {
		var users []string
		b := startBroker(t, newFakeDisk(), func(o *Options) { o.Access = watching{AnonymousNever, &users} })
		raw := loopback(t)
		ln := tls.NewListener(raw, config)
		if ws {
			ln = NewWebSocketListener(ln, nil)
		}
		b.serveOn(ln)
		dial := func(certs ...tls.Certificate) (net.Conn, error) {
			c := &tls.Config{RootCAs: ca.pool(), ServerName: "localhost", Certificates: certs}
			if !ws {
				nc, err := tls.Dial("tcp", raw.Addr().String(), c)
				if err != nil {
					return nil, err
				}
				return nc, nc.Handshake()
			}
			return dialWebSocket(t, "wss://"+raw.Addr().String(), c, "mqtt")
		}
		_, _, mine := ca.sign("device-7", false)
		nc, err := dial(mine)
		if err != nil {
			t.Fatal(err)
		}
		c := &client{t: t, nc: nc}
		c.login("c", func(p *packet.Connect) { p.Username, p.HasUsername = "somebody else", true })
		c.publish("a", "x", 0, 0)
		c.expectNothing()
		if len(users) != 1 || users[0] != "device-7" {
			t.Errorf("user names %q, want that of the certificate", users)
		}
		nc.Close()
		_, _, foreign := other.sign("device-7", false)
		for _, certs := range [][]tls.Certificate{nil, {foreign}} {
			nc, err := dial(certs...)
			if err != nil {
				continue // TLS 1.2, or WebSocket: the refusal comes at once
			}
			nc.SetDeadline(time.Now().Add(patience))
			nc.Write([]byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"))
			if _, err := nc.Read(make([]byte, 4)); err == nil {
				t.Error("a client without a certificate of the authority was let in")
			}
			nc.Close()
		}
	}
}

// watching notes the user names that log in.
type watching struct {
	Access
	users *[]string
}

func (w watching) Connect(l *Login, stop <-chan struct{}) (Rights, error) {
	*w.users = append(*w.users, l.Username)
	return w.Access.Connect(l, stop)
}

func TestACertificateIsRenewedWithoutARestart(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	config, err := ServerTLS(ca.write(dir, "first"), testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	b := startBroker(t, newFakeDisk())
	ln := loopback(t)
	b.serveOn(tls.NewListener(ln, config))
	shown := func() string {
		t.Helper()
		nc, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		return nc.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	changed := time.Now()
	touch := func() { // in case the clock of the files is coarse
		changed = changed.Add(time.Second)
		for _, f := range []string{"cert.pem", "key.pem"} {
			os.Chtimes(filepath.Join(dir, f), changed, changed)
		}
	}
	if name := shown(); name != "first" {
		t.Fatal(name)
	}
	ca.write(dir, "second")
	touch()
	if name := shown(); name != "second" {
		t.Fatalf("%s is shown after the renewal", name)
	}
	os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("half a cert"), 0o600)
	touch()
	if name := shown(); name != "second" {
		t.Fatalf("%s is shown after a renewal that failed", name)
	}
	ca.write(dir, "third")
	touch()
	if name := shown(); name != "third" {
		t.Fatalf("%s is shown after it was put right", name)
	}
	if _, err := ServerTLS(TLSFiles{Cert: filepath.Join(dir, "none"), Key: filepath.Join(dir, "key.pem")}, testLogger(t)); err == nil {
		t.Error("a certificate that is not there is no error")
	}
}

func dialWebSocket(t *testing.T, url string, config *tls.Config, protocols ...string) (net.Conn, error) {
	ws, _, err := websocket.Dial(context.Background(), url, &websocket.DialOptions{Subprotocols: protocols,
		HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { ws.CloseNow() })
	ws.SetReadLimit(1 << 20)
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary), nil
}

// pieces cuts what is written into messages of n bytes.
type pieces struct {
	net.Conn
	n int
}

func (p pieces) Write(b []byte) (int, error) {
	for at := 0; at < len(b); at += p.n {
		if _, err := p.Conn.Write(b[at:min(at+p.n, len(b))]); err != nil {
			return at, err
		}
	}
	return len(b), nil
}

func TestMQTTWithinWebSocket(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	ln := loopback(t)
	b.serveOn(NewWebSocketListener(ln, []string{"*"}))
	url := "ws://" + ln.Addr().String() + "/mqtt"
	for _, protocol := range subprotocols {
		nc, err := dialWebSocket(t, url, nil, protocol, "other")
		if err != nil {
			t.Fatal(err)
		}
		b.echo(nc, packet.V5)
	}
	// Messages may end anywhere, and have several packets [MQTT-6.0.0-2].
	for _, n := range []int{1, 3, 1000, 1 << 20} {
		nc, err := dialWebSocket(t, url, nil, "mqtt")
		if err != nil {
			t.Fatal(err)
		}
		if n < 1000 {
			c := &client{t: t, nc: pieces{nc, n}}
			c.login("pieces", v5)
			c.subscribe(1, "a", 0)
			c.publish("a", "split", 0, 0)
			c.expectPublish("a", "split", 0)
			continue
		}
		b.echo(pieces{nc, n}, packet.V5)
	}
	nc, err := dialWebSocket(t, url, nil, "mqtt")
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	all, _ = (&packet.Connect{Version: packet.V311, CleanStart: true, ClientID: "joined"}).Append(all)
	all, _ = (&packet.Subscribe{PacketID: 1, Filters: []holdfast.Subscription{{Filter: "j"}}}).Append(all, packet.V311)
	for range 5 {
		all, _ = (&packet.Publish{Topic: []byte("j"), Payload: []byte("x")}).Append(all, packet.V311)
	}
	c := &client{t: t, nc: nc, v: packet.V311}
	c.raw(all)
	c.connack()
	c.expect(packet.SUBACK)
	for range 5 {
		c.expectPublish("j", "x", 0)
	}
	// The last words reach the client on this transport, too.
	told, err := dialWebSocket(t, url, nil, "mqtt")
	if err != nil {
		t.Fatal(err)
	}
	old := &client{t: t, nc: told}
	old.login("joined", v5)
	c.nc.SetReadDeadline(time.Now().Add(patience))
	if _, _, err := c.next(); err == nil {
		t.Error("the older connection is still there")
	}
	b.connect("joined")
	var d packet.Disconnect
	if err := d.Decode(old.expect(packet.DISCONNECT), packet.V5); err != nil || d.Code != packet.SessionTakenOver {
		t.Errorf("DISCONNECT %v, error %v", d.Code, err)
	}
}

func TestWebSocketsThatAreRefused(t *testing.T) {
	b := startBroker(t, newFakeDisk(), func(o *Options) { o.Limits.ConnectTimeout = time.Second })
	ln := loopback(t)
	b.serveOn(NewWebSocketListener(ln, []string{"*.good.example"}))
	url := "ws://" + ln.Addr().String()
	ended := func(nc net.Conn, err error) {
		t.Helper()
		if err != nil {
			return
		}
		nc.SetReadDeadline(time.Now().Add(patience))
		if _, err := nc.Read(make([]byte, 1)); err == nil {
			t.Error("something was answered")
		}
	}
	ended(dialWebSocket(t, url, nil)) // no sub-protocol [MQTT-6.0.0-3]
	ended(dialWebSocket(t, url, nil, "chat"))
	text, _, err := websocket.Dial(context.Background(), url, &websocket.DialOptions{Subprotocols: []string{"mqtt"}})
	if err != nil {
		t.Fatal(err)
	}
	text.Write(context.Background(), websocket.MessageText, []byte("\x10")) // [MQTT-6.0.0-1]
	ended(websocket.NetConn(context.Background(), text, websocket.MessageBinary), nil)
	for origin, want := range map[string]bool{"http://a.good.example": true, "http://evil.example": false} {
		_, answer, err := websocket.Dial(context.Background(), url, &websocket.DialOptions{
			Subprotocols: []string{"mqtt"}, HTTPHeader: http.Header{"Origin": {origin}}})
		if (err == nil) != want {
			t.Errorf("a page of %s: %v %v", origin, answer.Status, err)
		}
	}
	answer, err := http.Get("http://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("a browser is answered %s", answer.Status)
	}
	// Who never asks does not stay for ever, nor does anyone wait for them.
	for range maxUpgrading + 10 {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		fmt.Fprint(nc, "GET / HTTP/1.1\r\n")
	}
	b.connect("elsewhere").expectNothing()
}

func TestMQTTOnAUnixSocket(t *testing.T) {
	b := startBroker(t, newFakeDisk()) // with access from this machine only
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "mqtt.sock"))
	if err != nil {
		t.Fatal(err)
	}
	b.serveOn(ln)
	nc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b.echo(nc, packet.V5)
}

func TestLargeConnectsShareOneBound(t *testing.T) {
	b := startBroker(t, newFakeDisk())
	connect := whole(t)((&packet.Connect{Version: packet.V5, CleanStart: true, ClientID: "large",
		Will: &packet.Will{Topic: "w", Payload: bytes.Repeat([]byte("x"), 65_000)}}).Append(nil))
	// Each promises 65 KB and sends all but the end of it: the bound takes about 60.
	var all []*client
	for range 200 {
		c := b.dial()
		c.nc.Write(connect[:60_000])
		all = append(all, c)
	}
	eventually(t, "those over the bound are closed", func() bool {
		b.srv.mu.Lock()
		defer b.srv.mu.Unlock()
		return len(b.srv.conns) < 100
	})
	// One that is being refused counts until it is.
	eventually(t, "those who have not said CONNECT hold no more than the bound", func() bool {
		return b.srv.early.Load() <= maxEarlyBytes
	})
	for _, c := range all {
		c.nc.Close()
	}
	eventually(t, "nothing is held", func() bool { return b.srv.early.Load() == 0 })
	c := b.dial()
	c.v = packet.V5
	c.raw(connect)
	if a := c.connack(); a.Code != 0 {
		t.Errorf("a large CONNECT is refused with %#x", a.Code)
	}
}
