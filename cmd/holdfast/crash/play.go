package crash

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// lookEvery is how often the books are looked at under load.
const lookEvery = 150 * time.Millisecond

// settlePace is that of publishers who only finish what they have begun.
var settlePace = pace{every: 2 * time.Millisecond, settle: true}

func (r *run) play(ctx context.Context) error {
	if err := r.farSub.prepare(ctx); err != nil {
		return fmt.Errorf("subscribe at the far broker: %w", err)
	}
	var collecting sync.WaitGroup
	collect, stop := context.WithCancel(ctx)
	collecting.Go(func() { r.farSub.run(collect) })
	defer collecting.Wait()
	defer stop()
	for round := 1; round <= r.o.Rounds; round++ {
		r.faults.enter(round)
		if err := r.round(ctx, round); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if _, n := r.faults.all(); n >= keptFaults {
			fmt.Fprintln(r.o.Out, "enough is broken; no further rounds")
			return nil
		}
	}
	r.faults.enter(r.o.Rounds + 1)
	return r.final(ctx)
}

// round is one life of the gateway, from its start to its kill.
func (r *run) round(ctx context.Context, round int) error {
	p := newPlan(r.o, round)
	r.line.set(p.line[0].mode)
	first := round == 1
	if first {
		r.line.set(lineOpen)
	}
	if err := r.config(p.spill); err != nil {
		return err
	}
	if p.spill {
		r.totals.spills++
		before := r.onTheWay()
		defer func() {
			for name, n := range r.onTheWay() {
				r.unbooked[name] += n - before[name]
			}
		}()
	}
	if p.killStart > 0 {
		if err := r.killStarting(ctx, p.killStart); err != nil {
			return err
		}
	}
	took, err := r.gw.Start(ctx)
	if err != nil {
		return err
	}
	r.totals.slowestStart = max(r.totals.slowestStart, took)
	if first {
		if err := r.begin(ctx); err != nil {
			return err
		}
	}
	if err := r.afterRestart(ctx, p); err != nil {
		return err
	}
	if err := r.load(ctx, p); err != nil {
		return err
	}
	r.totals.rounds++
	r.progress(round, took, p)
	return nil
}

// onTheWay is how often messages of each route were sent, repetitions included.
func (r *run) onTheWay() map[string]uint64 {
	m := map[string]uint64{}
	for name, list := range routes {
		for _, source := range list {
			sent, resent := r.publishers[source].figures()
			m[name] += sent + resent
		}
	}
	return m
}

// killStarting kills the gateway while it starts.
func (r *run) killStarting(ctx context.Context, after time.Duration) error {
	if err := r.gw.Spawn(); err != nil {
		return err
	}
	t := time.NewTimer(after)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	r.totals.startKills++
	return r.gw.Kill()
}

// begin makes the sessions of everyone, so that whatever is published later
// has to arrive.
func (r *run) begin(ctx context.Context) error {
	for _, name := range sessions {
		if err := r.subs[name].prepare(ctx); err != nil {
			return fmt.Errorf("subscribe at the gateway: %w", err)
		}
	}
	return r.until(ctx, "the bridge has subscribed at the far broker", func() bool {
		st, err := r.gw.Status(ctx)
		return err == nil && len(st.Bridges) == 1 && st.Bridges[0].State == "connected"
	})
}

// until waits for a condition.
func (r *run) until(ctx context.Context, what string, ok func() bool) error {
	deadline := time.NewTimer(r.o.Patience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("not within %v: %s\n%s", r.o.Patience, what, r.gw.LastLog())
		}
	}
	return nil
}

// acked is how far each source that goes to a destination was acknowledged.
func (r *run) acked(destination string) map[string]uint64 {
	m := map[string]uint64{}
	for _, s := range sources {
		if s.goesTo(destination) && s.qos > 0 {
			m[s.name] = r.publishers[s.name].ackedUpTo()
		}
	}
	return m
}

// afterRestart checks what can be checked while nobody publishes.
func (r *run) afterRestart(ctx context.Context, p plan) error {
	if err := r.look(ctx); err != nil {
		return err
	}
	if err := r.backlog(ctx); err != nil {
		return err
	}
	if err := r.checkRetained(ctx); err != nil {
		return fmt.Errorf("look at the retained values: %w", err)
	}
	r.totals.retainedLooks++
	var names []string
	for _, name := range append([]string{far}, sessions...) {
		if p.drain[name] {
			names = append(names, name)
		}
	}
	return r.drain(ctx, names)
}

// drain has the destinations hand out everything that was acknowledged, while
// the others stay as they are. Commands are not waited for while the line that
// they come down is not open.
func (r *run) drain(ctx context.Context, names []string) error {
	online, leave := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer leave()
	for _, name := range names {
		if s := r.subs[name]; s != nil {
			running.Go(func() { s.run(online) })
		}
		r.totals.drains++
	}
	for _, name := range names {
		want := r.acked(name)
		for _, s := range sources {
			if s.remote && r.line.now() != lineOpen {
				delete(want, s.name)
			}
		}
		r.awaitArrival(ctx, name, want)
	}
	return ctx.Err()
}

// awaitArrival waits for messages, as long as any come at all.
func (r *run) awaitArrival(ctx context.Context, name string, want map[string]uint64) {
	d := r.dests[name]
	for before := uint64(0); ; {
		err := r.until(ctx, "", func() bool { return len(d.missing(want)) == 0 })
		if err == nil || ctx.Err() != nil {
			return
		}
		now := d.arrivals()
		if now == before {
			r.faults.add("%s: acknowledged and not delivered, by source: %v", name, d.missing(want))
			return
		}
		before = now
	}
}

// load runs everyone until the gateway is killed.
func (r *run) load(ctx context.Context, p plan) error {
	leave, stop := context.WithCancel(ctx)   // no new connections, no new messages
	abort, hangUp := context.WithCancel(ctx) // of connections that a kill does not end
	var local, others sync.WaitGroup
	defer others.Wait()
	defer local.Wait()
	defer hangUp()
	defer stop()
	for _, s := range sources {
		if s.remote {
			others.Go(func() { r.publishers[s.name].run(leave, abort, p.pace[s.name]) })
		} else {
			local.Go(func() { r.publishers[s.name].run(leave, ctx, p.pace[s.name]) })
		}
	}
	local.Go(func() { r.state.run(leave, ctx, pace{every: 7 * time.Millisecond, burst: 3}) })
	for _, name := range sessions {
		others.Go(func() { r.subs[name].turns(leave, p.turns[name]) })
	}
	others.Go(func() { r.workLine(leave, p.line[1:]) })

	kill := time.NewTimer(p.kill)
	defer kill.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if err := r.look(ctx); err != nil && r.gw.Alive() {
				r.faults.add("the gateway does not answer under load: %v", err)
			}
			continue
		case <-kill.C:
		case <-ctx.Done():
		}
		break
	}
	if !r.gw.Alive() {
		return fmt.Errorf("the gateway has ended by itself: %w\n%s", r.gw.End(), r.gw.LastLog())
	}
	stop()
	if err := r.gw.Kill(); err != nil {
		return err
	}
	r.totals.kills++
	// What it has said until it was dead counts: the connections are read to
	// their ends.
	local.Wait()
	return ctx.Err()
}

// workLine goes through the steps of the line.
func (r *run) workLine(ctx context.Context, steps []lineStep) {
	for _, s := range steps {
		t := time.NewTimer(s.after)
		select {
		case <-t.C:
			r.line.set(s.mode)
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}
