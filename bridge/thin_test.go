package bridge

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

func thinRoute(sample time.Duration, onChange bool) func(*Options) {
	return func(o *Options) {
		o.Routes = []Route{{Name: "r", Filter: "#", QoS: 1, Sample: sample, OnChange: onChange}}
	}
}

// taking acknowledges everything.
func taking() *fakeBroker {
	return &fakeBroker{onPublish: func(_ *fakeUpstream, _ *holdfast.Message, done func(error)) { done(nil) }}
}

func (w *world) now(name, payload string) { w.q.put(holdfast.Normal, name, payload, time.Now()) }

func TestOfEachTopicTheNewestGoesOnceInAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, taking(), thinRoute(10*time.Second, false))
		defer w.stop()
		synctest.Wait()
		w.want(t, "connect")
		w.now("a", "a1")
		w.now("b", "b1")
		synctest.Wait()
		w.want(t, "publish a1", "ack 1", "publish b1", "ack 2")
		time.Sleep(time.Second)
		w.now("a", "a2")
		w.now("a", "a3")
		w.now("b", "b2")
		synctest.Wait()
		w.want(t, "sampled 3")
		if n := w.b.Status().Held; n != 2 {
			t.Errorf("%d are held", n)
		}
		time.Sleep(8 * time.Second)
		w.now("a", "a4")
		synctest.Wait()
		w.want(t, "sampled 4")
		time.Sleep(time.Second)
		synctest.Wait()
		w.want(t, "publish b2", "ack 5", "publish a4", "ack 6")
		time.Sleep(5 * time.Second) // within the interval that has begun with them
		w.now("a", "a5")
		synctest.Wait()
		w.want(t)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.want(t, "publish a5", "ack 7")
		time.Sleep(time.Minute)
		w.now("a", "a6")
		synctest.Wait()
		w.want(t, "publish a6", "ack 8")
	})
}

func TestABacklogIsThinnedOutByTheTimeOfReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := taking()
		broker.refuse = errCut
		w := start(t, broker, thinRoute(time.Minute, false))
		defer w.stop()
		for i := range 300 { // five minutes of one a second
			w.now("a", fmt.Sprint(i))
			time.Sleep(time.Second)
		}
		broker.setRefuse(nil)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		var sent []string
		for _, l := range w.take() {
			if len(l) > 8 && l[:8] == "publish " {
				sent = append(sent, l[8:])
			}
		}
		// The first, then the last of each minute.
		if got := fmt.Sprint(sent); got != "[0 59 119 179 239 299]" {
			t.Errorf("sent %s", got)
		}
	})
}

func TestWhatIsHeldGoesBackToTheQueueWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, thinRoute(time.Hour, true))
		defer w.stop()
		w.now("a", "same")
		synctest.Wait()
		w.now("a", "same")
		synctest.Wait()
		w.want(t, "connect", "publish same")
		w.broker.last().lose(errCut)
		synctest.Wait()
		w.want(t, "close", "release [1 2]")
		time.Sleep(aWhile)
		synctest.Wait()
		// Nobody knows whether the first has arrived: it is neither too soon nor
		// unchanged.
		w.want(t, "connect", "publish same again")
		w.broker.last().answer(1, nil)
		synctest.Wait()
		w.want(t, "ack 1")
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		w.want(t, "unchanged 2")
	})
}

func TestOnlyWhatHasChangedGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, taking(), thinRoute(0, true))
		defer w.stop()
		for _, p := range []string{"on", "on", "off", "off", "on"} {
			w.now("a", p)
		}
		w.now("b", "on")
		synctest.Wait()
		w.want(t, "connect", "publish on", "ack 1", "unchanged 2", "publish off", "ack 3", "unchanged 4", "publish on", "ack 5", "publish on", "ack 6")
	})
}

func TestWhatIsRefusedWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, thinRoute(time.Minute, true))
		defer w.stop()
		w.now("a", "x")
		synctest.Wait()
		w.broker.last().answer(1, fmt.Errorf("no: %w", holdfast.ErrRefused))
		synctest.Wait()
		w.take()
		w.now("a", "x")
		synctest.Wait()
		w.want(t, "publish x")
	})
}

func TestAQueueThatCannotBeReadWhileSomethingIsHeldIsToldAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, taking(), thinRoute(time.Minute, false))
		defer w.stop()
		w.now("a", "1")
		w.now("a", "2")
		synctest.Wait()
		w.q.mu.Lock()
		w.q.fail = errCut
		w.q.mu.Unlock()
		signal(w.q.ready)
		synctest.Wait()
		if w.b.Status().LastError == "" {
			t.Error("nothing is said of it")
		}
		w.take()
		time.Sleep(aWhile)
		synctest.Wait()
		w.want(t, "publish 2", "ack 2")
	})
}

