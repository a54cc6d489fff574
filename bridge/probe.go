package bridge

import (
	"context"
	"crypto/tls"
	"fmt"
)

// ProbeTLS makes a TLS connection to an upstream, and closes it. found says what was
// agreed upon, and until when the broker's certificate holds. An error says what to
// do. Of o it uses URL, TLS, Dial, which must be given, and ConnectTimeout, for the
// words of an error: it is ctx that bounds it.
func ProbeTLS(ctx context.Context, o ClientOptions) (found string, err error) {
	e, err := parseURL(o.URL)
	if err != nil {
		return "", err
	}
	setDefault(&o.ConnectTimeout, defaultConnectTimeout)
	c := newTLSClient(o.TLS)
	cfg, err := c.config(e.host)
	if err != nil {
		return "", err
	}
	wire, err := o.Dial(ctx, "tcp", e.address())
	if err != nil {
		return "", explainDial(err, e.address(), o.ConnectTimeout)
	}
	t := tls.Client(wire, cfg)
	defer wire.Close()
	if err := t.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err() // rather than that wire was closed under it
		}
		return "", c.explain(err, e, cfg, o.ConnectTimeout)
	}
	state := t.ConnectionState()
	cert := state.PeerCertificates[0] // there is one, or there was no handshake
	return fmt.Sprintf("%s, a certificate for %s until %s", tls.VersionName(state.Version), namesOf(cert), cert.NotAfter.UTC().Format(day)), nil
}
