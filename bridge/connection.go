package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"holdfast"
)

// errLost marks that the upstream has ended by itself: its Err says why.
var errLost = errors.New("the connection is lost")

// errUnanswered ends a connection on which nothing is acknowledged any more.
var errUnanswered = errors.New("the far broker has stopped acknowledging what is sent to it: the link is half open, or the broker does not answer a publish that it does not permit")

// connection is one connection to an upstream, from its subscriptions to its
// end. It is never reused.
type connection struct {
	b      *Bridge
	index  int // of the upstream
	name   string
	plan   *Plan // that it goes over; nil if there is none
	up     Upstream
	dl     *downlink
	window int
	quiet  bool   // the far broker sends us nothing of our own
	props  bool   // it gets the properties of messages
	far    string // the gateway that the far broker belongs to; "": none

	exactly *exactly // nil: QoS 2 is at least once
	mends   bool     // it is nil because of the store; only watch

	batch batcher // up, if it is one
	more  bool    // the queue may have more at once; only forward

	sinceLow int // messages since the last of the low lane; only forward
	owed     int // percent of a message, to the backlog; only forward

	ctx    context.Context // ends with the connection, its cause says why
	cancel context.CancelCauseFunc

	room chan struct{} // has a token when something was finished

	mu         sync.Mutex
	head, tail *flight // unfinished, in the order in which the queue gave them
	inflight   int
	unanswered int  // of them those that were sent, and PUBREL of identifiers without a message
	unproven   bool // PUBREL was sent, and none was answered yet
	bytes      int
	pace       pace
	beside     beside
	putOff     *flight   // the far broker may take it later; why the connection ends
	acked      int       // on this connection
	progress   time.Time // of the last answer, or of the first publish after idleness
	sealed     bool      // the rest is back in the queue; nothing more counts
	parted     bool      // the far broker knows that it has ended; only serve
}

func newConnection(ctx context.Context, cancel context.CancelCauseFunc, b *Bridge, index int, up Upstream, dl *downlink) *connection {
	c := &connection{
		b: b, index: index, name: b.upstreams[index].Name, plan: b.upstreams[index].Plan, up: up, dl: dl, window: b.window,
		ctx: ctx, cancel: cancel, room: make(chan struct{}, 1), progress: time.Now(),
		pace: newPace(b.windowBytes),
	}
	c.findBeside()
	if w := up.Window(); w > 0 {
		c.window = min(c.window, w)
	}
	if b, ok := up.(batcher); ok {
		c.batch = b
		b.Answers(c.answered)
	}
	if p, ok := up.(propertied); ok {
		c.props = p.Properties()
	}
	if g, ok := up.(gatewayed); ok {
		c.far = g.Gateway()
	}
	if q, ok := up.(quiet); ok {
		c.quiet = q.NoEcho()
	}
	return c
}

// open makes one connection with its subscriptions. A filter that the far
// broker refuses is said loudly and does not stop the rest: losing the way up
// for it would be worse.
// It is given up when attempt ends; the connection lives as long as ctx.
func (b *Bridge) open(ctx, attempt context.Context, index int) (*connection, error) {
	u := b.upstreams[index]
	ctx, cancel := context.WithCancelCause(ctx)
	giveUp := context.AfterFunc(attempt, func() { cancel(context.Cause(attempt)) })
	defer giveUp()
	dl := newDownlink(b, cancel)
	up, err := u.Connect(ctx, dl.receive)
	if err != nil {
		if errors.Is(context.Cause(ctx), errSlow) {
			err = errSlow
		}
		dl.end()
		cancel(nil)
		return nil, err
	}
	b.noteLoss(up)
	if err := b.acknowledges(up); err != nil {
		dl.end()
		_ = up.Close() // nothing was sent on it
		cancel(nil)
		return nil, err
	}
	x, inexact := b.beginExactly(ctx, up, dl)
	if inexact != nil {
		b.status.problem(inexact)
		b.log.Error("messages of QoS 2 do not go exactly once on this connection", slog.Any("error", inexact))
	}
	for _, r := range b.in {
		err = b.subscribe(ctx, up, r)
		if errors.Is(err, holdfast.ErrRefused) {
			b.status.problem(err)
			b.log.Error("the far broker has refused a subscription", slog.String("upstream", u.Name),
				slog.String("route", r.name), slog.Any("error", err))
			continue
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			dl.end()
			_ = up.Close() // the connection is of no use; err says why
			cancel(nil)
			return nil, fmt.Errorf("subscribe for route %q: %w", r.name, err)
		}
	}
	c := newConnection(ctx, cancel, b, index, up, dl)
	c.mends = inexact != nil
	if c.exactly = x; x != nil {
		x.c = c
	}
	return c, nil
}

