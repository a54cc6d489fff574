package gateway

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"holdfast/configs"
	"holdfast/storage"
)

// Reload takes over [access] and the bridges of another configuration, which must
// be valid and resolved. Clients that it does not let in any more are
// disconnected. Nothing else changes before the next start, which the log says. An
// error leaves all as it was. It must not be called at the same time as another
// Reload or Shutdown.
//
// A bridge that is the same goes on undisturbed. One that has changed ends its
// connection and begins anew with the queue that it has: messages that were on
// their way and not acknowledged are sent again, in their order, and what comes
// meanwhile is queued by the new routes. The queue of a bridge that is there no
// more stays with its books, as at a start; a bridge of that name gets it back.
func (g *Gateway) Reload(cfg *configs.Config) error {
	next, err := g.planBridges(cfg.Bridges)
	if err != nil {
		return err
	}
	if err := g.users.Set(access(cfg)); err != nil {
		return err
	}
	g.broker.ReviewAccess()
	changed, err := g.changeBridges(next)
	g.log.Info("configuration read again", "users", len(cfg.Access.Users), "anonymous", cfg.Access.Anonymous, "bridges_changed", changed)
	if g.cfg.NeedsRestart(cfg) || refuseWait(g.cfg.Bridges) != refuseWait(cfg.Bridges) {
		g.log.Warn("only [access] and the bridges are taken over while the gateway runs, and these without refuse_wait: restart it for the other changes")
	}
	return err
}

// planBridges makes the bridges that have changed, and runs none.
func (g *Gateway) planBridges(bridges []configs.Bridge) (next []*bridgePart, err error) {
	parts := g.bridges.now().parts
	for _, c := range bridges {
		for _, u := range c.Upstreams {
			if u.Via != "" && !slices.ContainsFunc(g.cfg.Modems, func(m configs.Modem) bool { return m.Name == u.Via }) {
				return nil, fmt.Errorf("bridge %s: the modem %q is new: restart the gateway for it", c.Name, u.Via)
			}
		}
		var q *storage.Queue
		if i := slices.IndexFunc(parts, func(b *bridgePart) bool { return b.cfg.Name == c.Name }); i >= 0 {
			if reflect.DeepEqual(parts[i].cfg, c) {
				next = append(next, parts[i])
				continue
			}
			q = parts[i].queue
		} else if q, err = g.store.Queue(queuePrefix+c.Name, queueOptions(c)); err != nil {
			return nil, fmt.Errorf("open the queue of bridge %s: %w", c.Name, err)
		}
		b, err := g.makeBridge(c, q)
		if err != nil {
			return nil, err
		}
		next = append(next, b)
	}
	return next, nil
}

// changeBridges puts next in the place of the bridges that run. Messages are
// matched by the new ones before the old ones end: each finds its queue at any
// time.
func (g *Gateway) changeBridges(next []*bridgePart) (changed int, err error) {
	old := g.bridges.now().parts
	set := &bridgeSet{parts: next}
	var configured []configs.Bridge
	for _, b := range next {
		configured = append(configured, b.cfg)
	}
	// The bounds of the queues, and those that are retired.
	if _, set.retired, err = openQueues(g.store, configured); err != nil {
		return 0, err
	}
	g.bridges.p.Store(set)
	var ending []*bridgePart
	for _, b := range old {
		if !slices.Contains(next, b) {
			b.stop()
			ending = append(ending, b)
		}
	}
	for _, b := range ending {
		<-b.ended
		if !slices.ContainsFunc(next, func(n *bridgePart) bool { return n.cfg.Name == b.cfg.Name }) {
			changed++
			g.log.Warn("a bridge is not in the configuration any more: what is queued for it stays on disk until it is exported or purged (holdfast queue), or a bridge has this name again",
				"bridge", b.cfg.Name, "queued", b.queue.Len())
		}
	}
	for _, b := range next {
		if slices.Contains(old, b) {
			continue
		}
		changed++
		g.log.Info("a bridge begins with its new configuration", "bridge", b.cfg.Name, "queued", b.queue.Len())
		g.runBridge(b)
	}
	return changed, nil
}

// refuseWait is how long a publisher waits for a queue that refuses.
func refuseWait(bridges []configs.Bridge) (wait time.Duration) {
	for _, b := range bridges {
		if b.Queue.WhenFull == configs.Refuse {
			wait = max(wait, b.Queue.RefuseWait)
		}
	}
	return wait
}