func TestMoreTopicsThanAreKnownAllGo(t *testing.T) {
	var dropped []holdfast.ItemID
	full := 0
	th := newThinner(map[string]thinRule{"r": {sample: time.Minute}}, func(holdfast.ItemID) bool { return false },
		func(id holdfast.ItemID, _ string) { dropped = append(dropped, id) }, func(...holdfast.ItemID) {}, func() { full++ })
	at, pos := time.Now(), uint64(0)
	put := func(name string, size int) {
		pos++
		th.take(holdfast.Item{ID: holdfast.NewItemID(holdfast.Normal, pos), Route: "r",
			Msg: &holdfast.Message{Topic: name, Payload: make([]byte, size), Received: at}})
	}
	drain := func() (n int) {
		for {
			if _, ok := th.next(); !ok {
				return n
			}
			n++
		}
	}
	for i := range maxThin + 10 {
		put(fmt.Sprint(i), 0)
	}
	put(fmt.Sprint(maxThin), 0) // not known
	if n := drain(); n != maxThin+11 || full != 11 || len(th.topics) != maxThin {
		t.Errorf("%d of %d went, %d are known, %d times full", n, maxThin+11, len(th.topics), full)
	}
	full = 0
	for i := range maxHeld + 5 {
		put(fmt.Sprint(i), 0)
	}
	if n := drain(); n != 5 || full != 5 || th.holding() != maxHeld {
		t.Errorf("%d went early, %d times full, %d held", n, full, th.holding())
	}
	// A topic that was let go of early is in its next interval.
	put("5000", maxHeldBytes)
	if n := drain(); th.bytes > maxHeldBytes+1000 || n == 0 {
		t.Errorf("%d bytes are held, %d went", th.bytes, n)
	}
	// Those that are over make room.
	at = at.Add(time.Hour)
	th.swept = time.Time{}
	put("new", 0)
	if drain(); len(th.topics) > maxThin || th.topics[thinKey{"r", "new", false}] == nil {
		t.Errorf("%d are known", len(th.topics))
	}
	if th.holding() != 0 || len(dropped) != 0 {
		t.Errorf("%d are held, %d dropped", th.holding(), len(dropped))
	}
	if ids := th.giveBack(); len(ids) != 0 {
		t.Errorf("%d to give back", len(ids))
	}
}

// slow acknowledges one message in a second.
func slow() *fakeBroker {
	return &fakeBroker{refuse: errCut, onPublish: func(_ *fakeUpstream, _ *holdfast.Message, done func(error)) {
		time.AfterFunc(time.Second, func() { done(nil) })
	}}
}

// backlogFor is a backlog of 300 s at a slow broker, of another route.
func (w *world) backlogFor(broker *fakeBroker) {
	for range 300 {
		w.now("x", "old")
		w.q.mu.Lock()
		w.q.waiting[len(w.q.waiting)-1].Route = "other"
		w.q.mu.Unlock()
	}
	broker.setRefuse(nil)
	time.Sleep(aWhile)
	synctest.Wait()
	w.take()
}

func TestWhatIsHeldDoesNotWaitForTheBacklogOfOthers(t *testing.T) {
	t.Run("in the high lane", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			broker := slow()
			w := start(t, broker, func(o *Options) { thinRoute(10*time.Second, false)(o); o.Window = 1 })
			defer w.stop()
			w.backlogFor(broker)
			for _, p := range []string{"ALARM", "CLEAR"} {
				w.q.insert(holdfast.High, p)
				w.q.mu.Lock()
				w.q.waiting[0].Msg.Received = time.Now()
				w.q.mu.Unlock()
				time.Sleep(2 * time.Second)
			}
			time.Sleep(20 * time.Second)
			if got := w.published(); !slices.Contains(got, "ALARM") || !slices.Contains(got, "CLEAR") {
				t.Errorf("sent %q", got)
			}
		})
	})
	t.Run("of what is fresh", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			broker := slow()
			w := start(t, broker, func(o *Options) { liveFirst(20)(o); o.Routes[0].Sample = 10 * time.Second })
			defer w.stop()
			w.backlogFor(broker)
			w.now("t", "OPEN")
			time.Sleep(3 * time.Second)
			w.now("t", "CLOSED")
			time.Sleep(20 * time.Second)
			if got := w.published(); !slices.Contains(got, "OPEN") || !slices.Contains(got, "CLOSED") {
				t.Errorf("sent %q", got)
			}
		})
	})
}

// While something is due and waits for its own stream to be read, the low lane
// gets its turn.
func TestTheLowLaneGoesOnBesideWhatIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := slow()
		w := start(t, broker, func(o *Options) { thinRoute(24*time.Hour, false)(o); o.Window = 1 })
		defer w.stop()
		at := time.Now().Add(-48 * time.Hour)
		w.q.put(holdfast.Normal, "t", "1", at)
		w.q.put(holdfast.Normal, "t", "2", at) // held, and due
		for range 300 {
			w.q.put(holdfast.Normal, "x", "old", at)
			w.q.mu.Lock()
			w.q.waiting[len(w.q.waiting)-1].Route = "other"
			w.q.mu.Unlock()
		}
		w.q.insert(holdfast.Low, "low")
		w.q.mu.Lock()
		w.q.waiting[len(w.q.waiting)-1].Route = "other"
		w.q.mu.Unlock()
		broker.setRefuse(nil)
		time.Sleep(aWhile + 30*time.Second)
		if got := w.published(); !slices.Contains(got, "low") {
			t.Errorf("%d were sent, none of the low lane", len(got))
		}
	})
}
