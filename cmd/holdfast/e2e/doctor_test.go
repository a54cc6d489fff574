package e2e

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/modem/sim"
)

const doctorConfig = `
[gateway]
id = "board-%d"
data_dir = %q
[[modem]]
name = "lte"
port = %q
mode = %q
%s
[[bridge]]
name = "cloud"
%s
  [[bridge.upstream]]
  url = "%s"
  via = "lte"
  [[bridge.route]]
  direction = "out"
  topic = "s/#"
`

// The doctor names the layer of each fault, says what to try, and ends there.
func TestTheDoctorNamesTheFault(t *testing.T) {
	secure := freePort(t)
	port := func(address string) string { _, port, _ := strings.Cut(address, ":"); return port }
	cert, key := selfSigned(t)
	up := newMosquitto(t, "listener "+port(secure)+" 127.0.0.1", "certfile "+cert, "keyfile "+key)
	up.start()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for i, c := range []struct {
		name  string
		o     sim.Options
		mode  string
		keys  string // of [[modem]]
		url   string
		ca    bool
		harm  func(m *sim.Module)
		layer string // the last one
		words string // "" is all well
	}{
		{name: "all well with a socket", mode: "auto", layer: "echo"},
		{name: "all well with ecmt", mode: "mqtt", layer: "echo"},
		{name: "all well with qmt", o: sim.Options{Dialect: sim.DialectQMT}, mode: "mqtt", layer: "echo"},
		{name: "no port", layer: "port", words: "there is no port"},
		{name: "no SIM", o: sim.Options{NoSIM: true}, layer: "sim", words: "no SIM"},
		{name: "PIN", o: sim.Options{PIN: "4711"}, layer: "sim", words: "set pin"},
		{name: "wrong PIN", o: sim.Options{PIN: "4711"}, keys: `pin = "0000"`, layer: "sim", words: "PIN was refused"},
		{name: "no network", harm: func(m *sim.Module) { m.SetLink(false) }, layer: "signal", words: "antenna"},
		{name: "no broker", url: "tcp://" + closed.Addr().String(), layer: "tcp", words: "could not reach"},
		{name: "no broker, without sockets", o: sim.Options{Dialect: sim.DialectCMQTT, Sockets: sim.SocketsNone},
			url: "tcp://" + closed.Addr().String(), layer: "tcp", words: "could not reach"},
		{name: "a name that nobody knows", url: "tcp://no-such-broker.invalid:1883", layer: "dns", words: "found no address; check the name"},
		{name: "the same with qi", o: sim.Options{Dialect: sim.DialectQMT, Sockets: sim.SocketsQI}, url: "tcp://no-such-broker.invalid:1883",
			layer: "dns", words: "found no address; check the name"},
		{name: "all well by a name with qi", o: sim.Options{Dialect: sim.DialectQMT, Sockets: sim.SocketsQI}, url: "tcp://localhost:" + port(up.address), layer: "echo"},
		{name: "no TLS there", mode: "socket", url: "ssl://" + up.address, layer: "tls", words: "is it a TLS port"},
		{name: "a certificate that is not trusted", mode: "socket", url: "ssl://localhost:" + port(secure), layer: "tls", words: "set ca to a file"},
		{name: "all well with TLS", mode: "socket", url: "ssl://localhost:" + port(secure), ca: true, layer: "echo"},
		{name: "the module refuses", mode: "mqtt", harm: func(m *sim.Module) { m.Refuse(5) }, layer: "login",
			words: "the same login is accepted through the module with our own client: the module's client is at fault"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.o.Logger = slog.New(slog.DiscardHandler)
			m, err := sim.New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			device := m.Path()
			if c.harm != nil {
				c.harm(m)
			}
			if c.layer == "port" {
				device = "/dev/ttyNONE7"
			}
			if c.mode == "" {
				c.mode = "auto"
			}
			if c.url == "" {
				c.url = "tcp://" + up.address
			}
			dir := t.TempDir()
			file := filepath.Join(dir, "gateway.toml")
			ca := ""
			if c.ca {
				ca = fmt.Sprintf("ca = %q", cert)
			}
			text := fmt.Sprintf(doctorConfig, i, filepath.Join(dir, "data"), device, c.mode, c.keys, ca, c.url)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(binary, "modem", "doctor", "-c", file).CombinedOutput()
			said := string(out)
			if (err == nil) != (c.words == "") {
				t.Errorf("it ended with %v", err)
			}
			mark := "ok      "
			if c.words != "" {
				mark = "FAILED  "
			}
			if !strings.Contains(said, mark+c.layer) || !strings.Contains(said, c.words) || strings.Count(said, "FAILED") > 1 {
				t.Errorf("it said\n%s", said)
			}
		})
	}
}
