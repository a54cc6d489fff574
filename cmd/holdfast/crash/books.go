package crash

import (
	"context"
	"errors"
	"fmt"

	"holdfast"
)

// look compares the books of the gateway with what was acknowledged before the
// look: they must balance, miss nothing and have given up nothing.
func (r *run) look(ctx context.Context) error {
	acked := r.acked(far)
	st, err := r.gw.Status(ctx)
	if err != nil {
		return err
	}
	if len(st.Bridges) != 1 {
		return errors.New("the gateway has lost its bridge")
	}
	r.totals.looks++
	if st.Storage.Direct < r.totals.life {
		r.totals.life = 0 // a new life
	}
	r.totals.direct += st.Storage.Direct - r.totals.life
	r.totals.life = st.Storage.Direct
	for name, list := range routes {
		c := st.Bridges[0].Routes[name]
		r.checkCounts(name, c)
		var promised uint64
		for _, source := range list {
			promised += acked[source]
		}
		if c.Accepted+r.unbooked[name] < promised {
			r.faults.add("books: route %s has %d accepted, and %d were acknowledged", name, c.Accepted, promised)
		}
	}
	return nil
}

func (r *run) checkCounts(name string, c holdfast.Counts) {
	if !c.Balanced() {
		r.faults.add("books: route %s does not balance: %+v", name, c)
	}
	if c.Lost > 0 || len(c.Dropped) > 0 || len(c.Quarantined) > 0 {
		r.faults.add("books: route %s has given messages up: %+v", name, c)
	}
}

// backlog checks after a restart that what was acknowledged and has not arrived
// at the far broker is in the queue. Messages that the far broker has and that
// are on their way to its subscriber are waited for.
func (r *run) backlog(ctx context.Context) error {
	acked := r.acked(far)
	st, err := r.gw.Status(ctx)
	if err != nil {
		return err
	}
	for name, list := range routes {
		queued := st.Bridges[0].Routes[name].Queued
		missing := func() (n uint64) {
			high := r.dests[far].highs()
			for _, source := range list {
				n += acked[source] - min(high[source], acked[source])
			}
			return n
		}
		if r.until(ctx, "", func() bool { return missing() <= queued }) != nil {
			r.faults.add("route %s: %d acknowledged messages are neither at the far broker nor among the %d in the queue", name, missing()-queued, queued)
		}
	}
	return ctx.Err()
}

// count is the end: everything has arrived, and every figure is known.
func (r *run) count(ctx context.Context) error {
	empty := func() bool {
		st, err := r.gw.Status(ctx)
		return err == nil && st.Books().Queued == 0
	}
	if err := r.until(ctx, "the queue of the bridge is empty", empty); err != nil {
		r.faults.add("%v", err)
		return nil
	}
	st, err := r.gw.Status(ctx)
	if err != nil {
		return err
	}
	r.totals.looks++
	for name, list := range routes {
		c := st.Bridges[0].Routes[name]
		r.checkCounts(name, c)
		var sent, resent uint64
		for _, source := range list {
			n, again := r.publishers[source].figures()
			sent, resent = sent+n, resent+again
		}
		arrived := r.dests[far].arrivals(list...)
		switch {
		case c.Accepted != c.Delivered:
			r.faults.add("books: route %s: %d accepted and %d delivered, with nothing queued", name, c.Accepted, c.Delivered)
		case name == "q2" && c.Accepted != sent:
			r.faults.add("books: route q2: %d accepted, and %d were sent exactly once", c.Accepted, sent)
		case name == "q1" && (c.Accepted+r.unbooked[name] < sent || c.Accepted > sent+resent):
			r.faults.add("books: route q1: %d accepted, with %d sent and %d sent again", c.Accepted, sent, resent)
		case name == "q0" && c.Accepted > sent:
			r.faults.add("books: route q0: %d accepted, and %d were sent", c.Accepted, sent)
		case arrived < c.Delivered:
			r.faults.add("books: route %s: %d delivered, and %d have arrived", name, c.Delivered, arrived)
		}
		fmt.Fprintf(r.o.Out, "books: %s: %d accepted = %d delivered; sent %d, sent again %d, arrived %d\n", name, c.Accepted, c.Delivered, sent, resent, arrived)
	}
	for _, d := range r.dests {
		for _, s := range sources {
			sent, _ := r.publishers[s.name].figures()
			high := d.highs()[s.name]
			if s.goesTo(d.name) && s.qos > 0 && high != sent || high > sent {
				r.faults.add("%s: %d of %s were sent, and %d have arrived", d.name, sent, s.name, high)
			}
		}
	}
	return nil
}
