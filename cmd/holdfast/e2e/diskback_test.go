package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"holdfast/edge/packet"
	"holdfast/storage"
)

// fillUp takes all the space that a folder's disk has left, in a file.
func fillUp(t *testing.T, dir string) (file string) {
	t.Helper()
	file = filepath.Join(dir, "filler")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return file
}

// Nobody is there to restart a gateway that had to start on a full card.
func TestAGatewayThatStartedOnAFullCardHasItWhenThereIsSpace(t *testing.T) {
	t.Parallel()
	if !storage.Corrected() {
		t.Skip("NOT TESTED: the gateway was " + storage.Uncorrected)
	}
	card := newCard(t)
	up := newMosquitto(t)
	g := newHoldfast(t, fmt.Sprintf(outRoute, up.address))
	card.insertInto(g, "rw")
	g.start()
	c := connect(t, g.address, packet.Connect{ClientID: "before", CleanStart: true})
	publishAll(t, c, "before", "s/before", 200, 50)
	g.end(syscall.SIGKILL)

	filler := fillUp(t, filepath.Join(g.dir, "data"))
	onDeadCard(t, g)
	pid := g.cmd.Process.Pid
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gateway has its disk again", func() bool {
		st, err := g.status()
		return err == nil && st.Storage.Mode == "disk"
	}, g.tail)
	if g.cmd.Process.Pid != pid || g.cmd.ProcessState != nil {
		t.Error("it is another process")
	}
	k := newCollector(t)
	up.start()
	k.attach(up.address, "gw/#")
	c = connect(t, g.address, packet.Connect{ClientID: "after", CleanStart: true})
	publishAll(t, c, "after", "s/after", 200, 50)
	k.check(200, "before", "after")
	g.end(syscall.SIGTERM)
}
