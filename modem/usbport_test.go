package modem

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// plugged is what a fake machine has.
type plugged struct {
	tree serialTree
	t    *testing.T
}

func newMachine(t *testing.T) *plugged {
	dir := t.TempDir()
	p := &plugged{serialTree{filepath.Join(dir, "sys"), filepath.Join(dir, "dev")}, t}
	for _, d := range []string{"sys/class/tty/tty0", "dev/serial/by-path"} {
		p.must(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	return p
}

func (p *plugged) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *plugged) write(folder string, attributes map[string]string) {
	p.must(os.MkdirAll(folder, 0o755))
	for name, s := range attributes {
		p.must(os.WriteFile(filepath.Join(folder, name), []byte(s+"\n"), 0o644))
	}
}

// port adds a port as the kernel shows it: below the interface (usb-serial), or as
// the interface itself (cdc-acm).
func (p *plugged) port(name, socket, vid, pid, serial string, iface int) {
	device := filepath.Join(p.tree.sys, "devices/usb1", socket)
	p.write(device, map[string]string{"idVendor": vid, "idProduct": pid, "serial": serial, "product": "EC200U"})
	folder := filepath.Join(device, fmt.Sprintf("%s:1.%d", socket, iface))
	p.write(folder, map[string]string{"bInterfaceNumber": fmt.Sprintf("%02x", iface)})
	if strings.HasPrefix(name, "ttyUSB") {
		folder = filepath.Join(folder, name)
		p.must(os.MkdirAll(folder, 0o755))
	}
	p.class(name, folder)
	p.must(os.Symlink("../../"+name, filepath.Join(p.tree.dev, "serial/by-path", "usb-"+socket+"-"+name)))
}

func (p *plugged) class(name, folder string) {
	at := filepath.Join(p.tree.sys, "class/tty", name)
	p.must(os.MkdirAll(at, 0o755))
	p.must(os.Symlink(folder, filepath.Join(at, "device")))
}

func (p *plugged) uart(name, kind string) {
	folder := filepath.Join(p.tree.sys, "devices/platform", name)
	p.must(os.MkdirAll(folder, 0o755))
	p.class(name, folder)
	p.write(filepath.Join(p.tree.sys, "class/tty", name), map[string]string{"type": kind})
}

func TestPortsAreNamedByWhatIsPluggedIn(t *testing.T) {
	p := newMachine(t)
	p.uart("ttyS0", "4")
	p.uart("ttyS1", "0") // not on this board
	for i := range 3 {
		p.port(fmt.Sprintf("ttyUSB%d", i), "1-1", "2c7c", "6005", "", i)
	}
	p.port("ttyUSB3", "1-2", "10c4", "ea60", "A:1%", 0)
	p.port("ttyACM0", "1-3", "1286", "4e3d", "", 2)
	p.port("ttyACM1", "1-4", "1286", "4e3d", "", 2) // its twin
	dev := p.tree.dev
	want := map[string]string{
		"ttyS0":   dev + "/ttyS0",
		"ttyUSB0": "usb:2c7c:6005::00", "ttyUSB1": "usb:2c7c:6005::01", "ttyUSB2": "usb:2c7c:6005::02",
		"ttyUSB3": "usb:10c4:ea60:A%3A1%25",
		"ttyACM0": dev + "/serial/by-path/usb-1-3-ttyACM0", "ttyACM1": dev + "/serial/by-path/usb-1-4-ttyACM1",
	}
	list := p.tree.named()
	for _, port := range list {
		if name := filepath.Base(port.Name); port.Value != want[name] {
			t.Errorf("%s is to be written %q, want %q", name, port.Value, want[name])
		}
		if u, named, err := parseUSBPort(port.Value); named {
			found, ferr := u.find(list)
			if err != nil || ferr != nil || len(found) != 1 || found[0].Name != port.Name {
				t.Errorf("%s does not find its port: %v, %v, %v", port.Value, found, err, ferr)
			}
		}
	}
	if len(list) != len(want) {
		t.Errorf("%d ports: %v", len(list), list)
	}
	if line := list[3].String(); !strings.Contains(line, `usb 2c7c:6005, EC200U, port = "usb:2c7c:6005::00"`) {
		t.Errorf("for people it is %s", line)
	}
	for _, c := range []struct{ port, words string }{
		{"usb:2c7c:6006", "no USB device usb:2c7c:6006 with a serial port is plugged in; this machine has"},
		{"usb:1286:4e3d", `more than once; write one of these as the port: "` + dev + `/serial/by-path/usb-1-3-ttyACM0", "`},
	} {
		u, _, err := parseUSBPort(c.port)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.find(list); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.port, err)
		}
	}
	u, _, _ := parseUSBPort("usb:ffff:0000")
	if _, err := u.find(nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "shows no serial ports") {
		t.Errorf("without any port: %v", err)
	}
	marked := Use(Use(p.tree.named(), "usb:10C4:EA60", "a"), "usb:0000:0000", "b")
	if marked[6].Modem != "a" || marked[7].Modem != "b (not there now)" {
		t.Errorf("marked: %v", marked)
	}
}

func TestNamesOfUSBPortsThatAreWrongAreRefused(t *testing.T) {
	for _, port := range []string{"usb:", "usb:2c7c", "usb:2c7c:60055", "usb:2c7c:6005:x:100", "usb:2c7c:6005::2:3", "usb:2c7g:6005"} {
		if _, err := New(Options{Name: "lte", Port: port}); err == nil || !strings.Contains(err.Error(), "usb:VID:PID") {
			t.Errorf("%s: %v", port, err)
		}
	}
}

func FuzzUSBPort(f *testing.F) {
	for _, s := range []string{"usb:2c7c:6005", "usb:2C7C:6005:a%3Ab:1f", "usb:2c7c:6005::02", "/dev/ttyS0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, named, err := parseUSBPort(s)
		if !named || err != nil {
			return
		}
		again, _, err := parseUSBPort(u.String())
		if err != nil || again != u {
			t.Errorf("%q is %+v, which is written %q, which is %+v (%v)", s, u, u, again, err)
		}
	})
}
