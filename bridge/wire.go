package bridge

import (
	"context"
	"log/slog"
	"net"
	"time"
)

// wireMaker makes the network connection to one far broker: TCP by a Dialer,
// TLS on top of it, WebSocket on top of that, as the URL says. It is kept over
// connections, for the TLS session. All of it ends with ctx.
type wireMaker struct {
	endpoint
	dial    Dialer
	tls     *tlsClient
	timeout time.Duration // for the words of errors
	log     *slog.Logger
}

// open returns a connection that is ready for CONNECT. words explains an error
// that ends it before the login is answered; nil if it has nothing to say.
func (m *wireMaker) open(ctx context.Context) (wire net.Conn, words func(error) error, err error) {
	words = func(error) error { return nil }
	if !m.endpoint.tls {
		if wire, err = m.dialTCP(ctx); err != nil {
			return nil, nil, err
		}
	} else {
		// The files first: a mistake in them should not cost a connection.
		cfg, err := m.tls.config(m.host)
		if err != nil {
			return nil, nil, err
		}
		if m.websocket && len(cfg.NextProtos) == 0 {
			cfg.NextProtos = []string{"http/1.1"}
		}
		if end, soon := m.tls.expiring(cfg); soon {
			m.log.Warn("our own certificate ends soon: renew it", slog.String("cert", m.tls.o.CertFile), slog.Time("ends", end))
		}
		if wire, err = m.dialTCP(ctx); err != nil {
			return nil, nil, err
		}
		if wire, err = m.tls.handshake(ctx, wire, cfg); err != nil {
			return nil, nil, m.tls.explain(err, m.endpoint, cfg, m.timeout)
		}
		words = func(err error) error { return m.tls.explainAlert(err, cfg) }
	}
	if m.websocket {
		if wire, err = openWebSocket(ctx, wire, m.endpoint); err != nil {
			return nil, nil, m.explainSocket(err, words)
		}
	}
	return wire, words, nil
}

func (m *wireMaker) dialTCP(ctx context.Context) (net.Conn, error) {
	wire, err := m.dial(ctx, "tcp", m.address())
	if err != nil {
		return nil, explainDial(err, m.address(), m.timeout)
	}
	return wire, nil
}
