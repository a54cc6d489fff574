package bridge

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"time"

	"holdfast"
)

// OverPlan is the state of a bridge whose upstreams are all over a data plan that is
// a hard one: it has no connection and makes none until a period begins. Its far
// broker is told so when the last connection ends, and once a day after: a connection
// with nothing but this one message, retained in the place of Online, and its end.
// Over an Upstream without a will nothing is told, as ever.
const OverPlan = "over-plan"

const (
	overPlanEvery = 24 * time.Hour
	overPlanRetry = 6 * time.Hour // after an attempt that failed: it has cost bytes too
	overPlanWait  = 30 * time.Second
)

// allSpent is why no upstream may be used; nil if one may.
func (b *Bridge) allSpent() error {
	var errs []error
	for _, u := range b.upstreams {
		if u.Plan.level() != PlanSpent {
			return nil
		}
		errs = append(errs, u.Plan.spentError())
	}
	return errors.Join(errs...)
}

// sitOut waits until a plan has turned, because of why, and tells the far broker
// once a day.
func (b *Bridge) sitOut(ctx context.Context, why error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := time.Time{}
	for i, u := range b.upstreams {
		lanes, turn := u.Plan.lanes()
		if lanes != 0 {
			return
		}
		defer context.AfterFunc(turn, cancel)()
		if due := u.Plan.tellAt(b.name); i == 0 || due.Before(next) {
			next = due
		}
	}
	b.announce(OverPlan)
	now, _ := b.upstreams[0].Plan.clock()
	b.status.sitting(why, next)
	if !wait(ctx, next.Sub(now)) {
		return
	}
	for _, u := range b.upstreams {
		if now, _ := u.Plan.clock(); u.Plan.tellAt(b.name).After(now) {
			continue
		}
		err := b.tellOverPlan(ctx, u)
		if err == nil || ctx.Err() != nil {
			return
		}
		b.log.Warn("the far broker cannot be told that the data plan is used", slog.String("upstream", u.Name), slog.Any("error", err))
	}
}

// tellOverPlan makes a connection for one message. What comes down on it is not
// acknowledged: the far broker keeps it.
func (b *Bridge) tellOverPlan(ctx context.Context, u UpstreamOption) error {
	u.Plan.told(b.name, overPlanRetry)
	if b.farStateTopic == "" {
		u.Plan.told(b.name, overPlanEvery)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	up, err := u.Connect(ctx, func(*holdfast.Message, bool, func()) {})
	if err != nil {
		return err
	}
	defer up.Close() // in order, so that the will is forgotten
	if b.noteLoss(up) {
		b.queue.(ExactQueue).ChangeFarSession(&holdfast.FarSessionChange{Begin: new(string)}, func(error) {})
	}
	if w, ok := up.(willed); ok && w.HasWill() {
		done := make(chan error, 1)
		up.Publish(StateMessage(b.farStateTopic, OverPlan), false, func(err error) { done <- err })
		t := time.NewTimer(overPlanWait)
		defer t.Stop()
		select {
		case err = <-done:
		case <-t.C:
			err = errUnanswered
		case <-up.Done():
			err = errLost
		}
	}
	if err == nil {
		u.Plan.told(b.name, overPlanEvery)
		b.log.Info("the far broker was told that the data plan is used", slog.String("upstream", u.Name))
	}
	return err
}

// tellAt is when OverPlan is to be told for a bridge.
func (p *Plan) tellAt(bridge string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, _ := p.clock()
	next := p.rec.Told[bridge]
	if most := now.Add(overPlanEvery); next.After(most) { // the clock was set back
		return most
	}
	return next
}

// told notes that it need not be told again before pause is over. It is on disk
// then: a gateway that crashes again and again must not tell it each time.
func (p *Plan) told(bridge string, pause time.Duration) {
	defer p.Tick()
	p.mu.Lock()
	defer p.mu.Unlock()
	now, _ := p.clock()
	next := maps.Clone(p.rec.Told)
	if next == nil {
		next = map[string]time.Time{}
	}
	maps.DeleteFunc(next, func(_ string, at time.Time) bool { return at.Before(now) })
	next[bridge], p.due = now.Add(pause), true
	p.rec.Told = next
}
