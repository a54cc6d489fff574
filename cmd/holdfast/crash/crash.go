// Package crash kills the gateway, again and again, and looks whether it has
// kept its promise. It is the driver behind "make crash".
//
// The gateway is the real program in a process of its own. Around it is a cast
// of clients that do what MQTT asks of clients, a far broker, and a line to it
// that is cut and frozen. Every message is numbered by its source, and its
// content is derived from source and number, so that each destination can tell
// at once what is lost, late, repeated or damaged.
//
// The seed decides everything that is decided: sizes, rates, turns, moments.
// It cannot decide at which instruction SIGKILL strikes; a run that found
// something is repeated in its decisions, not in its timing.
package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"holdfast/cmd/holdfast/child"
	"holdfast/cmd/holdfast/gateway"
	"holdfast/configs"
)

// Options say how long and how hard.
type Options struct {
	// Binary is the gateway's executable.
	Binary string
	Seed   uint64
	Rounds int
	// KillMin and KillMax bound how long the load runs before each kill.
	KillMin, KillMax time.Duration
	// Dir is the folder for all data; "" is a temporary one, removed at the
	// end unless a promise was broken or Keep is set.
	Dir  string
	Keep bool
	// Sync is the mode of the storage, always or spill; "" is one or the other by
	// the seed, in each round anew.
	Sync string
	// EarlyAck puts a proxy before the gateway that acknowledges QoS 1 by
	// itself: the run must fail.
	EarlyAck bool
	// Patience bounds every wait for a condition; default 30 s.
	Patience time.Duration
	Out      io.Writer
}

// run is one run: the stage and the cast.
type run struct {
	o       Options
	faults  *faults
	dir     string
	address string // the gateway's
	gw      *child.Gateway
	far     *gateway.Gateway
	farAddr string
	line    *line
	early   *early

	// config writes the gateway's configuration for one life.
	config func(spill bool) error
	// unbooked bounds what the books of a route may lack for ever: what was on
	// its way in lives in spill mode, whose last minute a kill forgets.
	unbooked map[string]uint64

	publishers map[string]*publisher
	state      *publisher // of retained values
	subs       map[string]*subscriber
	farSub     *subscriber
	dests      map[string]*destination

	begun  time.Time
	totals totals
}

// totals are the figures of the summary.
type totals struct {
	rounds, kills, startKills, looks, drains, retainedLooks int
	spills                                                  int    // lives in spill mode
	direct, life                                            uint64 // messages that went without the disk; in this life
	slowestStart                                            time.Duration
}

// ErrBroken is the error of a run that found a promise broken.
var ErrBroken = errors.New("the promise was broken")

// Run does all rounds and the final count. Its error wraps ErrBroken if a check
// has failed; any other error says that the run itself could not go on.
func Run(ctx context.Context, o Options) (err error) {
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	r := &run{o: o, faults: &faults{}, begun: time.Now(), unbooked: map[string]uint64{}, dests: map[string]*destination{}, publishers: map[string]*publisher{}, subs: map[string]*subscriber{}}
	fmt.Fprintf(o.Out, "crash: seed %d, %d rounds, kill -9 after %v to %v; --seed %d repeats the decisions, the timing is the machine's\n",
		o.Seed, o.Rounds, o.KillMin, o.KillMax, o.Seed)
	if r.dir = o.Dir; r.dir == "" {
		if r.dir, err = os.MkdirTemp("", "holdfast-crash-"); err != nil {
			return err
		}
	}
	defer func() {
		err = errors.Join(err, r.strike())
		if o.Dir == "" && !o.Keep && err == nil {
			err = os.RemoveAll(r.dir)
		} else {
			fmt.Fprintln(o.Out, "data and log are kept in", r.dir)
		}
	}()
	if err := r.build(); err != nil {
		return err
	}
	if err := r.play(ctx); err != nil {
		return errors.Join(err, r.verdict())
	}
	return r.verdict()
}

