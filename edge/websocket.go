package edge

import (
	"context"
	"crypto/tls"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// subprotocols are the names of MQTT within WebSocket (MQTT 5, 6); the second is
// what clients of 3.1 say.
var subprotocols = []string{"mqtt", "mqttv3.1"}

const (
	// upgradeWait is how long a client may take to ask for WebSocket.
	upgradeWait = 10 * time.Second
	// maxUpgrading is how many may be asking at a time; more are closed.
	maxUpgrading = 128
	// maxUpgradeHeader bounds what they ask with, in bytes.
	maxUpgradeHeader = 8 << 10
)

// NewWebSocketListener serves WebSocket, at any path, on ln: each of its
// connections is a stream of MQTT bytes, however they are cut into messages
// [MQTT-6.0.0-2]. origins are patterns of the hosts of web pages that may
// connect, as in path.Match; "*" is every page. Other clients have no origin.
//
// Closing it closes ln, and leaves its connections alone.
func NewWebSocketListener(ln net.Listener, origins []string) net.Listener {
	l := &webSocketListener{ln: ln, origins: origins, conns: make(chan net.Conn), closed: make(chan struct{}), served: make(chan struct{})}
	l.srv = &http.Server{
		Handler: l, ReadHeaderTimeout: upgradeWait, MaxHeaderBytes: maxUpgradeHeader, ConnState: l.count,
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, carrier{}, nc)
		},
		ErrorLog: log.New(discard{}, "", 0), // handshakes that fail are the clients' affair
	}
	go func() {
		defer close(l.served)
		l.failed = l.srv.Serve(ln)
	}()
	return l
}

// carrier is the key under which a request has the connection it came on.
type carrier struct{}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

type webSocketListener struct {
	ln        net.Listener
	origins   []string
	srv       *http.Server
	upgrading atomic.Int32
	conns     chan net.Conn
	once      sync.Once
	closed    chan struct{}
	served    chan struct{} // closed when srv has ended; failed is set then
	failed    error
}

// count bounds the connections that are not WebSocket yet.
func (l *webSocketListener) count(nc net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if l.upgrading.Add(1) > maxUpgrading {
			nc.Close()
		}
	case http.StateHijacked, http.StateClosed:
		l.upgrading.Add(-1)
	}
}

func (l *webSocketListener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	options := &websocket.AcceptOptions{Subprotocols: subprotocols, OriginPatterns: l.origins, CompressionMode: websocket.CompressionDisabled}
	options.InsecureSkipVerify = slices.Contains(l.origins, "*")
	w.Header().Set("Connection", "close")                 // a request that is refused is the last
	if r.Header.Get("Upgrade") != "" && !asksForMQTT(r) { // [MQTT-6.0.0-3]
		http.Error(w, "ask for the sub-protocol mqtt", http.StatusBadRequest)
		return
	}
	ws, err := websocket.Accept(w, r, options)
	if err != nil {
		return // the client has been answered
	}
	below, _ := r.Context().Value(carrier{}).(net.Conn)
	nc := &webSocketConn{Conn: websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws: ws, below: below} // [MQTT-6.0.0-1]
	select {
	case l.conns <- nc:
	case <-l.closed:
		nc.Close()
	}
}

// asksForMQTT reports whether one of the sub-protocols that a client offers is
// one of ours.
func asksForMQTT(r *http.Request) bool {
	for _, offer := range r.Header.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(offer, ",") {
			if slices.Contains(subprotocols, strings.ToLower(strings.TrimSpace(name))) {
				return true
			}
		}
	}
	return false
}

func (l *webSocketListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-l.served:
		return nil, l.failed
	}
}

func (l *webSocketListener) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		err = l.srv.Close()
		<-l.served
	})
	return err
}

func (l *webSocketListener) Addr() net.Addr { return l.ln.Addr() }

// webSocketConn is a WebSocket as a stream.
type webSocketConn struct {
	net.Conn
	ws    *websocket.Conn
	below net.Conn
}

// Close ends it without waiting for the client: what there was to say has been
// said in MQTT.
func (c *webSocketConn) Close() error { return c.ws.CloseNow() }

func (c *webSocketConn) RemoteAddr() net.Addr {
	if c.below != nil {
		return c.below.RemoteAddr()
	}
	return c.Conn.RemoteAddr()
}

// closesOnDeadline: a read that meets its deadline ends the whole connection, so
// that what is still to be written comes first.
func (c *webSocketConn) closesOnDeadline() {}

func (c *webSocketConn) ConnectionState() tls.ConnectionState {
	if t, ok := c.below.(*tls.Conn); ok {
		return t.ConnectionState()
	}
	return tls.ConnectionState{}
}
