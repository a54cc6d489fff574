package crash

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"
)

// final lets everyone finish and counts.
func (r *run) final(ctx context.Context) error {
	r.line.set(lineOpen)
	if _, err := r.gw.Start(ctx); err != nil {
		return err
	}
	if err := r.look(ctx); err != nil {
		return err
	}
	settle, cancel := context.WithTimeout(ctx, r.o.Patience)
	defer cancel()
	var finishing sync.WaitGroup
	for _, s := range sources {
		if s.qos > 0 {
			finishing.Go(func() { r.publishers[s.name].run(settle, settle, settlePace) })
		}
	}
	finishing.Go(func() { r.state.run(settle, settle, settlePace) })
	finishing.Wait()
	for _, s := range sources {
		p := r.publishers[s.name]
		if sent, _ := p.figures(); s.qos > 0 && (!p.idle() || p.ackedUpTo() != sent) {
			r.faults.add("%s: %d sent and only %d acknowledged at the end", s.name, sent, p.ackedUpTo())
		}
	}
	if err := r.checkRetained(ctx); err != nil {
		return err
	}
	if err := r.drain(ctx, append([]string{far}, sessions...)); err != nil {
		return err
	}
	return r.count(ctx)
}

func (r *run) progress(round int, took time.Duration, p plan) {
	var acked uint64
	for _, s := range sources {
		acked += r.publishers[s.name].ackedUpTo()
	}
	waiting := map[string]uint64{}
	for name := range maps.Keys(r.dests) {
		for _, n := range r.dests[name].missing(r.acked(name)) {
			waiting[name] += n
		}
	}
	fmt.Fprintf(r.o.Out, "round %3d/%d  killed after %5dms (up in %3dms)  acknowledged %8d  waiting: far %6d one %6d two %6d three %6d  violations %d\n",
		round, r.o.Rounds, p.kill.Milliseconds(), took.Milliseconds(), acked, waiting[far], waiting[sessionOne], waiting[sessionTwo], waiting[sessionThree], r.faults.count())
}
