package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/edge/packet"
	"holdfast/modem/sim"
)

// The mistakes that are made most. Each must be named, with what to do, by
// holdfast status (or by check or run, where nothing runs yet). The clock in 1970
// and the full disk cannot be made here, and a missing SIM takes half a minute:
// TestWarningsSayWhatToDo, and the bring-up of modem, have them.

const mistakenBridge = `
[[bridge]]
name = "cloud"
%s
  [[bridge.upstream]]
  url = %q
%s
  [[bridge.route]]
  direction = "both"
  topic = "a/#"
  remote_prefix = "x/"
`

// leadsTo waits until holdfast status has all of the words.
func (g *holdfast) leadsTo(words ...string) {
	g.t.Helper()
	var last said
	eventually(g.t, "status says "+strings.Join(words, " ... "), func() bool {
		last = holdfastCommand(g.t, "", "status", "-c", g.file())
		for _, w := range words {
			if !strings.Contains(last.out+last.errors, w) {
				return false
			}
		}
		return true
	}, func() string { return last.out + last.errors }, g.tail)
}

func mistaken(t *testing.T, config string) *holdfast {
	t.Helper()
	g := newHoldfast(t, config)
	g.start()
	return g
}

func TestMistakeBrokerUnreachable(t *testing.T) {
	t.Parallel()
	g := mistaken(t, fmt.Sprintf(mistakenBridge, "", "tcp://"+freePort(t), ""))
	g.leadsTo("WARNING bridge cloud has no connection", "refuses connections: is the broker running there")
}

