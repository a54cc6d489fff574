package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/edge/packet"
	"holdfast/storage"
)

// card is an ext4 file system of its own. It has no name that others see, and
// goes with this process, however that ends.
type card struct {
	t     *testing.T
	image string
	root  *os.File
}

func newCard(t *testing.T) *card {
	t.Helper()
	if os.Getuid() != 0 {
		skipCard(t, "only root may mount one")
	}
	c := &card{t: t, image: filepath.Join(t.TempDir(), "image")}
	if err := os.WriteFile(c.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(c.image, 64<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", c.image).CombinedOutput(); err != nil {
		skipCard(t, fmt.Sprintf("mkfs.ext4: %v %s", err, out))
	}
	return c
}

// skipCard skips the test, loudly. In CI it fails, unless the kernel has no loop
// devices.
func skipCard(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" && os.Getuid() == 0 {
		if _, err := os.Stat("/dev/loop-control"); err == nil {
			t.Fatal(why)
		}
	}
	t.Skip("NOT TESTED, a card that cannot be written: " + why)
}

// insert mounts it with options and returns its folder.
func (c *card) insert(options string) string {
	c.t.Helper()
	mount := c.t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,"+options, c.image, mount).CombinedOutput(); err != nil {
		skipCard(c.t, fmt.Sprintf("mount: %v %s", err, out))
	}
	root, err := os.Open(mount)
	if out, umount := exec.Command("umount", "-l", mount).CombinedOutput(); err != nil || umount != nil {
		c.t.Fatalf("umount %s: %v %v %s", mount, err, umount, out)
	}
	c.root = root
	c.t.Cleanup(func() { root.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root.Fd())
}

// die has every further write to it answered with an input/output error.
func (c *card) die() {
	c.t.Helper()
	const shutdown, noFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
	if err := unix.IoctlSetPointerInt(int(c.root.Fd()), shutdown, noFlush); err != nil {
		skipCard(c.t, fmt.Sprintf("the kernel cannot shut down a file system: %v", err))
	}
}

// insertInto makes the card the data folder of a gateway that was not started.
func (c *card) insertInto(g *holdfast, options string) {
	c.t.Helper()
	if err := os.Symlink(c.insert(options), filepath.Join(g.dir, "data")); err != nil {
		c.t.Fatal(err)
	}
}

// of is how many messages of a publisher have arrived.
func (k *collector) of(name string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.seen[name])
}

// acknowledgesWhatTheUpstreamHas publishes, and looks whether the upstream has
// everything that was acknowledged; without an upstream nothing may be.
func acknowledgesWhatTheUpstreamHas(t *testing.T, g *holdfast, up *mosquitto, k *collector, name string) {
	t.Helper()
	eventually(t, "the bridge is connected", func() bool { return g.bridge().State == "connected" }, g.tail)
	c := connect(t, g.address, packet.Connect{ClientID: name, CleanStart: true})
	zero := packet.Publish{Topic: []byte("s/zero"), Payload: []byte(name + "0/0")}
	if err := c.Send(zero.Append(nil, packet.V311)); err != nil {
		t.Fatal(err)
	}
	publishAll(t, c, name, "s/"+name, 500, 50)
	arrived := func(n int, name string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d messages of %s are upstream", n, name), func() bool { return k.of(name) == n }, g.tail)
	}
	arrived(1, name+"0")
	arrived(500, name)

	up.cmd.Process.Signal(syscall.SIGSTOP)
	p := packet.Publish{Topic: []byte("s/" + name), QoS: 1, PacketID: 7, Payload: []byte(name + "/500")}
	if err := c.Send(p.Append(nil, packet.V311)); err != nil {
		t.Fatal(err)
	}
	acked := make(chan error, 1)
	go func() { _, _, err := c.Next(); acked <- err }()
	eventually(t, "the message has been taken", func() bool { return g.bridge().Queued == 1 }, g.tail)
	select {
	case err := <-acked:
		t.Errorf("answered (%v) although nobody has it", err)
	default:
	}
	up.cmd.Process.Signal(syscall.SIGCONT)
	if err := <-acked; err != nil {
		t.Errorf("the upstream has it: %v", err)
	}
	arrived(501, name)
}

// onDeadCard starts a gateway whose card cannot be written.
func onDeadCard(t *testing.T, g *holdfast) {
	t.Helper()
	g.start()
	if st, err := g.status(); err != nil || st.Storage.Mode != "memory" || st.Storage.Reason == "" {
		t.Fatalf("%v %+v\n%s", err, st.Storage, g.tail())
	}
}

func TestAGatewayThatStartsOnAnUnwritableCardAcknowledgesWhatTheUpstreamHas(t *testing.T) {
	for name, spoil := range map[string]func(c *card, g *holdfast){
		"read-only": func(c *card, g *holdfast) { c.insertInto(g, "ro") },
		"dead":      func(c *card, g *holdfast) { c.insertInto(g, "rw"); c.die() },
	} {
		t.Run(name, func(t *testing.T) {
			card := newCard(t)
			up := newMosquitto(t)
			up.start()
			g := newHoldfast(t, fmt.Sprintf(outRoute, up.address))
			spoil(card, g)
			onDeadCard(t, g)
			k := newCollector(t)
			k.attach(up.address, "gw/#")
			acknowledgesWhatTheUpstreamHas(t, g, up, k, "p")
		})
	}
}

func TestAGatewayWhoseCardDiesAcknowledgesWhatTheUpstreamHas(t *testing.T) {
	t.Parallel()
	card := newCard(t)
	up := newMosquitto(t)
	up.start()
	g := newHoldfast(t, fmt.Sprintf(outRoute, up.address))
	card.insertInto(g, "rw")
	g.start()
	k := newCollector(t)
	k.attach(up.address, "gw/#")
	c := connect(t, g.address, packet.Connect{ClientID: "before", CleanStart: true})
	publishAll(t, c, "before", "s/before", 100, 10)
	k.check(100, "before")
	card.die()
	// The next message meets the dead card, and is not acknowledged, unless
	// something else has met it first: then the upstream has it.
	p := packet.Publish{Topic: []byte("s/next"), QoS: 1, PacketID: 1, Payload: []byte("next/0")}
	if err := c.Send(p.Append(nil, packet.V311)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Next(); err == nil {
		eventually(t, "the upstream has what was acknowledged", func() bool { return k.of("next") == 1 }, g.tail)
	}
	died := false
	eventually(t, "the gateway notices that its card is dead", func() bool {
		select {
		case <-g.done:
			g.cmd, died = nil, true
			return true
		default:
		}
		st, err := g.status()
		return err == nil && st.Storage.Failed != ""
	}, g.tail)
	if died && storage.Corrected() {
		t.Fatalf("the gateway has ended\n%s", g.tail())
	} else if died {
		// A page of a mapped file that a dead card cannot give is SIGBUS there.
		// Whatever watches over the gateway starts it.
		onDeadCard(t, g)
	}
	acknowledgesWhatTheUpstreamHas(t, g, up, k, "after")
	g.end(syscall.SIGTERM) // and it can be stopped
}
