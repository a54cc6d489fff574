// Package bridge forwards the messages of chosen local topics to a far broker
// and brings commands back.
//
// Its place in a message's life:
//
//	edge            a PUBLISH is accepted; Match says which route owns it
//	storage.Queue   the message is on disk, then the publisher is acknowledged
//	  - - - - - - - everything below happens later, as the link allows
//	forward.go      the oldest first, a window of unacknowledged publishes
//	client.go       (or a modem) PUBLISH out, PUBACK or PUBCOMP in
//	storage.Queue   Ack: only now the message leaves the disk
//
// and backwards:
//
//	client_read.go  PUBLISH in
//	downlink.go     mapped, handed to the local broker, which makes it safe
//	client_read.go  PUBACK or PUBREC out: only now the far broker forgets it
//
// What is promised: a message leaves the queue only after the far broker's
// acknowledgement on the connection that it was sent on, or into quarantine;
// a command is acknowledged only after the local broker has accepted it. Both
// ways are at-least-once: after a lost connection everything that was not
// acknowledged is sent again, oldest first, before anything newer. QoS 2 can be
// exactly once (exactly.go, incoming.go).
//
// Goroutines: Run is the forwarder, with one that tells the local broker the
// state. Per connection it starts one that watches
// the connection, one that hands commands to the local broker, and one that
// looks for the way back to a preferred upstream, and waits for them; an Upstream
// waits for its own in Close. Acknowledgements are processed on the goroutine that the Upstream calls done on.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/edge/topic"
)

// The defaults and the bounds that are not options.
const (
	defaultWindow      = 100
	defaultWindowBytes = 1 << 20
	defaultBackoffMin  = time.Second
	defaultBackoffMax  = time.Minute
	defaultMaxAttempts = 5
	defaultAckTimeout  = 3 * time.Minute
	defaultFailback    = 5 * time.Minute

	maxRate          = 1_000_000
	maxWindow        = 20000            // well below the 65,535 packet identifiers of a session
	subscribeTimeout = 30 * time.Second // for one SUBACK
	drainGrace       = 500 * time.Millisecond
)

// UpstreamOption is one way to a far broker.
type UpstreamOption struct {
	Name    string // for logs and the status; unique
	Connect Connect
	// ClientID is the client identifier that Connect uses.
	ClientID string
	// Plan is the data plan that it goes over; nil if there is none. See plan.go.
	Plan *Plan
	// KeepAlive is what Connect tells the far broker, and Adaptive knows what, if
	// that is learned; see announce.go.
	KeepAlive time.Duration
	Adaptive  *Adaptive
	// CarriesAll says that every message can go this way.
	CarriesAll bool
	// Beside makes a connection that only carries messages up, without a will,
	// while another upstream with another ClientID is in use that cannot carry
	// them; nil if there is no such thing. See Connect.
	Beside Connect
}

// Options are what a bridge is made of. Zero values take the defaults.
type Options struct {
	Name      string // unique among the bridges; part of Origin
	GatewayID string // for logs
	Routes    []Route
	// Upstreams in the order of preference: the first that connects and takes
	// the subscriptions is used, until it is lost or one before it works again.
	Upstreams []UpstreamOption
	// FarSession, if not empty, makes messages of QoS 2 go exactly once (exactly.go):
	// it tells the far broker and the client identifier there from all others.
	// There must be one upstream, made with ClientOptions.Exactly, and Queue must
	// be an ExactQueue.
	FarSession string
	// Failback is about how long an upstream that did not work is left alone
	// while there are others (5 min).
	Failback time.Duration
	Queue    Queue // must be set if a route goes out
	Local    Local // must be set if a route goes in, or with a StateTopic
	// StateTopic and FarStateTopic are where the bridge tells in the local and in
	// the far broker whether it is connected (announce.go); "" is nowhere. The
	// connections must have a will for the second (ClientOptions.Will). StateSpace
	// is what the state topics of all bridges of this gateway begin with: nothing
	// from upstream is published there.
	StateTopic, FarStateTopic, StateSpace string
	// Window is the most publishes without acknowledgement at once (100; the
	// upstream's own bound if that is lower), WindowBytes the size at which no
	// further one is added (1 MiB; one message is always let through). Below
	// them the bytes on their way follow what the link carries; see pace.go.
	Window      int
	WindowBytes int
	// Rate is the most messages in a second; 0 is as many as the link takes.
	Rate int
	// LiveFirst sends what is fresh before the backlog (order.go), which still gets
	// BackfillShare percent of the messages, 0 to 90. Queue must be a FreshQueue.
	LiveFirst     bool
	BackfillShare int
	// Clock is the time for Route.Stamp, and whether it is sure to be right; nil
	// is the board's clock, taken for right.
	Clock func() (now time.Time, sure bool)
	// BackoffMin and BackoffMax bound the delay between attempts (1 s, 60 s).
	BackoffMin, BackoffMax time.Duration
	// MaxAttempts is how many times in a row a message may be the oldest
	// unacknowledged one when the connection dies before it is quarantined (5).
	MaxAttempts int
	// AckTimeout is how long publishes may wait with no acknowledgement at all
	// before the connection is given up (3 min).
	AckTimeout time.Duration
	Logger     *slog.Logger
}

