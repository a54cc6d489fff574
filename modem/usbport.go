package modem

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// serialTree is where the kernel shows its serial ports. Nothing is opened to
// look at them: that would disturb whoever uses one.
type serialTree struct {
	sys string // /sys
	dev string // /dev
}

func thisMachine() serialTree { return serialTree{sys: "/sys", dev: "/dev"} }

// maxAttribute bounds what is read of one file of sysfs.
const maxAttribute = 256

// ports lists the serial ports, by name. What cannot be found out is left empty.
func (s serialTree) ports() []PortInfo {
	entries, err := os.ReadDir(filepath.Join(s.sys, "class/tty"))
	if err != nil {
		return nil
	}
	var list []PortInfo
	for _, e := range entries {
		at := filepath.Join(s.sys, "class/tty", e.Name())
		// A console or a pty has no device; a UART that the board does not
		// have is of the type 0.
		device, err := filepath.EvalSymlinks(filepath.Join(at, "device"))
		if err != nil || attribute(at, "type") == "0" {
			continue
		}
		p := PortInfo{Name: filepath.Join(s.dev, e.Name())}
		s.usb(device, &p)
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b PortInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// usb notes the USB device that a port belongs to: the port's own folder, or
// one above it, is the interface, and the folder of that is the device.
func (s serialTree) usb(folder string, p *PortInfo) {
	for range 3 {
		number, err := strconv.ParseUint(attribute(folder, "bInterfaceNumber"), 16, 8)
		if err != nil {
			folder = filepath.Dir(folder)
			continue
		}
		device := filepath.Dir(folder)
		p.VID, p.PID = attribute(device, "idVendor"), attribute(device, "idProduct")
		p.Serial, p.Product = attribute(device, "serial"), attribute(device, "product")
		p.Interface, p.usbDevice = int(number), device
		return
	}
}

// attribute is what one file of sysfs says; "" if it is not there.
func attribute(folder, name string) string {
	f, err := os.Open(filepath.Join(folder, name))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxAttribute))
	return strings.ToValidUTF8(strings.TrimSpace(string(b)), "?")
}

// usbPort is a port that is named by what is plugged in, wherever that is:
// usb:VID:PID[:SERIAL[:INTERFACE]], all but SERIAL in hex.
type usbPort struct {
	vid, pid string
	serial   string // "" is any
	iface    int    // -1 is any
}

const usbPrefix = "usb:"

var errUSBName = errors.New("a USB port is written usb:VID:PID[:SERIAL[:INTERFACE]], as in usb:2c7c:6005 or usb:2c7c:6005::02; " +
	"holdfast modem list prints it")

var hexID = regexp.MustCompile(`^[0-9a-fA-F]{4}$`)

// parseUSBPort takes such a name apart; named is false for any other port.
func parseUSBPort(port string) (u usbPort, named bool, err error) {
	rest, named := strings.CutPrefix(port, usbPrefix)
	if !named {
		return usbPort{}, false, nil
	}
	parts := strings.Split(rest, ":")
	if len(parts) < 2 || len(parts) > 4 || !hexID.MatchString(parts[0]) || !hexID.MatchString(parts[1]) {
		return usbPort{}, true, errUSBName
	}
	u = usbPort{vid: strings.ToLower(parts[0]), pid: strings.ToLower(parts[1]), iface: -1}
	if len(parts) > 2 {
		u.serial = strings.NewReplacer("%3A", ":", "%3a", ":", "%25", "%").Replace(parts[2])
	}
	if len(parts) > 3 {
		n, err := strconv.ParseUint(parts[3], 16, 8)
		if err != nil {
			return usbPort{}, true, errUSBName
		}
		u.iface = int(n)
	}
	return u, true, nil
}

// String is the name again.
func (u usbPort) String() string {
	s := usbPrefix + u.vid + ":" + u.pid
	if u.serial != "" || u.iface >= 0 {
		s += ":" + strings.NewReplacer("%", "%25", ":", "%3A").Replace(u.serial)
	}
	if u.iface >= 0 {
		s += fmt.Sprintf(":%02x", u.iface)
	}
	return s
}

func (u usbPort) is(p PortInfo) bool {
	return p.usbDevice != "" && strings.EqualFold(p.VID, u.vid) && strings.EqualFold(p.PID, u.pid) &&
		(u.serial == "" || u.serial == p.Serial) && (u.iface < 0 || u.iface == p.Interface)
}

// find returns the ports that u may mean, by interface. All belong to one device:
// where two are meant, or none, the error says what to write or to do.
func (u usbPort) find(list []PortInfo) ([]PortInfo, error) {
	var found []PortInfo
	for _, p := range list {
		if u.is(p) {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no USB device %s with a serial port is plugged in; %s; lsusb shows what is: %w", u, namesOf(list), fs.ErrNotExist)
	}
	slices.SortStableFunc(found, func(a, b PortInfo) int { return cmp.Compare(a.Interface, b.Interface) })
	for _, p := range found[1:] {
		if p.usbDevice != found[0].usbDevice {
			values := make(map[string]bool)
			var choice []string
			for _, p := range found {
				if v := p.Value; !values[v] {
					values[v] = true
					choice = append(choice, fmt.Sprintf("%q", v))
				}
			}
			return nil, fmt.Errorf("%s is plugged in more than once; write one of these as the port: %s", u, strings.Join(choice, ", "))
		}
	}
	return found, nil
}

// namesOf lists ports for people.
func namesOf(list []PortInfo) string {
	if len(list) == 0 {
		return "this machine shows no serial ports"
	}
	var names []string
	for _, p := range list {
		name := p.Name
		if p.VID != "" {
			name += " (usb " + p.VID + ":" + p.PID + ")"
		}
		names = append(names, name)
	}
	return "this machine has " + strings.Join(names, ", ")
}