// limited is implemented by an Upstream that knows the highest quality of
// service that the far broker takes.
type limited interface{ MaxQoS() byte }

// acknowledges returns an error if the far broker acknowledges nothing but a
// route wants it: its messages would count as delivered when they were written.
func (b *Bridge) acknowledges(up Upstream) error {
	if l, ok := up.(limited); !ok || l.MaxQoS() > 0 {
		return nil
	}
	for i := range b.out {
		if b.out[i].qos > 0 {
			return fmt.Errorf("the broker takes QoS 0 only, so it acknowledges nothing: write qos = 0 in route %q and in the others that go out, or take another broker", b.out[i].name)
		}
	}
	return nil
}

// abandon ends a connection that was never served.
func (c *connection) abandon() {
	c.dl.end()
	_ = c.up.Close() // nothing was sent on it
	c.cancel(nil)
}

func (b *Bridge) subscribe(ctx context.Context, up Upstream, r inRoute) error {
	ctx, cancel := context.WithTimeout(ctx, subscribeTimeout)
	defer cancel()
	return up.Subscribe(ctx, r.remoteFilter, r.qos)
}

// wait returns after d, or false at once when ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve forwards until the connection or parent ends, and says why it ended.
// When it returns, the connection is closed, its goroutines have ended, and
// everything unfinished is back in the queue: the next connection begins with
// the oldest message, which keeps the order.
func (c *connection) serve(parent context.Context) error {
	watched := make(chan struct{})
	again := c.lastWill()
	go func() {
		defer close(watched)
		c.watch(again)
	}()
	c.online()
	c.b.status.exactly.Store(c.exactly != nil)
	if c.exactly != nil {
		c.exactly.settle()
	}
	c.b.mark()
	c.forward()
	ended := time.Now()
	cause := context.Cause(c.ctx)
	if parent.Err() != nil || errors.Is(cause, errReturn) || errors.Is(cause, errSpent) {
		c.drain()
	}
	select {
	case <-c.up.Done(): // the will tells it
	default:
		if c.parted = c.farewell(cause); c.parted && errors.Is(cause, errSpent) {
			c.plan.told(c.b.name, overPlanEvery)
		}
	}
	if c.exactly != nil {
		<-c.exactly.ended
	}
	c.dl.end()
	_ = c.up.Close() // why it ended is in the cause
	c.cancel(nil)
	<-watched
	if c.beside.ended != nil {
		<-c.beside.ended
	}
	if errors.Is(cause, errLost) {
		if err := c.up.Err(); err != nil { // after Close it has the whole story
			cause = err
		}
	}
	died := parent.Err() == nil
	for _, blameless := range []error{errDownlink, errReturn, errSpent, errLater, errForget, errMended} {
		died = died && !errors.Is(cause, blameless)
	}
	c.mu.Lock()
	unproven := c.unproven
	c.mu.Unlock()
	if unproven && died && (isCut(cause) || errors.Is(cause, errUnanswered)) {
		died = false // what was sent with it may be innocent
		cause = fmt.Errorf("%w; it has not answered PUBREL: if it does not know QoS 2, write qos = 1 in the routes", cause)
	}
	c.giveBack(died, ended)
	return cause
}

// watch ends the connection when the upstream has ended or answers nothing, or when
// the data plan is used. It tells Online again at that time, if it is not zero.
func (c *connection) watch(again time.Time) {
	var late <-chan time.Time
	if !again.IsZero() {
		t := time.NewTimer(time.Until(again))
		defer t.Stop()
		late = t.C
	}
	tick := time.NewTicker(max(c.b.ackTimeout/4, time.Millisecond))
	defer tick.Stop()
	for {
		lanes, turn := c.plan.lanes()
		if lanes == 0 {
			c.cancel(c.plan.spentError())
			return
		}
		select {
		case <-c.ctx.Done():
			return
		case <-turn.Done():
		case <-late:
			late = nil
			c.online()
		case <-c.up.Done():
			c.cancel(errLost)
			return
		case <-tick.C:
			c.mu.Lock()
			stuck := c.unanswered > 0 && time.Since(c.progress) > c.b.ackTimeout
			c.mu.Unlock()
			if stuck {
				c.cancel(errUnanswered)
				return
			}
			if c.mends {
				c.b.queue.(ExactQueue).ChangeFarSession(&holdfast.FarSessionChange{}, func(err error) {
					if err == nil {
						c.cancel(errMended)
					}
				})
			}
		}
	}
}