// Bridge is one bridge. Match and Status are safe for concurrent use.
type Bridge struct {
	name        string
	origin      string // the loop cut
	out         []outRoute
	in          []inRoute
	encodings   map[string]Encoding // by route; none is AsIs
	upstreams   []UpstreamOption
	ways        []way // of upstreams; guarded by status.mu
	failback    time.Duration
	queue       Queue
	local       Local
	window      int
	windowBytes int
	maxAttempts int
	ackTimeout  time.Duration
	log         *slog.Logger

	gateway string
	clock   func() (time.Time, bool)
	stamps  map[string]bool // the routes that do, by name
	thin    *thinner
	fresh   FreshQueue // nil: the oldest goes first
	share   int        // percent, of the backlog
	newest  newest

	stateTopic, farStateTopic, stateSpace string
	wills                                 map[string]time.Time // by client identifier: until when one may be published; only Run
	announcer                             *announcer           // nil if there is no stateTopic

	farSession string
	incoming   incoming
	exactClean atomic.Bool // what has no message is free at the far broker, too
	farLost    atomic.Bool // the far broker has begun a new session; that is not surely on disk

	running atomic.Bool
	backoff backoff // only Run
	suspect suspect // only Run
	rate    rate    // only Run
	echoes  *echoes // nil if nothing that goes out can come back
	status  status
}

