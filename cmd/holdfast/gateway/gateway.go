// Package gateway is the only place where the parts meet. The broker, the
// storage, the bridges and the modems do not know one another: each declares
// what it needs as a small interface, and the adapt_*.go files here, one a
// seam, fit them together.
//
// Where a message is, and who owns it:
//
//	sensor -> edge.conn            owns it until the broker has asked everyone
//	edge.Sink (adapt_sink.go)      asks every bridge whether it wants it, then hands
//	                               it with all its destinations to the storage
//	storage (one transaction)      owns it from here on: fsync, then done, and the
//	                               broker sends PUBACK
//	storage.Queue                  owns it until the far broker has acknowledged it
//	bridge -> upstream             borrows it; whatever ends the connection gives it
//	                               back to the queue
//
// Commands come down the same line backwards: upstream -> bridge -> adapt_local.go
// -> broker -> storage, and only then is the far broker told.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/cmd/holdfast/console"
	"holdfast/cmd/holdfast/queues"
	"holdfast/configs"
	"holdfast/edge"
	"holdfast/modem"
	"holdfast/storage"
)

// stopWait bounds how long connections may take for their last bytes.
const stopWait = 5 * time.Second

// Gateway is a running gateway.
type Gateway struct {
	cfg     *configs.Config
	log     *slog.Logger
	started time.Time
	version string

	store *storage.Store
	// volatile is why the store is in memory; nil if it is on disk. lookAgain is how
	// often the gateway looks then whether it could be.
	volatile  error
	lookAgain time.Duration

	broker  *edge.Server
	users   *edge.Users
	bridges bridges
	plans   plans
	local   *local
	modems  []*modem.Modem
	console *console.Server
	clock   *clock

	addresses []net.Addr // of the broker's listeners

	// Each kind of part has its own context, so that they stop in their order.
	stopBridges, stopModems context.CancelFunc
	bridgesCtx              context.Context
	listening               sync.WaitGroup
	bridging                sync.WaitGroup
	modeming                sync.WaitGroup

	watching atomic.Pointer[watching] // nil until Watch

	failed chan error // capacity 1: a part that must not end has ended
}

// Start starts every part, the storage first and the listeners last: nothing
// can be accepted before there is a place where it is safe. cfg must be valid
// and resolved (configs.Load, Resolve). version is that of the program.
func Start(cfg *configs.Config, version string, log *slog.Logger) (*Gateway, error) {
	g := &Gateway{cfg: cfg, version: version, log: log, started: time.Now(), failed: make(chan error, 1)}
	if err := g.start(); err != nil {
		return nil, errors.Join(err, g.Shutdown(context.Background()))
	}
	return g, nil
}

func (g *Gateway) start() error {
	// A folder that cannot be made is one that the store cannot write.
	_ = os.MkdirAll(g.cfg.Gateway.DataDir, 0o750)
	if err := g.openStore(); err != nil {
		return err
	}
	if err := g.makeModems(); err != nil {
		return err
	}
	g.makeClock()
	g.local = new(local)
	g.setPlans(g.cfg.Bridges)
	if err := g.makeBridges(); err != nil {
		return err
	}
	var err error
	if g.users, err = edge.NewUsers(access(g.cfg)); err != nil {
		return err
	}
	g.broker, err = edge.NewServer(edge.Options{
		Sink:   &sink{store: g.store, bridges: &g.bridges},
		Store:  sessionStore{g.store},
		Access: g.users,
		Logger: g.log.With("part", "broker"),
		Limits: g.limits(),

		SysInterval: g.cfg.Gateway.SysInterval, Version: g.version,
		GatewayID: g.cfg.Gateway.ID,
	})
	if err != nil {
		return err
	}
	g.local.broker = g.broker
	g.run()
	if err := g.listen(); err != nil {
		return err
	}
	api := queues.NewServer(g.store, func() []string { return g.bridges.now().names() })
	g.console, err = console.Start(console.Options{
		Address: g.cfg.Console.Address,
		Socket:  g.cfg.SocketPath(),
		Status:  func() any { return g.Status() },
		Queues:  api.Reads(), QueuesAll: api.All(),
		Metrics: metricsHandler(g.Status), Alive: g.Alive, Ready: g.Ready,
		Logger: g.log.With("part", "console"),
	})
	return err
}

