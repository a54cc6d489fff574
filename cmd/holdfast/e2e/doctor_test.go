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
id = "board-1"
data_dir = %q
[[modem]]
name = "lte"
port = %q
mode = %q
%s
[[bridge]]
name = "cloud"
  [[bridge.upstream]]
  url = "tcp://%s"
  via = "lte"
  [[bridge.route]]
  direction = "out"
  topic = "s/#"
`

// The doctor names the layer of each fault, says what to try, and ends there.
func TestTheDoctorNamesTheFault(t *testing.T) {
	up := newMosquitto(t)
	up.start()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, c := range []struct {
		name    string
		o       sim.Options
		mode    string
		keys    string // of [[modem]]
		address string
		harm    func(m *sim.Module)
		layer   string // the last one
		words   string // "" is all well
	}{
		{name: "all well with a socket", mode: "auto", layer: "echo"},
		{name: "all well with ecmt", mode: "mqtt", layer: "echo"},
		{name: "all well with qmt", o: sim.Options{Dialect: sim.DialectQMT}, mode: "mqtt", layer: "echo"},
		{name: "no port", layer: "port", words: "there is no port"},
		{name: "no SIM", o: sim.Options{NoSIM: true}, layer: "sim", words: "no SIM"},
		{name: "PIN", o: sim.Options{PIN: "4711"}, layer: "sim", words: "set pin"},
		{name: "wrong PIN", o: sim.Options{PIN: "4711"}, keys: `pin = "0000"`, layer: "sim", words: "PIN was refused"},
		{name: "no network", harm: func(m *sim.Module) { m.SetLink(false) }, layer: "signal", words: "antenna"},
		{name: "no broker", address: closed.Addr().String(), layer: "tcp", words: "could not reach"},
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
			port := m.Path()
			if c.harm != nil {
				c.harm(m)
			}
			if c.layer == "port" {
				port = "/dev/ttyNONE7"
			}
			if c.mode == "" {
				c.mode = "auto"
			}
			if c.address == "" {
				c.address = up.address
			}
			dir := t.TempDir()
			file := filepath.Join(dir, "gateway.toml")
			text := fmt.Sprintf(doctorConfig, filepath.Join(dir, "data"), port, c.mode, c.keys, c.address)
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