// build sets the stage; the gateway is not started.
func (r *run) build() error {
	cfg := configs.Default()
	cfg.Gateway.ID = "far"
	cfg.Gateway.DataDir = filepath.Join(r.dir, "far")
	cfg.Listeners[0].Address = "127.0.0.1:0"
	cfg.Console.Address = ""
	cfg.Console.Socket = filepath.Join(r.dir, "far.sock")
	cfg.Limits.MaxSessionBytes = 4 * configs.GiB
	cfg.Limits.MaxSessionMessages = 100_000_000
	var err error
	if r.far, err = gateway.Start(cfg, "", slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("start the far broker: %w", err)
	}
	r.farAddr = r.far.Addresses()[0].String()
	if r.line, err = newLine(r.farAddr); err != nil {
		return err
	}
	if r.address, err = child.FreeAddress(); err != nil {
		return err
	}
	file, socket := filepath.Join(r.dir, "gateway.toml"), filepath.Join(r.dir, "gw.sock")
	r.config = func(spill bool) error {
		text := config(filepath.Join(r.dir, "gateway"), socket, r.address, r.line.address(), spill)
		return os.WriteFile(file, []byte(text), 0o600)
	}
	r.gw = &child.Gateway{Binary: r.o.Binary, Config: file, Log: filepath.Join(r.dir, "gateway.log"), Socket: socket}
	publishTo := r.address
	if r.o.EarlyAck {
		if r.early, err = newEarly(r.address); err != nil {
			return err
		}
		publishTo = r.early.address()
	}
	r.enlist(publishTo)
	return nil
}

// enlist makes the cast.
func (r *run) enlist(publishTo string) {
	for _, name := range append([]string{far}, sessions...) {
		d := newDestination(name, r.o.Seed, r.faults)
		for _, s := range sources {
			d.gaps[s.name] = s.qos == 0
			d.once[s.name] = s.exactly(name)
		}
		r.dests[name] = d
	}
	for _, s := range sources {
		p := &publisher{
			name: s.name, qos: s.qos, durable: s.durable, window: max(1, s.window), address: publishTo,
			topic: func(uint64) string { return s.topic }, faults: r.faults, next: 1,
			body: func(seq uint64) []byte { return payload(r.o.Seed, stamp{s.name, seq}) },
		}
		if s.remote {
			p.address = r.farAddr
		}
		r.publishers[s.name] = p
	}
	r.state = &publisher{
		name: "state", qos: 1, retain: true, window: 10, address: publishTo,
		topic: stateTopic, body: r.stateBody, faults: r.faults, next: 1,
	}
	for _, name := range sessions {
		r.subs[name] = &subscriber{name: name, address: r.address, filters: filtersOf(name), to: r.dests[name], faults: r.faults}
	}
	r.farSub = &subscriber{name: "far", address: r.farAddr, to: r.dests[far], faults: r.faults}
	r.farSub.filters = filtersOf(sessionOne)[:1]
	r.farSub.filters[0].Filter = "site/load/#"
}

// strike takes the stage down.
func (r *run) strike() error {
	var errs []error
	if r.gw != nil {
		errs = append(errs, r.gw.Kill())
	}
	if r.early != nil {
		r.early.close()
	}
	if r.line != nil {
		r.line.close()
	}
	if r.far != nil {
		errs = append(errs, r.far.Shutdown(context.Background()))
	}
	return errors.Join(errs...)
}

// verdict prints the summary.
func (r *run) verdict() error {
	t := r.totals
	fmt.Fprintf(r.o.Out, "\n%d rounds in %v: %d kills under load, %d while starting; slowest start %v\n",
		t.rounds, time.Since(r.begun).Round(time.Second), t.kills, t.startKills, t.slowestStart.Round(time.Millisecond))
	if t.spills > 0 {
		fmt.Fprintf(r.o.Out, "spill: %d of the rounds, in which at least %d messages were acknowledged without the disk\n", t.spills, t.direct)
	}
	fmt.Fprintf(r.o.Out, "checks: %d looks at the books, %d of retained values, %d destinations drained\n", t.looks, t.retainedLooks, t.drains)
	var acked, sent, again uint64
	for _, s := range sources {
		p := r.publishers[s.name]
		n, resent := p.figures()
		fmt.Fprintf(r.o.Out, "  %s QoS %d %-11s sent %8d  acknowledged %8d  sent again %6d\n", s.name, s.qos, s.topic, n, p.ackedUpTo(), resent)
		sent, acked, again = sent+n, acked+p.ackedUpTo(), again+resent
	}
	for _, name := range append([]string{far}, sessions...) {
		d := r.dests[name]
		fmt.Fprintf(r.o.Out, "  at %-5s %9d messages, %d of them repetitions\n", name, d.arrivals(), d.repetitions())
	}
	list, n := r.faults.all()
	fmt.Fprintf(r.o.Out, "%d sent, %d acknowledged, %d sent again: %d violations (seed %d)\n", sent, acked, again, n, r.o.Seed)
	for _, f := range list {
		fmt.Fprintln(r.o.Out, "  "+f)
	}
	if n > 0 {
		return fmt.Errorf("%w: %d violations", ErrBroken, n)
	}
	return nil
}
