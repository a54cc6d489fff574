package bridge

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// TLSOptions say how a far broker proves who it is, and how we do.
type TLSOptions struct {
	// CAFile has the certificates of the authorities that are trusted, in PEM;
	// empty: those of the system.
	CAFile string
	// CertFile and KeyFile are our own certificate, with those between it and
	// its authority behind it, and its key, in PEM; both or neither. All files
	// are read at each connect, so one that was renewed needs no restart.
	CertFile, KeyFile string
	// ServerName is what the broker's certificate must be for, and what is asked
	// for (SNI, RFC 6066, 3); empty: the host of the URL.
	ServerName string
	// ALPN is the protocol to ask for (RFC 7301), where the broker shares its
	// port with others; empty: none (http/1.1 for a WebSocket).
	ALPN string
	// Clock is what certificates are compared with, and whether it can be
	// relied on; nil: the system's, relied on.
	Clock func() (now time.Time, trusted bool)
}

// maxPEM bounds a file of certificates, in bytes: those of a whole system are a
// quarter of it.
const maxPEM = 1 << 20

// renewSoon is how long before the end of our own certificate it is told.
const renewSoon = 14 * 24 * time.Hour

// tlsClient makes TLS connections to one far broker, and remembers the session,
// which saves the certificates and a signature at the next handshake: about 4 kB
// of a data plan. It is safe for concurrent use.
type tlsClient struct {
	o TLSOptions

	mu     sync.Mutex
	cache  tls.ClientSessionCache
	loaded [sha256.Size]byte // of the files that cache belongs to
}

func newTLSClient(o TLSOptions) *tlsClient {
	if o.Clock == nil {
		o.Clock = func() (time.Time, bool) { return time.Now(), true }
	}
	return &tlsClient{o: o}
}

// config reads the files anew.
func (c *tlsClient) config(host string) (*tls.Config, error) {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host,
		Time:       func() time.Time { now, _ := c.o.Clock(); return now },
	}
	if c.o.ServerName != "" {
		cfg.ServerName = c.o.ServerName
	}
	if c.o.ALPN != "" {
		cfg.NextProtos = []string{c.o.ALPN}
	}
	sum := sha256.New()
	if c.o.CAFile != "" {
		pem, err := readPEM("ca", c.o.CAFile, sum)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: there is no certificate in %s: it must have one in PEM, between lines of BEGIN CERTIFICATE and END CERTIFICATE", c.o.CAFile)
		}
	}
	if c.o.CertFile != "" || c.o.KeyFile != "" {
		cert, err := readPEM("cert", c.o.CertFile, sum)
		if err != nil {
			return nil, err
		}
		key, err := readPEM("key", c.o.KeyFile, sum)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("cert and key: %s and %s are no pair in PEM: %w: check that both belong together", c.o.CertFile, c.o.KeyFile, err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	cfg.ClientSessionCache = c.sessions([sha256.Size]byte(sum.Sum(nil)))
	return cfg, nil
}

// sessions is the cache for the files that have this sum: a session that was
// made under others must not be taken up again.
func (c *tlsClient) sessions(sum [sha256.Size]byte) tls.ClientSessionCache {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cache == nil || c.loaded != sum {
		c.cache, c.loaded = tls.NewLRUClientSessionCache(2), sum
	}
	return c.cache
}

// readPEM reads a small regular file and adds it to sum.
func readPEM(key, name string, sum io.Writer) ([]byte, error) {
	info, err := os.Stat(name) // a pipe or a device would be waited for
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	var data []byte
	if err == nil {
		var f *os.File
		if f, err = os.Open(name); err == nil {
			data, err = io.ReadAll(io.LimitReader(f, maxPEM+1))
			f.Close()
		}
	}
	if err == nil && len(data) > maxPEM {
		err = fmt.Errorf("it has more than %d bytes", maxPEM)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s cannot be read: %w: put the file there, readable by the gateway", key, name, err)
	}
	fmt.Fprintf(sum, "%s %d\n", key, len(data))
	_, _ = sum.Write(data)
	return data, nil
}

// expiring is when our own certificate ends, if that is soon.
func (c *tlsClient) expiring(cfg *tls.Config) (end time.Time, soon bool) {
	if len(cfg.Certificates) == 0 || cfg.Certificates[0].Leaf == nil {
		return end, false
	}
	end = cfg.Certificates[0].Leaf.NotAfter
	now, _ := c.o.Clock()
	return end, now.Add(renewSoon).After(end)
}

// handshake makes a TLS connection of wire, within ctx. wire is closed if there
// is an error.
func (c *tlsClient) handshake(ctx context.Context, wire net.Conn, cfg *tls.Config) (net.Conn, error) {
	t := tls.Client(wire, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		wire.Close()
		if ctx.Err() != nil {
			err = ctx.Err() // rather than that wire was closed under it
		}
		return nil, err
	}
	return newTLSWire(t, wire), nil
}

// tlsWire is a TLS connection that tells why the broker has ended it, and whose
// Close does not wait for a peer that has stopped reading: crypto/tls gives the
// last alert five seconds.
type tlsWire struct {
	*tls.Conn
	wire net.Conn

	once  sync.Once
	ended chan struct{} // closed after the first error of Read
	err   error         // that error
}

func newTLSWire(t *tls.Conn, wire net.Conn) *tlsWire {
	return &tlsWire{Conn: t, wire: wire, ended: make(chan struct{})}
}

func (t *tlsWire) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if err != nil {
		t.once.Do(func() { t.err = err; close(t.ended) })
	}
	return n, err
}

// Write prefers the broker's words: where it has closed the connection with an
// alert, a write may fail before the alert was read.
func (t *tlsWire) Write(p []byte) (int, error) {
	n, err := t.Conn.Write(p)
	if err == nil || isTimeout(err) {
		return n, err
	}
	select {
	case <-t.ended:
		if isAlert(t.err) {
			err = t.err
		}
	case <-time.After(linkCloseTime):
	}
	return n, err
}

func (t *tlsWire) Close() error {
	killer := time.AfterFunc(linkCloseTime, func() { t.wire.Close() })
	defer killer.Stop()
	return t.Conn.Close()
}
