package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// How one of several upstreams is chosen. They are tried one at a time, in their
// order. One that cannot be connected to, or that has lost maxFlaps connections
// in a row before they were stable, is held: for about Options.Failback it is
// only tried when all the others fail too. So a way that comes and goes does not
// drag the bridge along, and a dead first way does not cost its time-out again
// whenever the second one blinks.
//
// While a later upstream is in use, the first that is not held any more is
// connected to beside it, subscriptions and all; only when it has answered does
// the bridge move over. A way back that does not work costs nothing but the
// attempt.

// maxFlaps is how many unstable connections in a row get an upstream held.
const maxFlaps = 3

// returnGrace is how long an attempt at a preferred upstream may go on when the
// connection beside it has ended.
const returnGrace = 5 * time.Second

// attemptTimeout is how long one of several upstreams may take; a modem that is
// not in its network waits for that for ever.
const attemptTimeout = 150 * time.Second

var errSlow = fmt.Errorf("nothing has come about within %v: if it is a modem, see its state in the status", attemptTimeout)

// errReturn ends a connection because one that is preferred works again.
var errReturn = errors.New("a preferred upstream works again")

// way is what is known of one upstream. It is guarded by status.mu.
type way struct {
	flaps int       // unstable connections in a row
	held  time.Time // until then the others come first
	err   error     // the last problem
	errAt time.Time
}

// UpstreamStatus is what is known of one upstream.
type UpstreamStatus struct {
	Name  string `json:"name"`
	InUse bool   `json:"in_use"`
	// LastError is its last problem, empty if there was none.
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	// HeldUntil is until when the others come first; zero if they do not.
	HeldUntil time.Time `json:"held_until,omitzero"`
}

// hold notes a problem of upstream i, and holds it if there are others.
func (b *Bridge) hold(i int, err error) {
	now := time.Now()
	b.status.mu.Lock()
	defer b.status.mu.Unlock()
	w := &b.ways[i]
	w.err, w.errAt, w.flaps = err, now, 0
	if len(b.ways) > 1 {
		w.held = now.Add(b.failback*3/4 + rand.N(b.failback/2+1))
	}
}

func (b *Bridge) heldUntil(i int) time.Time {
	if b.upstreams[i].Plan.level() == PlanSpent {
		return time.Now().Add(b.failback)
	}
	b.status.mu.Lock()
	defer b.status.mu.Unlock()
	return b.ways[i].held
}

// ended notes how long a connection over upstream i has lasted.
func (b *Bridge) ended(i int, lasted time.Duration, err error) {
	b.status.mu.Lock()
	w := &b.ways[i]
	w.err, w.errAt = err, time.Now()
	if w.flaps++; lasted >= stablePeriod {
		w.flaps, w.held = 0, time.Time{}
	}
	flaps := w.flaps
	b.status.mu.Unlock()
	if flaps >= maxFlaps && len(b.ways) > 1 {
		b.log.Warn("an upstream loses its connections: the others come first for a while", slog.String("upstream", b.upstreams[i].Name))
		b.hold(i, err)
	}
}

// order is the order in which the upstreams are tried now: those that are held
// come last.
func (b *Bridge) order() []int {
	now := time.Now()
	var free, held []int
	for i := range b.upstreams {
		if b.heldUntil(i).After(now) {
			held = append(held, i)
		} else {
			free = append(free, i)
		}
	}
	return append(free, held...)
}

// connect tries every upstream, one at a time.
func (b *Bridge) connect(ctx context.Context) (*connection, error) {
	var errs []error
	for _, i := range b.order() {
		u := b.upstreams[i]
		if u.Plan.level() == PlanSpent {
			errs = append(errs, fmt.Errorf("%s: %w", u.Name, u.Plan.spentError()))
			continue
		}
		b.status.connecting(u.Name)
		attempt, cancel := b.attempt(ctx)
		c, err := b.open(ctx, attempt, i)
		cancel()
		if err == nil {
			return c, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", u.Name, err))
		if ctx.Err() != nil {
			break
		}
		b.hold(i, err)
	}
	return nil, errors.Join(errs...)
}

// attempt bounds one attempt, if there are others to go on with.
func (b *Bridge) attempt(ctx context.Context) (context.Context, context.CancelFunc) {
	if len(b.upstreams) == 1 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, attemptTimeout, errSlow)
}

// returner makes a connection over an upstream that is preferred to that of c,
// as soon as one can be made, and then ends c. It returns when c has ended.
func (b *Bridge) returner(c *connection, ctx context.Context) *connection {
	for {
		if !waitUntil(c.ctx, b.nextReturn(c.index)) {
			return nil
		}
		for i := range c.index {
			if b.heldUntil(i).After(time.Now()) {
				continue
			}
			// The attempt outlives c for a moment: where both ways lead to one
			// broker, it ends c when it takes the login.
			attempt, cancel := b.attempt(ctx)
			stop := context.AfterFunc(c.ctx, func() { wait(attempt, returnGrace); cancel() })
			better, err := b.open(ctx, attempt, i)
			stop()
			cancel()
			if err == nil {
				c.cancel(errReturn)
				return better
			}
			if c.ctx.Err() != nil {
				return nil
			}
			b.log.Info("a preferred upstream does not work yet", slog.String("upstream", b.upstreams[i].Name), slog.Any("error", err))
			b.hold(i, err)
		}
	}
}

// nextReturn is when the first of the upstreams before index may be tried.
func (b *Bridge) nextReturn(index int) time.Time {
	next := b.heldUntil(0)
	for i := 1; i < index; i++ {
		if h := b.heldUntil(i); h.Before(next) {
			next = h
		}
	}
	return next
}

func waitUntil(ctx context.Context, t time.Time) bool {
	if d := time.Until(t); d > 0 {
		return wait(ctx, d)
	}
	return ctx.Err() == nil
}

// upstreamsLocked is what the status says of several upstreams.
func (b *Bridge) upstreamsLocked() (list []UpstreamStatus) {
	if len(b.ways) < 2 {
		return nil
	}
	for i, w := range b.ways {
		u := UpstreamStatus{Name: b.upstreams[i].Name, LastErrorAt: w.errAt}
		u.InUse = b.status.s.State == Connected && b.status.s.Upstream == u.Name
		if w.err != nil {
			u.LastError = w.err.Error()
		}
		if w.held.After(time.Now()) {
			u.HeldUntil = w.held
		}
		if p := b.upstreams[i].Plan; p.level() == PlanSpent {
			u.LastError, u.HeldUntil = p.spentError().Error(), p.Status().Until
		}
		list = append(list, u)
	}
	return list
}