// answering is a far broker that answers each first packet of a connection with
// the given bytes, and every SUBSCRIBE with more.
func answering(t *testing.T, cfg *tls.Config, first, more []byte) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = ln.Addr().String()
	if cfg != nil {
		ln = tls.NewListener(ln, cfg)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{} // guarded by mu
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			serving.Go(func() {
				defer c.Close()
				b, answer, known := make([]byte, 4096), first, false
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					if known && b[0] != 0x82 {
						continue
					}
					known = true
					out := append([]byte(nil), answer...)
					if answer = more; len(out) >= 4 && out[0] == 0x90 && n >= 4 {
						copy(out[2:4], b[2:4]) // the packet identifier of the SUBSCRIBE
					}
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return address
}

func TestMistakeWrongPassword(t *testing.T) {
	t.Parallel()
	far := answering(t, nil, []byte{0x20, 2, 0, 4}, nil) // CONNACK, bad user name or password
	g := mistaken(t, fmt.Sprintf(mistakenBridge, "username = \"barn\"\npassword = \"wrong\"", "tcp://"+far, ""))
	g.leadsTo("WARNING bridge cloud has no connection", `refuses the login of user "barn"`, "check username and password")
}

func TestMistakeTopicRefused(t *testing.T) {
	t.Parallel()
	far := answering(t, nil, []byte{0x20, 2, 0, 0}, []byte{0x90, 3, 0, 0, 0x80}) // SUBACK, failure
	g := mistaken(t, fmt.Sprintf(mistakenBridge, "", "tcp://"+far, ""))
	g.leadsTo("does not permit the subscription to", "check what it lets this user")
}

func TestMistakeExpiredCertificate(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "far"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	far := answering(t, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, []byte{0x20, 2, 0, 0}, nil)
	g := mistaken(t, fmt.Sprintf(mistakenBridge, fmt.Sprintf("ca = %q", ca), "ssl://"+far, ""))
	g.leadsTo("WARNING bridge cloud has no connection", "has expired on")
}

func mistakenModem(port, broker string) string {
	return fmt.Sprintf("[[modem]]\nname = \"lte\"\nport = %q\n", port) + fmt.Sprintf(mistakenBridge, "", "tcp://"+broker, `  via = "lte"`)
}

func TestMistakeWrongPort(t *testing.T) {
	t.Parallel()
	g := mistaken(t, mistakenModem("/dev/ttyNONE", "127.0.0.1:1"))
	g.leadsTo("WARNING modem lte is not ready", "there is no port /dev/ttyNONE", "check that the module is plugged in")
}

func TestMistakeModuleInUse(t *testing.T) {
	t.Parallel()
	m := newModule(t, sim.DialectECMT, sim.SocketsNone)
	f, err := os.OpenFile(m.Path(), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	g := mistaken(t, mistakenModem(m.Path(), "127.0.0.1:1"))
	g.leadsTo("WARNING modem lte is not ready", "is in use by e2e.test (process ", "stop it first")
}

func TestMistakePortTaken(t *testing.T) {
	t.Parallel()
	g := newHoldfast(t, "")
	ln, err := net.Listen("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	g.process.start()
	if err := <-g.done; err == nil {
		t.Error("it runs without its listener")
	}
	g.cmd = nil
	if said := g.tail(); !strings.Contains(said, "listen on "+g.address) || !strings.Contains(said, "choose another address in [[listener]]") {
		t.Error(said)
	}
	g.leadsTo("Another program has "+g.address, "stop it, or choose another address")
}

func TestMistakeWrongPasswordOfADevice(t *testing.T) {
	t.Parallel()
	pub := tool(t, "mosquitto_pub")
	g := newHoldfast(t, "")
	if s := holdfastCommand(t, "sesame\n", "passwd", "-c", g.file(), "pump"); s.code != 0 {
		t.Fatal(s)
	}
	g.start()
	send := func(password string) (string, error) {
		out, err := exec.Command(pub, append(hostAndPort(t, g.address), "-u", "pump", "-P", password, "-t", "a", "-m", "x", "-q", "1")...).CombinedOutput()
		return string(out), err
	}
	if out, err := send("sesame"); err != nil {
		t.Fatal(err, out)
	}
	_, port, _ := strings.Cut(g.address, ":")
	if s := holdfastCommand(t, "", "pub", "-p", port, "-u", "pump", "-P", "sesame", "-t", "a", "-m", "x", "-q", "1"); s.code != 0 {
		t.Error(s)
	}
	if s := holdfastCommand(t, "", "pub", "-p", port, "-u", "pump", "-P", "x", "-t", "a", "-m", "x"); s.code != 1 || !strings.Contains(s.errors, "return code 4: check -u and its password") {
		t.Error(s)
	}
	if out, err := send("Sesame"); err == nil || !strings.Contains(out, "not authorised") && !strings.Contains(out, "bad user name or password") {
		t.Errorf("mosquitto_pub with a wrong password: %v %s", err, out)
	}
	eventually(t, "the log says so", func() bool {
		return strings.Contains(g.tail(), "wrong password of user") && strings.Contains(g.tail(), "holdfast passwd")
	}, g.tail)
	if said := g.tail(); strings.Contains(strings.ToLower(said), "sesame") || strings.Contains(said, "argon2id") {
		t.Errorf("the log has a secret: %s", said)
	}
}

func TestMistakeMisspeltKey(t *testing.T) {
	t.Parallel()
	g := newHoldfast(t, "[storage]\nmax_byte = \"1GiB\"\n")
	for _, command := range []string{"check", "run", "status"} {
		s := holdfastCommand(t, "", command, "-c", g.file())
		if s.code != 2 || !strings.Contains(s.errors, "gateway.toml:10: ") || !strings.Contains(s.errors, "max_bytes") {
			t.Errorf("%s: %d %s", command, s.code, s.errors)
		}
	}
}

func TestMistakeTwoDevicesWithOneIdentifier(t *testing.T) {
	t.Parallel()
	g := mistaken(t, "")
	for range 5 {
		connect(t, g.address, packet.Connect{ClientID: "pump", CleanStart: true})
	}
	g.leadsTo(`WARNING two devices use the client identifier "pump"`, "give each an identifier of its own")
}
