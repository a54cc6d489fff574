package gateway

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/bridge"
	"holdfast/configs"
	"holdfast/modem"
	"holdfast/storage"
)

// makeModems makes every modem of the configuration.
func (g *Gateway) makeModems() error {
	turn := make(chan struct{}, 1) // to reset a module
	turn <- struct{}{}
	for _, c := range g.cfg.Modems {
		o := modemOptions(c, g.cfg.Gateway.DataDir, g.log)
		o.ResetTurn = turn
		// The clock is made after the modems, which it listens to.
		o.Now = func() (time.Time, bool) { return g.clock.now() }
		m, err := modem.New(o)
		if err != nil {
			return fmt.Errorf("modem %s: %w", c.Name, err)
		}
		g.modems = append(g.modems, m)
	}
	return nil
}

// queuePrefix begins the name of every bridge's queue in the store.
const queuePrefix = "bridge/"

func queueOptions(b configs.Bridge) storage.QueueOptions {
	c := b.Queue
	return storage.QueueOptions{
		MaxBytes:    int64(c.MaxBytes),
		MaxMessages: int64(c.MaxMessages),
		WhenFull:    whenFull(c.WhenFull),
		MaxAge:      c.MaxAge,
		RouteMaxAge: maxAges(b.Routes),
		Ledger:      true,
	}
}

// openQueues opens the queues of the bridges in the configuration, and those
// that earlier ones have left: their books and backlogs stay until somebody
// exports or purges them.
func openQueues(s *storage.Store, bridges []configs.Bridge) (queues map[string]*storage.Queue, retired []*storage.Queue, err error) {
	queues = make(map[string]*storage.Queue)
	for _, c := range bridges {
		if queues[c.Name], err = s.Queue(queuePrefix+c.Name, queueOptions(c)); err != nil {
			return nil, nil, fmt.Errorf("open the queue of bridge %s: %w", c.Name, err)
		}
	}
	for _, name := range s.Names() {
		if queues[strings.TrimPrefix(name, queuePrefix)] != nil {
			continue
		}
		q, err := s.Queue(name, storage.QueueOptions{Ledger: true})
		if err != nil {
			return nil, nil, fmt.Errorf("open the retired queue %s: %w", name, err)
		}
		retired = append(retired, q)
	}
	return queues, retired, nil
}

// bridgePart is a bridge with its queue.
type bridgePart struct {
	*bridge.Bridge
	cfg   configs.Bridge
	queue *storage.Queue

	stop  context.CancelFunc // nil: it was never run
	ended chan struct{}
}

// bridgeSet is what there is of bridges at one time. It does not change.
type bridgeSet struct {
	parts   []*bridgePart
	retired []*storage.Queue // of bridges that are no longer in the configuration
}

// bridges are those of now: Reload changes them.
type bridges struct{ p atomic.Pointer[bridgeSet] }

func (b *bridges) now() *bridgeSet {
	if s := b.p.Load(); s != nil {
		return s
	}
	return new(bridgeSet) // they are not made yet
}

func (s *bridgeSet) names() (list []string) {
	for _, b := range s.parts {
		list = append(list, b.cfg.Name)
	}
	return list
}

// makeBridges makes every bridge with its queue, which has the bridge's name:
// a backlog belongs to a name, not to a place in the file.
func (g *Gateway) makeBridges() error {
	queues, retired, err := openQueues(g.store, g.cfg.Bridges)
	if err != nil {
		return err
	}
	set := &bridgeSet{retired: retired}
	for _, c := range g.cfg.Bridges {
		b, err := g.makeBridge(c, queues[c.Name])
		if err != nil {
			return err
		}
		set.parts = append(set.parts, b)
	}
	g.bridges.p.Store(set)
	return nil
}

