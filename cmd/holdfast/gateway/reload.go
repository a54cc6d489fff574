package gateway

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"holdfast/configs"
	"holdfast/edge"
	"holdfast/storage"
)

// Reload takes over [access] and the bridges of another configuration, which must
// be valid and resolved. Clients that it does not let in any more are
// disconnected. Nothing else changes before the next start, which the log says. An
// error leaves all as it was, but that of ctx: when it ends Reload waits no longer
// for bridges to end, and the gateway must be shut down. It must not be called at
// the same time as another Reload or Shutdown.
//
// A bridge that is the same goes on undisturbed. One that has changed ends its
// connection and begins anew with the queue that it has: messages that were on
// their way and not acknowledged are sent again, in their order, and what comes
// meanwhile is queued by the new routes. The queue of a bridge that is there no
// more stays with its books, as at a start; a bridge of that name gets it back.
func (g *Gateway) Reload(ctx context.Context, cfg *configs.Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := g.checkReload(cfg); err != nil {
		return err
	}
	g.setPlans(cfg.Bridges)
	set, err := g.planBridges(cfg.Bridges)
	if err != nil {
		return err
	}
	if err := g.users.Set(access(cfg)); err != nil {
		return err
	}
	g.broker.ReviewAccess()
	changed, err := g.changeBridges(ctx, set)
	if err != nil {
		return err
	}
	g.log.Info("configuration read again", "users", len(cfg.Access.Users), "anonymous", cfg.Access.Anonymous, "bridges_changed", changed)
	if g.cfg.NeedsRestart(cfg) || refuseWait(g.cfg.Bridges) != refuseWait(cfg.Bridges) {
		g.log.Warn("only [access] and the bridges are taken over while the gateway runs, and these without refuse_wait: restart it for the other changes")
	}
	return nil
}

// checkReload finds everything for which a configuration cannot be taken over,
// and changes nothing: behind it only a storage that has ended refuses.
func (g *Gateway) checkReload(cfg *configs.Config) error {
	if _, err := edge.NewUsers(access(cfg)); err != nil {
		return err
	}
	for _, c := range cfg.Bridges {
		for _, u := range c.Upstreams {
			if u.Via != "" && !slices.ContainsFunc(g.cfg.Modems, func(m configs.Modem) bool { return m.Name == u.Via }) {
				return fmt.Errorf("bridge %s: the modem %q is new: restart the gateway for it", c.Name, u.Via)
			}
		}
		// Not its own queue, which it would be opened for: this one is never run.
		if _, err := g.makeBridge(c, new(storage.Queue)); err != nil {
			return err
		}
	}
	return nil
}

// planBridges opens the queues, with their bounds, and makes the bridges that have
// changed. It runs none.
func (g *Gateway) planBridges(bridges []configs.Bridge) (*bridgeSet, error) {
	queues, retired, err := openQueues(g.store, bridges)
	if err != nil {
		return nil, err
	}
	parts, set := g.bridges.now().parts, &bridgeSet{retired: retired}
	for _, c := range bridges {
		if i := slices.IndexFunc(parts, func(b *bridgePart) bool { return reflect.DeepEqual(b.cfg, c) }); i >= 0 {
			set.parts = append(set.parts, parts[i])
			continue
		}
		b, err := g.makeBridge(c, queues[c.Name])
		if err != nil {
			return nil, err
		}
		set.parts = append(set.parts, b)
	}
	return set, nil
}

// changeBridges puts next in the place of the bridges that run. Messages are
// matched by the new ones before the old ones end: each finds its queue at any
// time.
func (g *Gateway) changeBridges(ctx context.Context, next *bridgeSet) (changed int, err error) {
	old := g.bridges.now().parts
	g.bridges.p.Store(next)
	var ending []*bridgePart
	for _, b := range old {
		if !slices.Contains(next.parts, b) {
			b.stop()
			ending = append(ending, b)
		}
	}
	for _, b := range ending {
		select {
		case <-b.ended:
		case <-ctx.Done(): // Shutdown waits for it
			return changed, fmt.Errorf("wait for bridge %s: %w", b.cfg.Name, ctx.Err())
		}
		if !slices.ContainsFunc(next.parts, func(n *bridgePart) bool { return n.cfg.Name == b.cfg.Name }) {
			changed++
			g.log.Warn("a bridge is not in the configuration any more: what is queued for it stays on disk until it is exported or purged (holdfast queue), or a bridge has this name again",
				"bridge", b.cfg.Name, "queued", b.queue.Len())
		}
	}
	for _, b := range next.parts {
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
