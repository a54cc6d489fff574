package configs

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
)

// Identity is who this gateway is.
type Identity struct {
	ID     string // letters, digits, '-', '_' and '.'; never empty
	Serial string // of the board; empty if it has none
}

// Identify finds out who this gateway is: gateway.id if it is set, else the
// serial number of the board, else the address of its first network card. Never
// the host name: boards of one image share it.
//
// A machine that has neither, such as a container, is given a random name,
// which is kept in the data folder. The derived ones are not kept: a copied card
// in another board must not be the same gateway. If the name cannot be kept the
// error says so, and the identity is good until the next start.
func (c *Config) Identify() (Identity, error) {
	who := identify(os.DirFS("/"))
	switch {
	case c.Gateway.ID != "":
		who.ID = c.Gateway.ID
	case who.ID == "":
		var err error
		if who.ID, err = randomName(c.Gateway.DataDir); err != nil {
			return who, fmt.Errorf("keep a name for this gateway: %w; write id in [gateway]", err)
		}
	}
	return who, nil
}

// identify asks the board; root is its file system.
func identify(root fs.FS) (who Identity) {
	// A string of the device tree ends with a zero byte.
	serial, _ := fs.ReadFile(root, "sys/firmware/devicetree/base/serial-number")
	if s := strings.Trim(string(serial), "\x00 \n"); identifier.MatchString(s) {
		return Identity{ID: s, Serial: s}
	}
	const cards = "sys/class/net"
	entries, _ := fs.ReadDir(root, cards) // in the order of their names
	for _, e := range entries {
		// Cards of hardware have a device; type 0 is an address that is the
		// card's own, not one that was set or drawn.
		read := func(name string) string {
			b, _ := fs.ReadFile(root, cards+"/"+e.Name()+"/"+name)
			return strings.TrimSpace(string(b))
		}
		_, err := fs.Stat(root, cards+"/"+e.Name()+"/device")
		bus, _ := fs.ReadLink(root, cards+"/"+e.Name()+"/device/subsystem")
		if path.Base(bus) == "usb" {
			continue // it may be gone tomorrow, and LTE sticks share one address
		}
		mac := strings.ReplaceAll(read("address"), ":", "")
		if err == nil && read("addr_assign_type") == "0" && len(mac) == 12 && mac != "000000000000" && identifier.MatchString(mac) {
			return Identity{ID: mac}
		}
	}
	return Identity{}
}

// randomName reads the name that is kept in dir, or draws one.
func randomName(dir string) (string, error) {
	kept := filepath.Join(dir, "gateway-id")
	if b, err := os.ReadFile(kept); err == nil && identifier.Match(b) {
		return string(b), nil
	}
	name := make([]byte, 6)
	_, _ = rand.Read(name) // never fails
	id := hex.EncodeToString(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return id, err
	}
	// A crash here leaves no file or a whole one: rename comes last. Without
	// the sync a power cut could leave an empty one, and the gateway would be
	// another after it.
	f, err := os.CreateTemp(dir, "gateway-id-*")
	if err != nil {
		return id, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(id)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), kept)
	}
	return id, err
}

// Resolve fills in what depends on this board: the identity, the variables in
// client identifiers, user names and prefixes, and the defaults that are made
// of other keys. It is called once, before c is used; the error is of type
// Faults.
func (c *Config) Resolve(who Identity) error {
	c.Gateway.ID = who.ID
	c.Console.Socket = c.SocketPath()
	c.sharePlans()
	k := c.checker()
	k.resolve(reflect.ValueOf(c).Elem(), "", who, "")
	if len(k.faults) > 0 {
		return k.faults
	}
	return nil
}

func (k *checker) resolve(v reflect.Value, path string, who Identity, bridge string) {
	if b, ok := v.Addr().Interface().(*Bridge); ok {
		bridge = b.Name
	}
	for _, f := range fields(v.Type()) {
		at, v := join(path, f.Tag.Get("toml")), v.FieldByIndex(f.Index)
		switch {
		case isList(f.Type):
			for i := range v.Len() {
				k.resolve(v.Index(i), fmt.Sprintf("%s[%d]", at, i), who, bridge)
			}
		case v.Kind() == reflect.Struct && f.Type != reflect.TypeFor[Secret]():
			k.resolve(v, at, who, bridge)
		case f.Tag.Get("vars") != "":
			if strings.Contains(v.String(), "{serial}") && who.Serial == "" {
				k.fault(at, "this board has no serial number; write {id} instead of {serial}")
			}
			v.SetString(strings.NewReplacer("{id}", who.ID, "{serial}", who.Serial, "{bridge}", bridge).Replace(v.String()))
		}
	}
}