func (g *Gateway) makeBridge(c configs.Bridge, q *storage.Queue) (*bridgePart, error) {
	o := bridge.Options{
		Name: c.Name, GatewayID: g.cfg.Gateway.ID,
		StateTopic: stateSpace(g.cfg.Gateway.ID) + c.Name + "/state", FarStateTopic: c.StateTopic, StateSpace: stateSpace(g.cfg.Gateway.ID),
		Queue: q, Local: bridgeLocal{g.local, queuePrefix + c.Name}, Window: c.Queue.Window, Rate: c.Queue.Rate, Failback: c.Failback,
		LiveFirst: c.Queue.Order == configs.LiveFirst, BackfillShare: c.Queue.BackfillShare,
		Clock: g.clock.now, Logger: g.log.With("part", "bridge"),
	}
	for _, r := range c.Routes {
		o.Routes = append(o.Routes, route(r))
	}
	if c.ExactlyOnce() {
		o.FarSession = clientID(c, c.Upstreams[0]) + " at " + c.Upstreams[0].URL
	}
	loops := len(bridge.FindEchoes(o.Routes)) > 0
	for _, u := range c.Upstreams {
		plan, _ := g.planFor(c.Name, u)
		o.Upstreams = append(o.Upstreams, bridge.UpstreamOption{
			Plan: plan, KeepAlive: max(c.KeepAlive, 0), Adaptive: g.adaptive(c, u),
			Name: upstreamName(u), ClientID: clientID(c, u), CarriesAll: g.carriesAll(u),
		})
		o := &o.Upstreams[len(o.Upstreams)-1]
		o.Connect, o.Beside = g.connector(c, u, o.Adaptive, loops), g.connector(besideOf(c), u, nil, loops)
	}
	b, err := bridge.New(o)
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", c.Name, err)
	}
	return &bridgePart{Bridge: b, cfg: c, queue: q}, nil
}

// runBridge runs b until it is stopped, alone or with the others.
func (g *Gateway) runBridge(b *bridgePart) {
	var ctx context.Context
	ctx, b.stop = context.WithCancel(g.bridgesCtx)
	b.ended = make(chan struct{})
	g.bridging.Go(func() {
		defer close(b.ended)
		g.mustNotEnd(ctx, "bridge "+b.cfg.Name, b.Run(ctx))
	})
}

// stateSpace is what the topics of the states of all bridges begin with.
func stateSpace(id string) string { return "holdfast/" + id + "/bridge/" }

func upstreamName(u configs.Upstream) string {
	if u.Via != "" {
		return u.URL + " via " + u.Via
	}
	if u.Interface != "" {
		return u.URL + " over " + u.Interface
	}
	return u.URL
}

func route(r configs.Route) bridge.Route {
	return bridge.Route{
		Name: r.Name, Direction: direction(r.Direction), Filter: r.Topic, Exclude: r.Exclude,
		LocalPrefix: r.LocalPrefix, RemotePrefix: r.RemotePrefix,
		QoS: byte(r.QoS), Retain: r.Retain, Lane: lane(r.Priority), Encoding: encoding(r.Encoding),
		Sample: r.Sample, OnChange: r.OnChange, Stamp: r.Stamp,
	}
}

// maxAges is the age that the messages of each route may reach, by the name of
// the route in the queue.
func maxAges(routes []configs.Route) map[string]time.Duration {
	ages := make(map[string]time.Duration)
	for _, r := range routes {
		if r.MaxAge > 0 {
			ages[r.Name] = r.MaxAge
		}
	}
	return ages
}

func direction(s string) bridge.Direction {
	switch s {
	case configs.In:
		return bridge.In
	case configs.Both:
		return bridge.Both
	}
	return bridge.Out
}

func lane(s string) holdfast.Lane {
	for l := range holdfast.Lane(holdfast.LaneCount) {
		if l.String() == s {
			return l
		}
	}
	return holdfast.Normal
}

func encoding(s string) bridge.Encoding {
	switch s {
	case configs.Base64:
		return bridge.Base64
	case configs.Base64Always:
		return bridge.Base64Always
	}
	return bridge.AsIs
}

