package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net"
)

// cfgSSL is AT+ECMTCFG="ssl","psk","key","id" or "ecc","key" or "ca","base64
// of the certificate, without its armour"[,"host name"].
func (m *Module) cfgSSL(a *args) outcome {
	kind := a.str(8)
	var want int
	switch kind {
	case "psk":
		want = 2
	case "ecc":
		want = 1
	case "ca":
		want = 1
		if !a.bad && a.s != "" {
			want = -1 // one or two
		}
	default:
		return notAllowed
	}
	v := []string{kind}
	for a.more() {
		v = append(v, a.str(4000))
	}
	n := len(v) - 1
	if !a.ok() || want >= 0 && n != want || want < 0 && n != 1 && n != 2 {
		return m.refuseLimit(a)
	}
	m.mq.cfg.ssl = v
	return done
}

var errNoSuchTLS = errors.New("sim: only the certificate kind of TLS is simulated")

// secure wraps c in TLS if the configuration asks for it. The clock is the
// machine's: a module without the network's time would refuse all.
func secure(ctx context.Context, c net.Conn, ssl []string, host string) (net.Conn, error) {
	if len(ssl) == 0 {
		return c, nil
	}
	if ssl[0] != "ca" {
		return nil, errNoSuchTLS
	}
	der, err := base64.StdEncoding.DecodeString(ssl[1])
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	k := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: host}
	k.RootCAs.AddCert(ca)
	if len(ssl) > 2 {
		k.ServerName = ssl[2]
	}
	t := tls.Client(c, k)
	return t, t.HandshakeContext(ctx)
}