// New makes a bridge; it does nothing before Run. Every fault of o is in the
// error.
func New(o Options) (*Bridge, error) {
	o.setDefaults()
	b := &Bridge{
		name: o.Name, origin: holdfast.BridgeOrigin(o.Name),
		upstreams: o.Upstreams, ways: make([]way, len(o.Upstreams)), failback: o.Failback, queue: o.Queue, local: o.Local,
		window: o.Window, windowBytes: o.WindowBytes,
		maxAttempts: o.MaxAttempts, ackTimeout: o.AckTimeout,
		backoff: backoff{min: o.BackoffMin, max: o.BackoffMax},
		log:     o.Logger.With(slog.String("bridge", o.Name)),

		gateway: o.GatewayID, clock: o.Clock, stamps: map[string]bool{},
		stateTopic: o.StateTopic, farStateTopic: o.FarStateTopic, stateSpace: o.StateSpace,
		encodings: make(map[string]Encoding), farSession: o.FarSession,
	}
	if o.GatewayID != "" {
		b.log = b.log.With(slog.String("gateway", o.GatewayID))
	}
	b.status.s.State = Stopped
	b.mayHaveLeft()
	b.share = o.BackfillShare
	rules := map[string]thinRule{}
	if o.StateTopic != "" {
		b.announcer = &announcer{b: b, wake: make(chan struct{}, 1), want: Offline}
	}
	if o.Rate > 0 {
		b.rate.every = time.Second / time.Duration(o.Rate)
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if o.Name == "" {
		fault("the bridge has no name")
	}
	if len(o.Routes) == 0 {
		fault("the bridge has no route: it would forward nothing")
	}
	names := make(map[string]bool)
	for i, r := range o.Routes {
		if r.Name == "" {
			r.Name = r.DefaultName()
		}
		if names[r.Name] {
			fault("route %q: the name is used twice: give each route a name of its own", r.Name)
		}
		names[r.Name] = true
		if err := r.Validate(); err != nil {
			fault("route %d (%q): %w", i+1, r.Name, err)
			continue
		}
		if r.Direction.out() {
			b.encodings[r.Name] = r.Encoding
			b.out = append(b.out, newOutRoute(r))
			b.stamps[r.Name] = r.Stamp
			if r.Sample > 0 || r.OnChange {
				rules[r.Name] = thinRule{r.Sample, r.OnChange}
			}
		}
		if r.Direction.in() {
			b.in = append(b.in, newInRoute(r))
		}
	}
	b.findEchoes()
	b.thin = newThinner(rules, b.late, b.leaveOut, b.letBack, b.unthinned)
	if len(b.out) > 0 && o.Queue == nil {
		fault("routes go out, but there is no queue")
	}
	if len(b.in) > 0 && o.Local == nil {
		fault("routes come in, but there is no local broker to publish to")
	}
	if o.StateTopic != "" && o.Local == nil {
		fault("there is a topic for the state, but no local broker to publish to")
	}
	for _, name := range []string{o.StateTopic, o.FarStateTopic} {
		if err := topic.ValidName(name); name != "" && err != nil {
			fault("state topic %q: %w", name, err)
		}
	}
	if len(o.Upstreams) == 0 {
		fault("the bridge has no upstream to connect to")
	}
	seen := make(map[string]bool)
	for i, u := range o.Upstreams {
		if u.Connect == nil {
			fault("upstream %d (%q) cannot be connected to", i+1, u.Name)
		}
		if seen[u.Name] {
			fault("upstream %q is there twice", u.Name)
		}
		seen[u.Name] = true
	}
	if o.Window < 1 || o.Window > maxWindow {
		fault("window is %d: it must be between 1 and %d", o.Window, maxWindow)
	}
	if o.WindowBytes < 1 {
		fault("window bytes are %d: they must be positive", o.WindowBytes)
	}
	if o.BackoffMin < 0 || o.BackoffMax < o.BackoffMin {
		fault("backoff is %v to %v: the second must not be below the first", o.BackoffMin, o.BackoffMax)
	}
	if o.Rate < 0 || o.Rate > maxRate {
		fault("rate is %d: it must be between 0 and %d", o.Rate, maxRate)
	}
	if o.LiveFirst {
		if b.fresh, _ = o.Queue.(FreshQueue); b.fresh == nil {
			fault("the queue cannot give what is fresh before its backlog")
		}
	}
	if _, ok := o.Queue.(ExactQueue); o.FarSession != "" && (!ok || len(o.Upstreams) != 1) {
		fault("exactly once needs one upstream, and a queue that remembers packet identifiers")
	}
	if _, ok := o.Local.(ExactLocal); o.FarSession != "" && len(b.in) > 0 && !ok {
		fault("exactly once needs a local broker that remembers packet identifiers")
	}
	if o.BackfillShare < 0 || o.BackfillShare > 90 {
		fault("the share of the backlog is %d %%: it must be between 0 and 90", o.BackfillShare)
	}
	if o.Failback < 0 {
		fault("the time before the way back is negative: %v", o.Failback)
	}
	if o.MaxAttempts < 1 {
		fault("attempts are %d: there must be at least one", o.MaxAttempts)
	}
	if o.AckTimeout < 0 {
		fault("the time to wait for an acknowledgement is negative: %v", o.AckTimeout)
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("bridge %q: %w", o.Name, errors.Join(faults...))
	}
	return b, nil
}

func (o *Options) setDefaults() {
	setDefault(&o.Window, defaultWindow)
	setDefault(&o.WindowBytes, defaultWindowBytes)
	setDefault(&o.BackoffMin, defaultBackoffMin)
	setDefault(&o.BackoffMax, max(defaultBackoffMax, o.BackoffMin))
	setDefault(&o.MaxAttempts, defaultMaxAttempts)
	setDefault(&o.AckTimeout, defaultAckTimeout)
	setDefault(&o.Failback, defaultFailback)
	if o.Clock == nil {
		o.Clock = func() (time.Time, bool) { return time.Now(), true }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Run connects, forwards and receives until ctx ends. Then it has waited for
// everything that it started, and everything that was sent and not
// acknowledged is back in the queue. It must not be called again while it runs.
func (b *Bridge) Run(ctx context.Context) error {
	if !b.running.CompareAndSwap(false, true) {
		return fmt.Errorf("bridge %q runs already", b.name)
	}
	defer b.running.Store(false)
	defer b.status.stopped()
	if b.announcer != nil {
		told := make(chan struct{})
		go func() {
			defer close(told)
			b.announcer.run(ctx)
		}()
		defer func() { <-told }()
	}

	var c *connection // a better one than the last, if it was made already
	for ctx.Err() == nil {
		var err error
		if c == nil {
			if why := b.allSpent(); why != nil {
				b.sitOut(ctx, why)
				continue
			}
			c, err = b.connect(ctx)
		}
		if c != nil {
			if c, err = b.use(ctx, c); c != nil || errors.Is(err, errSpent) {
				continue
			}
		} else if ctx.Err() == nil {
			b.log.Warn("bridge cannot connect", slog.Any("error", err))
		}
		if ctx.Err() != nil {
			break
		}
		delay := b.backoff.next()
		b.status.waiting(err, time.Now().Add(delay))
		wait(ctx, delay)
	}
	if c != nil {
		c.abandon()
	}
	return nil
}

// use serves one connection until it ends, and says why it has. better is the
// one to go on with, if there is.
func (b *Bridge) use(ctx context.Context, c *connection) (better *connection, err error) {
	since := time.Now()
	b.status.connected(c.name)
	b.announce(Online)
	b.log.Info("bridge is connected", slog.String("upstream", c.name))
	returned := make(chan *connection, 1)
	go func() {
		if c.index == 0 {
			returned <- nil
			return
		}
		returned <- b.returner(c, ctx)
	}()
	err = c.serve(ctx)
	b.left(c)
	lasted := time.Since(since)
	b.backoff.lasted(lasted, c.acked > 0 && !errors.Is(err, errLater))
	if better = <-returned; better != nil {
		b.log.Info("bridge goes back to a preferred upstream", slog.String("from", c.name), slog.String("to", better.name))
		return better, nil
	}
	b.announce(Offline)
	switch {
	case errors.Is(err, errSpent):
		b.log.Warn("bridge ends its connection", slog.String("upstream", c.name), slog.Any("error", err))
	case ctx.Err() == nil:
		err = explainLoss(err, lasted)
		b.ended(c.index, lasted, err)
		b.log.Warn("bridge has lost its connection", slog.String("upstream", c.name),
			slog.Duration("after", lasted), slog.Any("error", err))
	}
	return nil, err
}
