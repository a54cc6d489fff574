package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// stuckAfter is how long a part may take to answer before it counts as stuck. A
// sync may take 60 s on a worn card; nothing else comes near.
const stuckAfter = 75 * time.Second

// heart is a loop, or a lock that every loop of a part goes through. ask
// returns when it has answered. What a part waits for outside, such as a link, a
// module or a slow client, must not delay it.
type heart struct {
	name string
	ask  func(ctx context.Context)
	// since is when the question was asked that has no answer yet, in
	// nanoseconds after the watch began; 0 if there is none.
	since atomic.Int64
}

// hearts are those of the parts that there are.
func (g *Gateway) hearts() (list []*heart) {
	add := func(name string, ask func(ctx context.Context)) { list = append(list, &heart{name: name, ask: ask}) }
	if s := g.store; s != nil {
		add("the committer of the store", func(ctx context.Context) { _ = s.Alive(ctx) })
		add("the store", func(context.Context) { s.Sizes() })
	}
	if b := g.broker; b != nil {
		add("the broker", func(context.Context) { b.Stats() })
	}
	add("the bridges", func(context.Context) {
		for _, b := range g.bridges.now().parts {
			b.Status()
		}
	})
	for _, m := range g.modems {
		add("modem "+m.Status().Name, func(context.Context) { m.Status() })
	}
	return list
}

// Watch asks every part for a sign of life and calls feed at each interval in
// which none of them has been silent for stuckAfter, until ctx ends. Waiting for
// a link, for a module or for a slow disk is life; a deadlock is not. It is to
// be called before Shutdown, and returns when every question was answered.
func (g *Gateway) Watch(ctx context.Context, interval time.Duration, feed func()) {
	g.watch(ctx, g.hearts(), interval, feed)
}

// watching is a watch that is under way.
type watching struct {
	began  time.Time
	hearts []*heart
}

// Alive names a part that is stuck, as far as Watch knows.
func (g *Gateway) Alive() error {
	w := g.watching.Load()
	if w == nil {
		return nil
	}
	return silent(w.hearts, time.Since(w.began))
}

// Ready says why what should be on disk is not acknowledged now; nil if it is.
// A link that is down is no reason: that is what the queues are for.
func (g *Gateway) Ready() error {
	st := g.store.Stats()
	switch {
	case g.volatile != nil:
		return fmt.Errorf("the gateway runs from memory: %w", g.volatile)
	case st.Failed != nil:
		return fmt.Errorf("nothing can be stored: %w", st.Failed)
	case st.Space == "short" || st.Space == "none":
		return errors.New("the disk is full: free some space")
	}
	return g.Alive()
}

func (g *Gateway) watch(ctx context.Context, hearts []*heart, interval time.Duration, feed func()) {
	began := time.Now()
	g.watching.Store(&watching{began, hearts})
	var asking sync.WaitGroup
	defer asking.Wait()
	for _, h := range hearts {
		asking.Go(func() {
			for ctx.Err() == nil {
				h.since.Store(int64(time.Since(began)) + 1)
				h.ask(ctx)
				h.since.Store(0)
				select {
				case <-ctx.Done():
				case <-time.After(interval):
				}
			}
		})
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	told := false
	for {
		switch err := silent(hearts, time.Since(began)); {
		case err == nil:
			told = false
			feed()
		case !told:
			told = true
			g.log.Error("a part of the gateway is stuck: the watchdog is not fed, and the service manager will restart it", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// silent names the first part that has not answered in time.
func silent(hearts []*heart, now time.Duration) error {
	for _, h := range hearts {
		if since := time.Duration(h.since.Load()); since > 0 && now-since > stuckAfter {
			return fmt.Errorf("%s has not answered for %v", h.name, (now - since).Round(time.Second))
		}
	}
	return nil
}
