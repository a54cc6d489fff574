package gateway

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
	"holdfast/storage"
)

// watched is a gateway with a store whose disk the test holds, and its watch.
type watched struct {
	*Gateway
	t     *testing.T
	log   *bytes.Buffer // only read after synctest.Wait
	fed   atomic.Int64
	stuck chan struct{} // what the committer waits for in its next commit
}

const watchEvery = 10 * time.Second

func newWatched(t *testing.T) *watched {
	w := &watched{t: t, log: &bytes.Buffer{}, stuck: make(chan struct{})}
	store, err := storage.OpenMemory(storage.Options{BeforeSync: func() error { <-w.stuck; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	w.Gateway = &Gateway{store: store, log: slog.New(slog.NewTextHandler(w.log, nil))}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Watch(ctx, watchEvery, func() { w.fed.Add(1) })
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// commit begins a commit, which hangs until the test lets it go.
func (w *watched) commit() {
	w.t.Helper()
	p := &holdfast.Publication{Msg: &holdfast.Message{Topic: "t", QoS: 1}, Sessions: []holdfast.Delivery{{ClientID: "c", QoS: 1}}}
	if _, err := w.store.SessionQueue("c"); err != nil {
		w.t.Fatal(err)
	}
	if err := w.store.Publish(p, nil, func(error) {}); err != nil {
		w.t.Fatal(err)
	}
}

// pass lets time pass and returns how often the watchdog was fed in it.
func (w *watched) pass(d time.Duration) int {
	before := w.fed.Load()
	time.Sleep(d)
	synctest.Wait()
	return int(w.fed.Load() - before)
}

func TestASlowSyncFeedsTheWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched(t)
		if n := w.pass(time.Minute); n < 6 {
			t.Errorf("an idle gateway fed it %d times in a minute", n)
		}
		w.commit()
		if n := w.pass(time.Minute); n < 6 {
			t.Errorf("a sync of 60 s: fed %d times in it", n)
		}
		close(w.stuck)
		if n := w.pass(time.Minute); n < 6 || w.log.Len() > 0 {
			t.Errorf("fed %d times afterwards\n%s", n, w.log)
		}
	})
}

func TestADeadlockedCommitterStarvesTheWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched(t)
		w.commit()
		w.pass(stuckAfter + 2*watchEvery)
		if n := w.pass(time.Hour); n != 0 {
			t.Errorf("fed %d times with a committer that never comes back", n)
		}
		if said := w.log.String(); strings.Count(said, "level=ERROR") != 1 || !strings.Contains(said, "the committer of the store has not answered") {
			t.Errorf("it said:\n%s", said)
		}
		// One that comes back after all is alive again.
		close(w.stuck)
		if n := w.pass(time.Minute); n < 5 {
			t.Errorf("fed %d times in the minute after it came back", n)
		}
	})
}

// Every part is asked, and any of them alone starves the watchdog.
func TestAnyDeadlockStarvesTheWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		hearts := []*heart{
			{name: "good", ask: func(context.Context) {}},
			{name: "bad", ask: func(context.Context) { <-held }},
		}
		var fed atomic.Int64
		g := &Gateway{log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); g.watch(ctx, hearts, watchEvery, func() { fed.Add(1) }) }()
		time.Sleep(stuckAfter + watchEvery)
		synctest.Wait()
		before := fed.Load()
		time.Sleep(time.Hour)
		synctest.Wait()
		if before < 7 || fed.Load() != before {
			t.Errorf("fed %d times, then %d times more", before, fed.Load()-before)
		}
		close(held)
		cancel()
		<-ended
	})
}
