package configs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// renewSoon is how long before the end of a certificate it is told.
const renewSoon = 14 * 24 * time.Hour

// security checks what an upstream says of TLS.
func (k *checker) security(u Upstream, path string) {
	if !slices.Contains([]string{"tcp", "mqtt"}, scheme(u.URL)) && slices.ContainsFunc(k.c.Modems, func(m Modem) bool { return m.Name == u.Via && !m.OwnClient() }) {
		k.fault(path+".url", "the client inside a modem carries tcp:// only; write that, or mode = \"socket\" in [[modem]] if it has sockets")
	}
	if u.TLS() {
		return
	}
	if u.ServerName != "" {
		k.fault(path+".server_name", "there is no TLS in this url; write ssl:// or wss://, or take this line out")
	}
	if u.ALPN != "" {
		k.fault(path+".alpn", "there is no TLS in this url; write ssl:// or wss://, or take this line out")
	}
}

// pair checks that the files for TLS go together and are used.
func (k *checker) pair(b *Bridge, path string) {
	switch {
	case b.Cert != "" && b.Key == "":
		k.missing(path+".key", "is missing, and cert is of no use without it; write key as well")
	case b.Key != "" && b.Cert == "":
		k.missing(path+".cert", "is missing, and key is of no use without it; write cert as well")
	}
	if slices.ContainsFunc(b.Upstreams, Upstream.TLS) {
		return
	}
	for _, f := range []struct{ key, name string }{{"ca", b.CA}, {"cert", b.Cert}, {"key", b.Key}} {
		if f.name != "" {
			k.warn(path+"."+f.key, "no upstream of this bridge has TLS, so it is not used; write ssl:// or wss:// in url")
		}
	}
}

// certificates reads the files of every bridge and listener, so that a mistake
// in them is told before the gateway is on a mast. They are read again at each
// connect of a bridge, and when they have changed.
func (k *checker) certificates(world outside) {
	for i := range k.c.Bridges {
		b, path := &k.c.Bridges[i], fmt.Sprintf("bridge[%d]", i)
		k.authority(world, path+".ca", b.CA)
		k.certificate(world, path, b.Cert, b.Key)
	}
	for i := range k.c.Listeners {
		l, path := &k.c.Listeners[i], fmt.Sprintf("listener[%d]", i)
		k.authority(world, path+".client_ca", l.ClientCA)
		k.certificate(world, path, l.Cert, l.Key)
	}
}

func (k *checker) authority(world outside, path, file string) {
	if ca, ok := k.pem(world, path, file, false); ok && !x509.NewCertPool().AppendCertsFromPEM([]byte(ca)) {
		k.fault(path, "there is no certificate in %s; it must have one in PEM (BEGIN CERTIFICATE)", quote(file))
	}
}

func (k *checker) certificate(world outside, path, certFile, keyFile string) {
	cert, ok := k.pem(world, path+".cert", certFile, false)
	key, okKey := k.pem(world, path+".key", keyFile, true)
	if !ok || !okKey {
		return
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	switch {
	case err != nil:
		k.fault(path+".cert", "it and key are no pair in PEM: %v; write two files that belong together", err)
	case time.Now().After(pair.Leaf.NotAfter):
		k.warn(path+".cert", "it has expired on %s; renew it", pair.Leaf.NotAfter.UTC().Format(time.DateOnly))
	case time.Now().Add(renewSoon).After(pair.Leaf.NotAfter):
		k.warn(path+".cert", "it ends on %s; renew it", pair.Leaf.NotAfter.UTC().Format(time.DateOnly))
	}
}

// pem reads one file; ok is false if there is none or it cannot be read.
func (k *checker) pem(world outside, path, name string, secret bool) (text string, ok bool) {
	if name == "" || k.faulty[path] {
		return "", false
	}
	text, open, err := world.readPEM(name)
	if err != nil {
		k.fault(path, "%v; put the file there, readable by the gateway", err)
		return "", false
	}
	if secret && open {
		k.warn(path, "every user of this machine can read the file; run chmod 600 %s", name)
	}
	return text, true
}
