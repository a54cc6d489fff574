package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// This file puts into words what goes wrong with TLS, each with what to do.

// day is how a moment is told: a certificate is not about seconds.
const day = "2006-01-02 15:04 MST"

// explain says why there was no TLS connection to e.
func (c *tlsClient) explain(err error, e endpoint, cfg *tls.Config, timeout time.Duration) error {
	name := cfg.ServerName
	var header tls.RecordHeaderError
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var noRoots x509.SystemRootsError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%s: %w", c.wrongTime(invalid.Cert, name), err)
	case errors.As(err, &hostname):
		return fmt.Errorf("the certificate of the broker is for %s, not for %q: write one of these names in url, or in server_name: %w",
			namesOf(hostname.Certificate), name, err)
	case errors.As(err, &unknown):
		return fmt.Errorf("%s: %w", c.notTrusted(unknown.Cert), err)
	case errors.As(err, &noRoots):
		return fmt.Errorf("this board has no certificates of authorities to trust: install the package ca-certificates, or set ca: %w", err)
	case errors.As(err, &header):
		return fmt.Errorf("%s does not speak TLS: check the port in url, which is usually 8883, or write tcp:// for a connection without TLS: %w", e.address(), err)
	case isTimeout(err) || errors.Is(err, context.Canceled):
		return fmt.Errorf("%s accepts the connection but does not finish the TLS handshake within %v: is it a TLS port, and is the link good enough? %w", e.address(), timeout, err)
	}
	if words := c.explainAlert(err, cfg); words != nil {
		return words
	}
	if isCut(err) {
		return fmt.Errorf("%s closes the connection in the middle of the TLS handshake: is it a TLS port, and does it want a client certificate (cert and key)? %w", e.address(), err)
	}
	return fmt.Errorf("TLS with %s: %w", e.address(), err)
}

// wrongTime says what a certificate has against the clock.
func (c *tlsClient) wrongTime(cert *x509.Certificate, name string) string {
	now, trusted := c.o.Clock()
	clock := fmt.Sprintf("this board's clock says %s", now.UTC().Format(day))
	if !trusted {
		clock += " and is not synchronised"
	}
	if now.Before(cert.NotBefore) {
		return fmt.Sprintf("the certificate for %q is valid only from %s, and %s: set the clock, or check that NTP gets through", name, cert.NotBefore.UTC().Format(day), clock)
	}
	do := "whoever runs the broker must renew it"
	if !trusted {
		do = "check the clock first; if it is right, " + do
	}
	return fmt.Sprintf("the certificate for %q, or one above it, has expired on %s, and %s: %s", name, cert.NotAfter.UTC().Format(day), clock, do)
}

func (c *tlsClient) notTrusted(cert *x509.Certificate) string {
	by := "an unknown authority"
	if cert != nil {
		by = fmt.Sprintf("%q", cert.Issuer.String())
		if cert.Issuer.String() == cert.Subject.String() {
			by = "itself"
		}
	}
	if c.o.CAFile != "" {
		return fmt.Sprintf("the certificate of the broker is signed by %s, which is not in %s: put the certificate of the broker's authority there", by, c.o.CAFile)
	}
	return fmt.Sprintf("the certificate of the broker is signed by %s, which this board does not trust: set ca to a file with the certificate of the broker's authority", by)
}

// explainAlert says why the broker ends a TLS connection, also later than the
// handshake: in TLS 1.3 a client certificate is refused after it (RFC 8446, 4.4).
// It is nil if err is no alert.
func (c *tlsClient) explainAlert(err error, cfg *tls.Config) error {
	if !isAlert(err) {
		return nil
	}
	var op *net.OpError
	errors.As(err, &op)
	own := "set cert and key"
	if len(cfg.Certificates) > 0 {
		own = fmt.Sprintf("check that its authority has signed %s", c.o.CertFile)
		if end, soon := c.expiring(cfg); soon {
			own = fmt.Sprintf("%s ends on %s, renew it", c.o.CertFile, end.UTC().Format(day))
		}
	}
	switch text := op.Err.Error(); {
	case strings.HasSuffix(text, "certificate required"):
		return fmt.Errorf("the broker wants a client certificate: %s: %w", own, err)
	case strings.Contains(text, "certificate"): // bad, unsupported, revoked, expired, unknown, unknown authority
		return fmt.Errorf("the broker does not take the client certificate: %s: %w", own, err)
	case strings.HasSuffix(text, "unrecognized name"):
		return fmt.Errorf("the broker has no certificate for %q: check the host in url, or set server_name: %w", cfg.ServerName, err)
	case strings.HasSuffix(text, "no application protocol"):
		return fmt.Errorf("the broker does not know the protocol %q: check alpn: %w", c.o.ALPN, err)
	case strings.HasSuffix(text, "protocol version not supported"):
		return fmt.Errorf("the broker speaks a TLS older than 1.2, which is not safe: it must be renewed: %w", err)
	}
	return fmt.Errorf("the broker ends the TLS connection: does it want a client certificate, and is the port right? %w", err)
}

// isAlert reports whether err is an alert of the far side.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func namesOf(cert *x509.Certificate) string {
	var names []string
	for _, n := range cert.DNSNames {
		names = append(names, fmt.Sprintf("%q", n))
	}
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	switch {
	case len(names) == 0:
		return "no name at all (it has no subjectAltName)"
	case len(names) > 5:
		names = append(names[:5], "...")
	}
	return strings.Join(names, ", ")
}
