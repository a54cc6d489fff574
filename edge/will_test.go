package edge

import (
	"testing"

	"holdfast"
	"holdfast/edge/packet"
)

func TestAWillThatIsRefusedIsPublishedLater(t *testing.T) {
	refuse := func(disk *fakeDisk, err error) { disk.set(func() { disk.refuse = err }) }
	lose := func(b *bench) {
		b.connect("c", withWill("w", "gone", 1, true)).nc.Close()
		eventually(t, "the will was refused", func() bool {
			b.srv.wills.mu.Lock()
			defer b.srv.wills.mu.Unlock()
			return len(b.srv.wills.waiting) == 1
		})
	}
	willOnDisk := func(disk *fakeDisk) bool {
		disk.mu.Lock()
		defer disk.mu.Unlock()
		return disk.wills["c"] != nil
	}
	t.Run("when there is room again", func(t *testing.T) {
		disk := newFakeDisk()
		b := startBroker(t, disk)
		watch := b.connect("watch")
		watch.subscribe(1, "w", 1)
		refuse(disk, holdfast.ErrFull)
		lose(b)
		watch.expectNothing()
		refuse(disk, nil)
		watch.expectPublish("w", "gone", 1)
		eventually(t, "it is no longer on disk", func() bool { return !willOnDisk(disk) })
	})
	t.Run("when the disk works again", func(t *testing.T) {
		disk := newFakeDisk()
		b := startBroker(t, disk)
		c := b.connect("c", withWill("w", "gone", 1, true))
		disk.set(func() { disk.fail = errDisk })
		c.nc.Close()
		eventually(t, "the commit has failed", func() bool {
			disk.mu.Lock()
			defer disk.mu.Unlock()
			return len(disk.accepted) > 0
		})
		disk.set(func() { disk.fail = nil })
		eventually(t, "the will is published", func() bool { return !willOnDisk(disk) })
	})
	t.Run("but not after its client has come back", func(t *testing.T) {
		disk := newFakeDisk()
		b := startBroker(t, disk)
		refuse(disk, holdfast.ErrFull)
		lose(b)
		c := b.connect("c")
		if willOnDisk(disk) {
			t.Fatal("the next start would publish it")
		}
		refuse(disk, nil)
		c.publish("w", "here", 1, 1, retaining)
		c.expectAck(packet.PUBACK, 1)
		c.disconnect()
		b.stop()
		startBroker(t, disk).connect("d")
		disk.set(func() {
			if got := disk.retained["w"]; got == nil || string(got.Payload) != "here" {
				t.Errorf("retained is %v", got)
			}
		})
	})
}

func TestAWillOfARefusedConnectIsNotPublishedAtTheNextStart(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk)
	disk.hold()
	c := b.dial()
	p := packet.Connect{Version: packet.V311, ClientID: "c", Will: &packet.Will{Topic: "w", Payload: []byte("gone")}}
	c.send(p.Append(nil))
	eventually(t, "session and will are with the disk", func() bool { return disk.waiting() == 2 })
	disk.set(func() { disk.fail = errDisk })
	disk.step(0)
	disk.set(func() { disk.fail = nil })
	disk.letGo()
	if code := c.connack().Code; code != packet.RefusedUnavailable {
		t.Fatalf("return code %d", code)
	}
	c.expectEnd()
	disk.set(func() {
		if len(disk.wills) != 0 {
			t.Error("the will is still on disk")
		}
	})
}
