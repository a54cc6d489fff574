package configs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"
)

// certificate is one that signs itself and ends at the given time, with its key.
func certificate(t *testing.T, ends time.Time) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: ends.Add(-1000 * time.Hour), NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

func TestWhatAnUpstreamSaysOfItsWireIsLookedAt(t *testing.T) {
	good, goodKey := certificate(t, time.Now().Add(1000*time.Hour))
	old, oldKey := certificate(t, time.Now().Add(-time.Hour))
	soon, soonKey := certificate(t, time.Now().Add(24*time.Hour))
	files := map[string]string{
		"/etc/h/good.crt": good, "/etc/h/good.key": goodKey, "/etc/h/old.crt": old, "/etc/h/old.key": oldKey,
		"/etc/h/soon.crt": soon, "/etc/h/soon.key": soonKey, "/abs/ca.pem": good, "/etc/h/junk": "junk",
	}
	world := outside{readPEM: func(name string) (string, bool, error) {
		text, ok := files[name]
		if !ok {
			return "", false, errors.New(name + " is not there")
		}
		return text, name == "/etc/h/soon.key", nil
	}}
	for _, tc := range []struct{ bridge, upstream, fault, warning string }{
		{`ca = "/abs/ca.pem"`, `url = "ssl://h"`, "", ""},
		{`cert = "good.crt"; key = "good.key"`, `url = "wss://h"; server_name = "x"; alpn = "mqtt"`, "", ""},
		{`ca = "none"`, `url = "ssl://h"`, "/etc/h/none is not there; put the file there", ""},
		{`ca = "junk"`, `url = "ssl://h"`, "there is no certificate in", ""},
		{`cert = "good.crt"`, `url = "ssl://h"`, "write key as well", ""},
		{`key = "good.key"`, `url = "ssl://h"`, "write cert as well", ""},
		{`cert = "good.crt"; key = "old.key"`, `url = "ssl://h"`, "are no pair", ""},
		{`cert = "old.crt"; key = "old.key"`, `url = "ssl://h"`, "", "it has expired on"},
		{`cert = "soon.crt"; key = "soon.key"`, `url = "ssl://h"`, "", "renew it|chmod 600"},
		{`ca = "/abs/ca.pem"`, `url = "tcp://h"`, "", "so it is not used"},
		{``, `url = "tcp://h"; server_name = "x"`, "there is no TLS in this url", ""},
		{``, `url = "ws://h"; alpn = "x"`, "there is no TLS in this url", ""},
		{``, `url = "tcp://h"; interface = "ppp0"`, "", ""},
		{``, `url = "tcp://h"; interface = "a b"`, "cannot be the name of an interface", ""},
		{``, `url = "tcp://h"; interface = "ppp0"; via = "lte"`, "keep one of via and interface", ""},
		{``, `url = "ssl://h"; via = "lte"`, "the client inside a modem carries tcp:// only", ""},
	} {
		text := "[[modem]]\nname = 'lte'\nport = '/dev/ttyUSB2'\n[[bridge]]\nname = 'b'\n" + strings.ReplaceAll(tc.bridge, "; ", "\n") +
			"\n[[bridge.upstream]]\n" + strings.ReplaceAll(tc.upstream, "; ", "\n") +
			"\n[[bridge.route]]\ndirection = 'out'\ntopic = '#'\n[[bridge]]\nname = 'm'\n[[bridge.upstream]]\nurl = 'tcp://o'\nvia = 'lte'\n[[bridge.route]]\ndirection = 'out'\ntopic = '#'\n"
		_, warnings, err := load("/etc/h/test.toml", []byte(text), false, world)
		if tc.fault == "" && err != nil || tc.fault != "" && (err == nil || !strings.Contains(err.Error(), tc.fault)) {
			t.Errorf("%s, %s: %v; want %q", tc.bridge, tc.upstream, err, tc.fault)
		}
		all := strings.Join(warnings, "\n")
		for _, w := range strings.Split(tc.warning, "|") {
			if !strings.Contains(all, w) || tc.warning == "" && all != "" {
				t.Errorf("%s, %s: warnings %q; want %q", tc.bridge, tc.upstream, all, w)
			}
		}
	}
}
