package gateway

import (
	"errors"

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
	g.log.Error("nothing can be stored: the gateway runs from memory; QoS 0 flows, QoS 1 is acknowledged when those who are to get it have acknowledged it, QoS 2 and retained messages are delivered and not acknowledged; mend the disk and restart", "error", err)
	o.Volatile = true
	g.store, err = storage.OpenMemory(o)
	return err
}

func syncMode(s string) storage.Sync {
	if s == configs.SyncSpill {
		return storage.Spill
	}
	return storage.Always
}
