package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// selfSigned writes a certificate for localhost, which is its own authority,
// and its key.
func selfSigned(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

const pythonWebSocket = `
import sys, threading
import paho.mqtt.client as mqtt
port, ca, version = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
done = threading.Event()
got = []
def on_message(c, u, m):
    got.append(int(m.payload))
    if len(got) == 100: done.set()
def on_subscribe(c, *a):
    for i in range(100): c.publish("ws/x", "%d" % i, qos=1)
c = mqtt.Client("", transport="websockets", protocol=version)
c.ws_set_options(path="/mqtt")
if ca: c.tls_set(ca)
c.on_connect = lambda c, *a: c.subscribe("ws/x", 1)
c.on_subscribe, c.on_message = on_subscribe, on_message
c.connect("localhost", port)
c.loop_start()
assert done.wait(30), "received %d of 100" % len(got)
assert got == list(range(100))
c.disconnect()
print("ok")
`

func TestClientsComeOverEveryTransport(t *testing.T) {
	pub, sub := tool(t, "mosquitto_pub"), tool(t, "mosquitto_sub")
	needsPaho(t)
	cert, key := selfSigned(t)
	secure, ws, wss, socket := freePort(t), freePort(t), freePort(t), socketPath(t)
	g := newHoldfast(t, fmt.Sprintf(`
[[listener]]
address = %q
transport = "tls"
cert = %[2]q
key = %[3]q
[[listener]]
address = %[4]q
transport = "ws"
[[listener]]
address = %[5]q
transport = "wss"
cert = %[2]q
key = %[3]q
[[listener]]
address = %[6]q
transport = "unix"
`, secure, cert, key, ws, wss, socket))
	g.start()
	port := func(address string) string {
		_, p, _ := net.SplitHostPort(address)
		return p
	}
	tls := []string{"-h", "localhost", "-p", port(secure), "--cafile", cert, "-q", "1", "-t", "t/x"}
	command(t, sub, append(tls, "-i", "app", "-c", "-E")...)
	command(t, pub, append(tls, "-V", "mqttv5", "-m", "over TLS")...)
	command(t, pub, "--unix", socket, "-q", "1", "-t", "t/x", "-m", "over a unix socket")
	if got := command(t, sub, append(tls, "-i", "app", "-c", "-C", "2", "-W", "20")...); got != "over TLS\nover a unix socket\n" {
		t.Errorf("received %q", got)
	}
	for _, version := range []string{"4", "5"} {
		for address, ca := range map[string]string{ws: "", wss: cert} {
			if out := command(t, python3, "-c", pythonWebSocket, port(address), ca, version); strings.TrimSpace(out) != "ok" {
				t.Fatalf("printed %q", out)
			}
		}
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("socket %v, error %v", st, err)
	}
}
