package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// maxHandshakeHeader bounds the answer to an upgrade, in bytes.
const maxHandshakeHeader = 16 << 10

// errUpgrade marks an answer that is no WebSocket.
var errUpgrade = errors.New("no WebSocket")

// openWebSocket makes MQTT over WebSocket of wire (MQTT 3.1.1, 6.0). wire is
// closed if there is an error.
func openWebSocket(ctx context.Context, wire net.Conn, e endpoint) (net.Conn, error) {
	given := false
	transport := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			if given {
				return nil, errors.New("only one connection is made")
			}
			given = true
			return wire, nil
		},
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxHandshakeHeader,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport: transport,
		// Another place may be without TLS, or one that the operator has not
		// chosen.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	// TLS, where wanted, is under wire already: here the scheme is always ws.
	c, answer, err := websocket.Dial(ctx, "ws://"+e.address()+e.path, &websocket.DialOptions{
		HTTPClient: client, Subprotocols: []string{"mqtt"},
	})
	if err != nil {
		wire.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if answer != nil {
			return nil, explainUpgrade(answer, e)
		}
		return nil, err
	}
	life, stop := context.WithCancel(context.Background()) // Close ends it
	return &socketWire{Conn: websocket.NetConn(life, c, websocket.MessageBinary), c: c, wire: wire, stop: stop}, nil
}

// explainUpgrade says what an answer means that is no WebSocket.
func explainUpgrade(answer *http.Response, e endpoint) error {
	switch code := answer.StatusCode; {
	case code == http.StatusNotFound:
		return fmt.Errorf("%s has nothing at %s (HTTP 404): check the path in url; many brokers have %s: %w", e.address(), e.path, defaultPath, errUpgrade)
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fmt.Errorf("%s does not permit a WebSocket at %s (HTTP %d): ask whoever runs it: %w", e.address(), e.path, code, errUpgrade)
	case code >= 300 && code < 400:
		return fmt.Errorf("%s sends elsewhere, to %q (HTTP %d): write the final address in url: %w", e.address(), answer.Header.Get("Location"), code, errUpgrade)
	case code >= 500:
		return fmt.Errorf("%s has a server that does not work now (HTTP %d): it is tried again: %w", e.address(), code, errUpgrade)
	default:
		return fmt.Errorf("%s is not the WebSocket of a broker (HTTP %d at %s): check the port and the path in url: %w", e.address(), code, e.path, errUpgrade)
	}
}

// explainSocket says why there is no WebSocket. alert explains that of TLS below.
func (m *wireMaker) explainSocket(err error, alert func(error) error) error {
	if words := alert(err); words != nil {
		return words
	}
	switch {
	case errors.Is(err, errUpgrade):
		return err
	case isTimeout(err):
		return fmt.Errorf("%s accepts the connection but does not answer the WebSocket request within %v: is it a WebSocket port, and is the link good enough? %w", m.address(), m.timeout, err)
	}
	return fmt.Errorf("%s does not answer like the WebSocket of a broker: check the port and the path in url, and whether it wants wss:// or ws://: %w", m.address(), err)
}

// socketWire is a WebSocket as a link wants its wire. In the library the end of
// a deadline ends the whole connection, so deadlines are those of the wire
// below; that for reading is left out, because a read that ends by it would
// take away what is still to be written.
type socketWire struct {
	net.Conn
	c    *websocket.Conn
	wire net.Conn
	stop context.CancelFunc
}

func (s *socketWire) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil && websocket.CloseStatus(err) != -1 {
		err = fmt.Errorf("%w (%w)", io.EOF, err)
	}
	return n, err
}

func (s *socketWire) SetDeadline(t time.Time) error      { return s.SetWriteDeadline(t) }
func (s *socketWire) SetReadDeadline(time.Time) error    { return nil }
func (s *socketWire) SetWriteDeadline(t time.Time) error { return s.wire.SetWriteDeadline(t) }

// Close does not wait for the other side to say good-bye: MQTT has done so.
func (s *socketWire) Close() error {
	err := s.c.CloseNow()
	s.stop()
	return err
}
