package gateway

import (
	"context"
	"errors"
	"time"

	"holdfast/configs"
	"holdfast/storage"
)

// openStore opens the store, in memory if the disk cannot be written: a gateway
// that runs and tells is worth more than one that is down.
func (g *Gateway) openStore() error {
	o := storeOptions(g.cfg, g.log)
	var err error
	g.store, err = storage.Open(o)
	if !errors.Is(err, storage.ErrUnwritable) {
		return err
	}
	g.volatile = err
	g.log.Error("nothing can be stored: the gateway runs from memory; QoS 0 flows, QoS 1 is acknowledged when those who are to get it have acknowledged it, QoS 2 and retained messages are delivered and not acknowledged; mend the disk, and the gateway starts again with it", "error", err)
	g.lookAgain = lookEvery
	if storage.Writable(o.Dir) == nil {
		g.lookAgain = lookSeldom
	}
	o.Volatile = true
	g.store, err = storage.OpenMemory(o)
	return err
}

// ErrDiskBack is what Failed delivers when the gateway runs from memory, and the
// folder can be written again: with a start it would have its disk. No message that it
// has in memory was promised to anybody; sessions that were made meanwhile are lost, as
// with any end of the process (docs/durability.md).
var ErrDiskBack = errors.New("the folder can be written again")

const (
	// lookEvery is how often a gateway that runs from memory looks for its disk.
	lookEvery = 10 * time.Second
	// lookSeldom is how often if the store did not open although the folder can be
	// written, as with a card that cannot be read: each try costs every connection.
	lookSeldom = 30 * time.Minute
)

// awaitDisk reports a disk that is back, until ctx ends.
func (g *Gateway) awaitDisk(ctx context.Context) {
	dir := storeOptions(g.cfg, g.log).Dir
	tick := time.NewTicker(g.lookAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if storage.Writable(dir) == nil {
			g.mustNotEnd(ctx, "storage", ErrDiskBack)
			return
		}
	}
}

func syncMode(s string) storage.Sync {
	if s == configs.SyncSpill {
		return storage.Spill
	}
	return storage.Always
}