// storeOptions says how the store of a configuration is opened, by the gateway
// and by the commands that work without one.
func storeOptions(cfg *configs.Config, log *slog.Logger) storage.Options {
	return storage.Options{
		Dir:            filepath.Join(cfg.Gateway.DataDir, "store"),
		Logger:         log.With("part", "storage"),
		MaxBytes:       int64(cfg.Storage.MaxBytes),
		Reserve:        int64(cfg.Storage.Reserve),
		CommitInterval: cfg.Storage.CommitInterval,
		Sync:           syncMode(cfg.Storage.Sync),
		SpillAfter:     cfg.Storage.SpillAfter,
		MaxPending:     int(cfg.Limits.MaxPendingBytes),
		Session: storage.QueueOptions{
			MaxBytes:    int64(cfg.Limits.MaxSessionBytes),
			MaxMessages: int64(cfg.Limits.MaxSessionMessages),
		},
	}
}

func (g *Gateway) limits() edge.Limits {
	l := g.cfg.Limits
	return edge.Limits{
		MaxPacketSize:     int(l.MaxPacketSize),
		MaxConnections:    l.MaxConnections,
		MaxConnectRate:    l.MaxConnectRate,
		MaxPublishRate:    l.MaxPublishRate,
		MaxInflight:       l.MaxInflight,
		ReceiveMaximum:    l.ReceiveMaximum,
		MaxInboundQoS2:    l.MaxInboundQoS2,
		MaxKeepAlive:      l.MaxKeepAlive,
		MaxOutboundBytes:  int(l.MaxOutboundBytes),
		MaxPendingBytes:   int(l.MaxPendingBytes),
		ConnectTimeout:    l.ConnectTimeout,
		RefuseWait:        refuseWait(g.cfg.Bridges),
		MaxClientIDLength: l.MaxClientIDLength,
		MaxSessions:       l.MaxSessions,
		MaxSubscriptions:  l.MaxSubscriptions,
		MaxRetained:       l.MaxRetained,
		MaxShares:         l.MaxShares,

		MaxRetainedWaiting: l.MaxRetainedWaiting,
		MaxRetainedBytes:   int(l.MaxRetainedBytes),
		MaxTopicLevels:     l.MaxTopicLevels,
	}
}

// run starts the goroutines of modems and bridges.
func (g *Gateway) run() {
	var ctx context.Context
	ctx, g.stopModems = context.WithCancel(context.Background())
	for _, m := range g.modems {
		g.modeming.Go(func() { g.mustNotEnd(ctx, "modem", m.Run(ctx)) })
	}
	g.bridgesCtx, g.stopBridges = context.WithCancel(context.Background())
	g.bridging.Go(func() { g.noteTime(g.bridgesCtx) })
	g.bridging.Go(func() { g.keepPlans(g.bridgesCtx) })
	if g.volatile != nil {
		g.bridging.Go(func() { g.awaitDisk(g.bridgesCtx) })
	}
	for _, b := range g.bridges.now().parts {
		g.runBridge(b)
	}
}

// mustNotEnd reports a part that has ended although nobody stopped it.
func (g *Gateway) mustNotEnd(ctx context.Context, part string, err error) {
	if ctx.Err() != nil || err == nil {
		return
	}
	select {
	case g.failed <- fmt.Errorf("%s: %w", part, err):
	default:
	}
}

// Failed delivers the error of a part that has ended by itself: the gateway
// should be shut down and started again.
func (g *Gateway) Failed() <-chan error { return g.failed }

// Addresses are those on which the broker listens, in the order of the
// configuration.
func (g *Gateway) Addresses() []net.Addr { return g.addresses }

// Shutdown stops the parts in the order in which messages flow - listeners and
// connections, bridges with their upstreams, modems, the storage last - and
// waits for each. It may be called once.
func (g *Gateway) Shutdown(ctx context.Context) error {
	var errs []error
	if g.console != nil {
		errs = append(errs, g.console.Shutdown(ctx))
	}
	if g.broker != nil {
		flush, cancel := context.WithTimeout(ctx, stopWait)
		if err := g.broker.Shutdown(flush); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			errs = append(errs, err)
		}
		cancel()
	}
	g.listening.Wait()
	if g.stopBridges != nil {
		g.stopBridges()
		g.bridging.Wait()
	}
	if g.stopModems != nil {
		g.stopModems()
		g.modeming.Wait()
	}
	if g.store != nil {
		errs = append(errs, g.store.Close())
	}
	return errors.Join(errs...)
}
