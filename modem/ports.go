package modem

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"

	"go.bug.st/serial/enumerator"
)

// PortInfo is one serial port of this machine.
type PortInfo struct {
	Name string `json:"name"`
	// VID, PID and Serial are those of a USB device, in hex; empty otherwise.
	VID     string `json:"vid,omitempty"`
	PID     string `json:"pid,omitempty"`
	Serial  string `json:"serial,omitempty"`
	Product string `json:"product,omitempty"`
	// Lasting are names of the port that stay the same when it is plugged in
	// again: the ones to write into the configuration.
	Lasting []string `json:"lasting,omitempty"`
	// Modem is the name of the modem that is configured on it.
	Modem string `json:"modem,omitempty"`
}

// String is one line for people.
func (p PortInfo) String() string {
	words := []string{p.Name}
	if p.VID != "" {
		words = append(words, "usb "+strings.ToLower(p.VID+":"+p.PID))
	}
	for _, w := range []string{p.Product, p.Serial} {
		if w != "" {
			words = append(words, w)
		}
	}
	if len(p.Lasting) > 0 {
		words = append(words, "also "+strings.Join(p.Lasting, " "))
	}
	if p.Modem != "" {
		words = append(words, "modem "+p.Modem)
	}
	return strings.Join(words, ", ")
}

// Ports lists the serial ports of this machine, by name. What cannot be found out
// is left empty.
func Ports() []PortInfo {
	found, err := enumerator.GetDetailedPortsList()
	if err != nil {
		found = nil
	}
	var list []PortInfo
	for _, f := range found {
		if f == nil || f.Name == "" { // the enumerator has such entries
			continue
		}
		p := PortInfo{Name: f.Name}
		if f.IsUSB {
			p.VID, p.PID, p.Serial, p.Product = f.VID, f.PID, f.SerialNumber, f.Product
		}
		list = append(list, p)
	}
	for _, pattern := range []string{"/dev/serial/by-id/*", "/dev/serial/by-path/*"} {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			at, err := filepath.EvalSymlinks(name)
			if i := indexPort(list, at); err == nil && i >= 0 {
				list[i].Lasting = append(list[i].Lasting, name)
			}
		}
	}
	slices.SortFunc(list, func(a, b PortInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Use marks the port that a modem is configured on; one that is not there now is
// added.
func Use(list []PortInfo, port, modem string) []PortInfo {
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
	return append(list, PortInfo{Name: port, Modem: note})
}

func exists(name string) bool {
	found, err := filepath.Glob(name)
	return err == nil && len(found) > 0
}

func indexPort(list []PortInfo, name string) int {
	return slices.IndexFunc(list, func(p PortInfo) bool { return p.Name == name })
}
