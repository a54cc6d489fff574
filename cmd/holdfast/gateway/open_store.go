package gateway

import (
	"errors"
	"fmt"
	"time"

	"holdfast"
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
	g.log.Error("nothing can be stored: the gateway runs from memory; QoS 0 flows, QoS 1 and 2 are delivered but not acknowledged where they should be on disk; mend the disk and restart", "error", err)
	g.store, err = storage.OpenMemory(o)
	return err
}

func syncMode(s string) storage.Sync {
	if s == configs.SyncSpill {
		return storage.Spill
	}
	return storage.Always
}

// withheldFor is how long the acknowledgement of a message is withheld that
// nothing can make safe; then its client is disconnected, so that it sends it
// again. It bounds what waits.
const withheldFor = 20 * time.Second

var errVolatile = errors.New("there is no disk to keep it on")

// withhold keeps the promise without a disk: what should be durable is
// delivered and forwarded, and not acknowledged.
func withhold(p *holdfast.Publication, appends int, done func(error)) func(error) {
	if p.Msg.QoS == 0 || appends+len(p.Sessions) == 0 && !p.Msg.Retain && p.Inbound == nil {
		return done
	}
	return func(err error) {
		if err != nil {
			done(err)
			return
		}
		time.AfterFunc(withheldFor, func() {
			done(fmt.Errorf("a message is not acknowledged: %w", errVolatile))
		})
	}
}
