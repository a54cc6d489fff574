package e2e

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"holdfast/edge/packet"
)

// A user is added, its topics are narrowed down, and it is taken away again, with
// real clients connected all the time.
func TestUsersChangeWhileTheGatewayRuns(t *testing.T) {
	t.Parallel()
	pub, sub := tool(t, "mosquitto_pub"), tool(t, "mosquitto_sub")
	g := newHoldfast(t, "")
	g.start()
	where := hostAndPort(t, g.address)
	login := append(where, "-u", "pump", "-P", "sesame", "-q", "1")
	nobody := connect(t, g.address, packet.Connect{ClientID: "nobody", CleanStart: true})
	said := func(what string) int {
		b, _ := os.ReadFile(g.out.Name())
		return strings.Count(string(b), what)
	}
	reload := func(says string) {
		t.Helper()
		n := said(says)
		if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the log says "+says, func() bool { return said(says) > n }, g.tail)
	}
	if s := holdfastCommand(t, "sesame\n", "passwd", "-c", g.file(), "pump"); s.code != 0 {
		t.Fatal(s)
	}
	reload("configuration read again")
	listener := newProcess(t, sub, append(login, "-i", "listener", "-t", "out/#")...)
	before := subscriptions(t, g)
	listener.start()
	eventually(t, "it is subscribed", func() bool { return subscriptions(t, g) > before })
	command(t, pub, append(login, "-t", "out/a", "-m", "first")...)
	eventually(t, "it has arrived", func() bool { return strings.Contains(listener.tail(), "first") })
	edit := func(old, new string) {
		t.Helper()
		b, err := os.ReadFile(g.file())
		if err != nil || !strings.Contains(string(b), old) {
			t.Fatal(err, string(b))
		}
		if err := os.WriteFile(g.file(), []byte(strings.Replace(string(b), old, new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A file with a fault changes nothing.
	edit("publish = [\"#\"]", "publsh = [\"out/%u/#\"]")
	reload("the one before stays in use")
	command(t, pub, append(login, "-t", "out/a", "-m", "second")...)
	edit("publsh", "publish")
	reload("configuration read again")
	// MQTT 5 tells the publisher.
	out, _ := exec.Command(pub, append(login, "-V", "5", "-t", "out/a", "-m", "denied")...).CombinedOutput()
	if !strings.Contains(strings.ToLower(string(out)), "not authori") {
		t.Errorf("mosquitto_pub where it may not: %s", out)
	}
	command(t, pub, append(login, "-t", "out/pump/a", "-m", "third")...)
	eventually(t, "the listener is connected still and has all", func() bool {
		return listener.tail() == "first\nsecond\nthird\n"
	}, listener.tail)
	edit("name = \"pump\"", "name = \"valve\"")
	reload("configuration read again")
	eventually(t, "it is disconnected", func() bool { return subscriptions(t, g) == before })
	if out, err := exec.Command(pub, append(login, "-t", "out/pump/a", "-m", "x")...).CombinedOutput(); err == nil {
		t.Errorf("a user that was taken away could publish: %s", out)
	}
	// Who was there before, and needs no user, was left alone all the time.
	p := packet.Publish{Topic: []byte("x"), QoS: 1, PacketID: 1}
	if err := nobody.Send(p.Append(nil, packet.V311)); err != nil {
		t.Fatal(err)
	}
	if h, _, err := nobody.Next(); err != nil || h.Type != packet.PUBACK {
		t.Errorf("%v, %v", h.Type, err)
	}
}