func whenFull(s string) storage.WhenFull {
	switch s {
	case configs.DropNewest:
		return storage.DropNewest
	case configs.Refuse:
		return storage.Refuse
	}
	return storage.DropOldest
}

// besideOf is the bridge for a connection that only carries messages up: it must
// not have the will, which would say that the bridge is gone.
func besideOf(b configs.Bridge) configs.Bridge {
	b.StateTopic = ""
	if b.KeepAlive == configs.Adaptive {
		b.KeepAlive = 0 // the client's own: it is never idle for long
	}
	return b
}

// carriesAll reports whether it is known that u is not the MQTT client inside a
// module, which cannot carry everything.
func (g *Gateway) carriesAll(u configs.Upstream) bool {
	for _, m := range g.cfg.Modems {
		if m.Name == u.Via && !m.OwnClient() {
			return false
		}
	}
	return true
}

// connector makes the way to one upstream: over the board's network, or
// through a modem.
func (g *Gateway) connector(b configs.Bridge, u configs.Upstream, a *bridge.Adaptive, loops bool) bridge.Connect {
	for _, m := range g.modems {
		if m.Status().Name == u.Via {
			return g.throughModem(m, b, u, a, loops)
		}
	}
	return g.overNetwork(b, u, a, loops, nil)
}

// adaptive is what is known of the keep-alive of an upstream; nil if that is fixed.
func (g *Gateway) adaptive(b configs.Bridge, u configs.Upstream) *bridge.Adaptive {
	if b.KeepAlive != configs.Adaptive {
		return nil
	}
	file := filepath.Join(g.cfg.Gateway.DataDir, "keepalive", fileName(b.Name+" "+upstreamName(u)))
	return bridge.NewAdaptive(file, g.log.With("part", "bridge", "bridge", b.Name))
}

func clientID(b configs.Bridge, u configs.Upstream) string {
	if u.ClientID != "" {
		return u.ClientID
	}
	return b.ClientID
}

// stateWill is what the far broker is to tell when the connection is lost; nil for
// nothing.
func stateWill(b configs.Bridge) *holdfast.Message {
	if b.StateTopic == "" {
		return nil
	}
	return bridge.StateMessage(b.StateTopic, bridge.Offline)
}

// overNetwork makes the way to an upstream with our own MQTT client; dial nil is
// the board's own network.
func (g *Gateway) overNetwork(b configs.Bridge, u configs.Upstream, a *bridge.Adaptive, loops bool, dial bridge.Dialer) bridge.Connect {
	var password func() (string, error)
	if b.Password.IsSet() {
		password = func() (string, error) { return b.Password.Reveal(), nil }
	}
	wait := time.Duration(0) // the client's own
	if dial == nil {
		dial = bridge.BoardDialer(u.Interface)
		if _, meter := g.planFor(b.Name, u); meter != nil {
			dial = meter.Dialer(dial)
		}
	} else {
		wait = modemConnectWait
	}
	connect := bridge.MQTT3Connect
	if b.Protocol == "5" {
		connect = bridge.MQTT5Connect
	}
	return connect(bridge.ClientOptions{
		URL: u.URL, ClientID: clientID(b, u), GatewayID: g.cfg.Gateway.ID, Username: b.Username, Password: password,
		KeepAlive: max(b.KeepAlive, 0), Adaptive: a, CleanSession: b.CleanSession, Exactly: b.ExactlyOnce(), BridgeBit: loops, Will: stateWill(b),
		TLS:  g.tlsOptions(b, u),
		Dial: dial, ConnectTimeout: wait, MaxPacket: int(g.cfg.Limits.MaxPacketSize),
		Logger: g.log.With("part", "bridge", "bridge", b.Name),
	})
}

func (g *Gateway) tlsOptions(b configs.Bridge, u configs.Upstream) bridge.TLSOptions {
	return bridge.TLSOptions{
		CAFile: b.CA, CertFile: b.Cert, KeyFile: b.Key,
		ServerName: u.ServerName, ALPN: u.ALPN, Clock: g.clock.now,
	}
}
