package configs

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
)

const (
	serialFile = "sys/firmware/devicetree/base/serial-number"
	netDir     = "sys/class/net/"
)

// card puts a network card into the file system of a board.
func card(board fstest.MapFS, name, address, assigned, bus string) {
	board[netDir+name+"/address"] = &fstest.MapFile{Data: []byte(address + "\n")}
	board[netDir+name+"/addr_assign_type"] = &fstest.MapFile{Data: []byte(assigned + "\n")}
	if bus != "" {
		board[netDir+name+"/device/subsystem"] = &fstest.MapFile{Data: []byte("../../bus/" + bus), Mode: fs.ModeSymlink}
	}
}

func TestIdentityIsTheBoards(t *testing.T) {
	pi := fstest.MapFS{serialFile: {Data: []byte("10000000abcdef01\x00")}}
	card(pi, "eth0", "dc:a6:32:01:02:03", "0", "platform")
	if got := identify(pi); got != (Identity{ID: "10000000abcdef01", Serial: "10000000abcdef01"}) {
		t.Errorf("a board with a serial number: %+v", got)
	}

	pc := fstest.MapFS{}
	card(pc, "br0", "02:42:00:00:00:01", "3", "")       // a bridge: no hardware
	card(pc, "dummy0", "aa:aa:aa:aa:aa:aa", "0", "")    // no hardware
	card(pc, "enp1s0", "00:11:22:33:44:55", "3", "pci") // its address was set by someone
	card(pc, "enp2s0", "00:00:00:00:00:00", "0", "pci") // none
	card(pc, "enp1u1", "0c:5b:8f:27:9a:64", "0", "usb") // an LTE stick
	card(pc, "wlp3s0", "00:11:22:33:44:66", "0", "pci") // this one
	card(pc, "wlp4s0", "00:11:22:33:44:77", "0", "pci") // another one
	if got := identify(pc); got != (Identity{ID: "001122334466"}) {
		t.Errorf("a board without a serial number: %+v", got)
	}

	if got := identify(fstest.MapFS{serialFile: {Data: []byte("../etc\x00")}}); got != (Identity{}) {
		t.Errorf("a serial number that cannot be an identifier: %+v", got)
	}
}

func TestIdentityOfTheFileComesFirst(t *testing.T) {
	c := Default()
	c.Gateway.ID = "mine"
	if got, err := c.Identify(); err != nil || got.ID != "mine" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRandomNameIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first, err := randomName(dir)
	if err != nil || !identifier.MatchString(first) {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := randomName(dir); err != nil || again != first {
		t.Errorf("%q, then %q, %v", first, again, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	// What a power cut of another program has left is no name.
	if err := os.WriteFile(filepath.Join(dir, "gateway-id"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if next, err := randomName(dir); err != nil || !identifier.MatchString(next) {
		t.Errorf("%q, %v", next, err)
	}
	// Without a folder to write in there is a name all the same.
	if id, err := randomName(filepath.Join(dir, "gateway-id", "x")); err == nil || !identifier.MatchString(id) {
		t.Errorf("%q, %v", id, err)
	}
}

func TestResolve(t *testing.T) {
	const text = `
gateway.data_dir = "/data"
[[bridge]]
name = "cloud"
username = "{serial}"
[[bridge.upstream]]
url = "tcp://h"
client_id = "{id}-{bridge}-2"
[[bridge.route]]
direction = "out"
topic = "a/#"
local_prefix = "{bridge}/"
remote_prefix = "site/{id}/{id}/"
`
	c := mustLoad(t, text)
	if err := c.Resolve(Identity{ID: "7", Serial: "s"}); err != nil {
		t.Fatal(err)
	}
	b := c.Bridges[0]
	for got, want := range map[string]string{
		c.Gateway.ID: "7", c.Console.Socket: "/data/holdfast.sock", b.ClientID: "holdfast-7-cloud", b.Username: "s",
		b.Upstreams[0].ClientID: "7-cloud-2", b.Routes[0].LocalPrefix: "cloud/", b.Routes[0].RemotePrefix: "site/7/7/",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	const fault = "test.toml:5: bridge.username: this board has no serial number; write {id} instead of {serial}"
	if err := mustLoad(t, text).Resolve(Identity{ID: "7"}); err == nil || err.Error() != fault {
		t.Errorf("%v, want %s", err, fault)
	}
}
