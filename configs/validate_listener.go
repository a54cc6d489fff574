package configs

import (
	"fmt"
	"net"
	stdpath "path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// splitAddress reads "host:port".
func splitAddress(s string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil || port < 0 || port > 65535 || strings.ContainsAny(host, " /\x00") {
		return "", 0, fmt.Errorf(`%s is no address; write host:port, as in "127.0.0.1:1883" or "[::1]:1883"`, quote(s))
	}
	return host, port, nil
}

// isLoopback reports whether only this machine can reach host.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

func (k *checker) listeners() {
	if len(k.c.Listeners) == 0 {
		k.missing("listener", "no device could connect; write [[listener]] with an address")
	}
	var taken []socket
	for i, l := range k.c.Listeners {
		at := fmt.Sprintf("listener[%d].address", i)
		if l.Address == "" {
			k.missing(at, `is missing; write address = "127.0.0.1:1883"`)
			continue
		}
		k.transport(l, fmt.Sprintf("listener[%d]", i))
		switch path := fmt.Sprintf("listener[%d]", i); {
		case l.Interface == "":
		case l.Transport == TransportUnix:
			k.fault(path+".interface", "a unix socket is on none; take it out")
		default:
			k.networkInterface(l.Interface, path)
		}
		if l.Transport == TransportUnix {
			if !filepath.IsAbs(l.Address) || len(l.Address) > maxSocketPath {
				k.fault(at, `%s cannot be a unix socket; write a path from the root with at most %d bytes, as in "/run/holdfast/mqtt.sock"`,
					quote(l.Address), maxSocketPath)
			}
			continue
		}
		host, port, err := splitAddress(l.Address)
		if err != nil {
			k.fault(at, "%v", err)
			continue
		}
		s := socket{ownHost(host), port, l.Interface, k.line(at)}
		switch other := s.inTheWay(taken); {
		case other == nil:
		case other.host == s.host && other.iface == s.iface:
			k.fault(at, "%s is taken by %s; take one of them out", quote(l.Address), lineWords(other.line))
		default:
			k.fault(at, "the port of %s is taken by %s, and one of them is on every address or interface; choose another port",
				quote(l.Address), lineWords(other.line))
		}
		taken = append(taken, s)
		if !isLoopback(host) && l.ClientCA == "" {
			k.beyondLoopback(at, l.Address, port)
		}
	}
	k.console(taken)
}

// socket is where a listener is, for the system: a port of an address, of one
// network interface or of all ("").
type socket struct {
	host  string
	port  int
	iface string
	line  int
}

// inTheWay is the first of others that the system does not let s be beside.
func (s *socket) inTheWay(others []socket) *socket {
	everywhere := func(host string) bool { return host == "" || net.ParseIP(host).IsUnspecified() }
	for i := range others {
		o := &others[i]
		if s.port == o.port && s.port != 0 &&
			(s.iface == o.iface || s.iface == "" || o.iface == "") &&
			(s.host == o.host || everywhere(s.host) || everywhere(o.host)) {
			return o
		}
	}
	return nil
}

// ownHost is host in the one form that it has in every address.
func ownHost(host string) string {
	if ip := net.ParseIP(host); ip != nil {
		return ip.String()
	}
	if strings.EqualFold(host, "localhost") {
		return "127.0.0.1"
	}
	return strings.ToLower(host)
}

// maxSocketPath is what Linux has room for, in bytes.
const maxSocketPath = 107

// transport asks for what TLS needs, and refuses what would have no effect.
func (k *checker) transport(l Listener, path string) {
	files := []struct{ key, name string }{{"cert", l.Cert}, {"key", l.Key}, {"client_ca", l.ClientCA}}
	for _, f := range files {
		switch at := path + "." + f.key; {
		case !l.Secure() && f.name != "":
			k.fault(at, `transport = %q has no TLS; write "tls" or "wss", or take %s out`, l.Transport, f.key)
		case l.Secure() && f.name == "" && f.key != "client_ca":
			k.missing(at, "is missing; transport = %q needs the PEM files cert and key", l.Transport)
		}
	}
	for _, o := range strings.Fields(l.Origins) {
		if _, err := stdpath.Match(o, ""); err != nil {
			k.fault(path+".origins", `%s is no pattern of a host; write one as in "*.example.com"`, quote(o))
		}
	}
}

// beyondLoopback refuses a door that would be shut to all who could come to it.
func (k *checker) beyondLoopback(path, address string, port int) {
	if k.c.Access.Anonymous != AnonymousLoopback || len(k.c.Access.Users) > 0 {
		return
	}
	lines := `add the lines [access] and anonymous = "always"`
	if line := k.lines["access.anonymous"]; line > 0 {
		lines = fmt.Sprintf(`write anonymous = "always" in line %d`, line)
	} else if line := k.lines["access"]; line > 0 {
		lines = fmt.Sprintf(`add the line anonymous = "always" below line %d`, line)
	}
	k.fault(path, "%s is open to the network, where nobody may connect; %s to let everyone in, add users (holdfast passwd NAME), or listen on %q only",
		quote(address), lines, fmt.Sprintf("127.0.0.1:%d", port))
}

func (k *checker) console(listeners []socket) {
	const at = "console.address"
	if k.c.Console.Address == "" {
		return
	}
	host, port, err := splitAddress(k.c.Console.Address)
	if err != nil {
		k.fault(at, "%v, or \"\" for no console", err)
		return
	}
	own := socket{host: ownHost(host), port: port}
	if other := own.inTheWay(listeners); other != nil {
		k.fault(at, "%s is taken by the listener in line %d; choose another port", quote(k.c.Console.Address), other.line)
	}
	if !isLoopback(host) {
		k.warn(at, `everyone in the network can see the console; write "127.0.0.1:%d" to keep it on this board`, port)
	}
}

// usbPort is a port named by what is plugged in: vendor, product, serial number
// and interface.
var usbPort = regexp.MustCompile(`^usb:[0-9a-fA-F]{4}:[0-9a-fA-F]{4}(:[^:]*(:[0-9a-fA-F]{1,2})?)?$`)

func (k *checker) modems() {
	names, ports, interfaces := map[string]int{}, map[string]int{}, map[string]int{}
	used := map[string]bool{}
	for _, b := range k.c.Bridges {
		for _, u := range b.Upstreams {
			used[u.Via] = true
		}
	}
	for i, m := range k.c.Modems {
		path := fmt.Sprintf("modem[%d]", i)
		k.name(m.Name, path, names)
		if line, again := ports[m.Port]; m.Port == "" {
			k.missing(path+".port", `is missing; write the serial port, as in port = "/dev/ttyUSB2"`)
		} else if again {
			k.fault(path+".port", "%s is taken by %s; a port has one modem", quote(m.Port), lineWords(line))
		}
		ports[m.Port] = k.line(path + ".port")
		switch usb := strings.HasPrefix(m.Port, "usb:"); {
		case !usb && m.Port != "" && !filepath.IsAbs(m.Port):
			k.fault(path+".port", `%s is no serial port; write its whole name, as in "/dev/ttyUSB2", or "usb:VID:PID"; holdfast modem list prints them`, quote(m.Port))
		case usb && !usbPort.MatchString(m.Port):
			k.fault(path+".port", `%s is no USB port; write "usb:VID:PID" or "usb:VID:PID:SERIAL:INTERFACE", as in "usb:2c7c:6005"; holdfast modem list prints it`, quote(m.Port))
		}
		if pin := m.PIN.Reveal(); pin != "" && (len(pin) < 4 || len(pin) > 8 || strings.Trim(pin, "0123456789") != "") {
			k.fault(path+".pin", `a PIN is 4 to 8 digits; write them in quotes, as in "0000"`)
		}
		if m.Interface != "" {
			k.networkInterface(m.Interface, path)
			if m.Mode == ModeMQTT {
				k.fault(path+".mode", "the network interface is used in place of the module's own client; take mode or interface out")
			}
			if line, again := interfaces[m.Interface]; again {
				k.fault(path+".interface", "%s is that of %s; a modem has its own", quote(m.Interface), lineWords(line))
			}
			interfaces[m.Interface] = k.line(path + ".interface")
		}
		if m.ResetLine == "rts" && m.FlowControl {
			k.fault(path+".reset_line", "flow_control needs RTS; wire the reset to DTR, or take one of the two out")
		}
		if m.Name != "" && !used[m.Name] {
			k.warn(path, "no upstream goes through it; write via = %q in a [[bridge.upstream]]", m.Name)
		}
	}
}
