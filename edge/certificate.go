package edge

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// TLSFiles are the PEM files behind a listener with TLS.
type TLSFiles struct {
	Cert, Key string
	// ClientCA, if not empty, has the authorities of client certificates: only
	// clients with one are let in, and its common name is their user name.
	ClientCA string
}

// ServerTLS is a configuration for TLS 1.2 and 1.3 with what is in the files now.
// They are looked at for each handshake and read again when they have changed,
// so that a certificate is renewed without a restart. Files that cannot be used
// any more are logged, and those read before stay in use.
func ServerTLS(f TLSFiles, log *slog.Logger) (*tls.Config, error) {
	r := &renewal{files: f, log: log}
	if err := r.read(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current(), nil },
	}, nil
}

// renewal has the configuration as of the files' last change.
type renewal struct {
	files TLSFiles
	log   *slog.Logger

	mu     sync.Mutex
	stamp  [3]fileStamp // guarded by mu
	config *tls.Config  // guarded by mu; never changed once it is here
}

type fileStamp struct {
	changed time.Time
	size    int64
}

func (r *renewal) stamps() (s [3]fileStamp) {
	for i, name := range []string{r.files.Cert, r.files.Key, r.files.ClientCA} {
		if st, err := os.Stat(name); err == nil {
			s[i] = fileStamp{st.ModTime(), st.Size()}
		}
	}
	return s
}

func (r *renewal) current() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stamps() == r.stamp {
		return r.config
	}
	if err := r.readLocked(); err != nil {
		r.log.Error("the certificate has changed and cannot be used; the one before stays in use", "file", r.files.Cert, "error", err)
	} else {
		r.log.Info("certificate read again", "file", r.files.Cert)
	}
	return r.config
}

func (r *renewal) read() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.readLocked()
}

func (r *renewal) readLocked() error {
	r.stamp = r.stamps() // before reading: a change meanwhile is seen next time
	cert, err := tls.LoadX509KeyPair(r.files.Cert, r.files.Key)
	if err != nil {
		return fmt.Errorf("read the certificate and its key: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if r.files.ClientCA != "" {
		pem, err := os.ReadFile(r.files.ClientCA)
		if err != nil {
			return fmt.Errorf("read client_ca: %w", err)
		}
		c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !c.ClientCAs.AppendCertsFromPEM(pem) {
			return errors.New("client_ca has no certificate in PEM form")
		}
	}
	r.config = c
	return nil
}

// certified is the common name in the verified certificate of a client; ok is
// false if it has shown none.
func certified(nc any) (name string, ok bool) {
	c, isTLS := nc.(interface{ ConnectionState() tls.ConnectionState })
	if !isTLS {
		return "", false
	}
	st := c.ConnectionState()
	if len(st.VerifiedChains) == 0 || len(st.PeerCertificates) == 0 {
		return "", false
	}
	name = st.PeerCertificates[0].Subject.CommonName
	return name, name != ""
}
