package modem

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PortInfo is one serial port of this machine.
type PortInfo struct {
	Name string `json:"name"`
	// VID, PID and Serial are those of a USB device, the first two in hex, and
	// Interface is which of its interfaces the port is; empty otherwise.
	VID       string `json:"vid,omitempty"`
	PID       string `json:"pid,omitempty"`
	Serial    string `json:"serial,omitempty"`
	Interface int    `json:"interface,omitempty"`
	Product   string `json:"product,omitempty"`
	// Value is what to write into the configuration: a name that stays the same
	// when the module is plugged in again, where there is one.
	Value string `json:"value"`
	// Lasting are other such names.
	Lasting []string `json:"lasting,omitempty"`
	// Modem is the name of the modem that is configured on it.
	Modem string `json:"modem,omitempty"`

	usbDevice string // its folder in sysfs; "" if it is none
}

// String is one line for people.
func (p PortInfo) String() string {
	words := []string{p.Name}
	if p.VID != "" {
		words = append(words, "usb "+p.VID+":"+p.PID)
	}
	for _, w := range []string{p.Product, p.Serial} {
		if w != "" {
			words = append(words, w)
		}
	}
	if p.Value != "" && p.Value != p.Name {
		words = append(words, fmt.Sprintf("port = %q", p.Value))
	}
	if len(p.Lasting) > 0 {
		words = append(words, "also "+strings.Join(p.Lasting, " "))
	}
	if p.Modem != "" {
		words = append(words, "modem "+p.Modem)
	}
	return strings.Join(words, ", ")
}

// Ports lists the serial ports of this machine, by name, and opens none. What
// cannot be found out is left empty.
func Ports() []PortInfo { return thisMachine().named() }

// named lists the ports with what to write for each.
func (s serialTree) named() []PortInfo {
	list := s.ports()
	for _, pattern := range []string{"serial[0-9]", "serial/by-id/*", "serial/by-path/*"} {
		links, _ := filepath.Glob(filepath.Join(s.dev, pattern))
		for _, link := range links {
			at, err := os.Readlink(link)
			if err != nil {
				continue
			}
			if !filepath.IsAbs(at) {
				at = filepath.Join(filepath.Dir(link), at)
			}
			if i := indexPort(list, at); i >= 0 {
				list[i].Lasting = append(list[i].Lasting, link)
			}
		}
	}
	for i := range list {
		list[i].Value = value(list, i)
	}
	return list
}

// value is the shortest name by which only the i-th port is found, wherever it is
// plugged in; if there is none, the one of the socket that it is plugged into.
func value(list []PortInfo, i int) string {
	p := list[i]
	if p.usbDevice == "" {
		return p.Name
	}
	alone := func(same func(q PortInfo) bool) bool {
		return !slices.ContainsFunc(list, func(q PortInfo) bool { return q.Name != p.Name && same(q) })
	}
	u := usbPort{vid: p.VID, pid: p.PID, serial: p.Serial, iface: -1}
	if !alone(func(q PortInfo) bool { return q.usbDevice == p.usbDevice }) {
		u.iface = p.Interface
	}
	if alone(u.is) {
		return u.String()
	}
	for _, name := range p.Lasting {
		if strings.Contains(name, "/by-path/") {
			return name
		}
	}
	return p.Name
}

// Use marks the port that a modem is configured on; one that is not there now is
// added.
func Use(list []PortInfo, port, modem string) []PortInfo {
	if u, named, err := parseUSBPort(port); named {
		found, ferr := u.find(list)
		if err != nil || ferr != nil {
			return append(list, PortInfo{Name: port, Value: port, Modem: modem + " (not there now)"})
		}
		note := modem
		if len(found) > 1 {
			note += " (here or on another of its ports, the one that answers AT)"
		}
		for _, p := range found {
			list[indexPort(list, p.Name)].Modem = note
		}
		return list
	}
	at := port
	if real, err := filepath.EvalSymlinks(port); err == nil {
		at = real
	}
	if i := indexPort(list, at); i >= 0 {
		list[i].Modem = modem
		return list
	}
	note := modem
	if at == port && !exists(port) {
		note += " (not there now)"
	}
	return append(list, PortInfo{Name: port, Value: port, Modem: note})
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func indexPort(list []PortInfo, name string) int {
	return slices.IndexFunc(list, func(p PortInfo) bool { return p.Name == name })
}
