package bridge

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

func liveFirst(share int) func(*Options) {
	return func(o *Options) {
		o.Routes = []Route{{Name: "r", Filter: "#", QoS: 1, Retain: true}}
		o.LiveFirst, o.BackfillShare, o.Window = true, share, 1
	}
}

func (w *world) published() (list []string) {
	for _, l := range w.take() {
		if p, ok := strings.CutPrefix(l, "publish "); ok {
			list = append(list, strings.TrimSuffix(p, " again"))
		}
	}
	return list
}

// step answers n publishes, one after the other.
func (w *world) step(n int) {
	for range n {
		w.broker.last().answer(1, nil)
		synctest.Wait()
	}
}

func TestWhatIsFreshGoesBeforeTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{refuse: errCut}
		w := start(t, broker, liveFirst(0))
		defer w.stop()
		for i := range 5 {
			w.now("a", fmt.Sprint("old", i))
		}
		broker.setRefuse(nil)
		time.Sleep(aWhile)
		synctest.Wait()
		w.now("b", "new0")
		w.now("b", "new1")
		w.q.put(holdfast.High, "c", "alarm", time.Now())
		w.step(4)
		if got := fmt.Sprint(w.published()); got != "[old0 alarm new0 new1 old1]" {
			t.Errorf("sent %v", got)
		}
		// What was on its way stands in its place in the backlog of the next.
		w.now("b", "new2")
		w.step(1)
		w.broker.last().lose(errCut)
		synctest.Wait()
		w.take()
		time.Sleep(aWhile)
		synctest.Wait()
		w.now("b", "new3")
		w.step(5)
		if got := fmt.Sprint(w.published()); got != "[old2 new3 old3 old4 new2]" {
			t.Errorf("sent after the cut %v", got)
		}
	})
}

func TestTheBacklogGetsItsShare(t *testing.T) {
	for share, want := range map[int]int{0: 0, 20: 20, 50: 50, 90: 90} {
		synctest.Test(t, func(t *testing.T) {
			broker := &fakeBroker{refuse: errCut}
			w := start(t, broker, liveFirst(share))
			defer w.stop()
			for range 200 {
				w.now("a", "old")
			}
			broker.setRefuse(nil)
			time.Sleep(aWhile)
			for range 200 {
				w.now("b", "new")
			}
			synctest.Wait()
			w.step(1)
			w.take()
			w.step(100)
			old := 0
			for _, p := range w.published() {
				if p == "old" {
					old++
				}
			}
			if old < want-1 || old > want+1 {
				t.Errorf("with %d %%: %d of 100 are old", share, old)
			}
		})
	}
}

func TestAnOldValueNeverTakesThePlaceOfANewerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		retained := map[string]string{}
		broker := &fakeBroker{refuse: errCut, onPublish: func(_ *fakeUpstream, m *holdfast.Message, done func(error)) {
			if m.Retain {
				retained[m.Topic] = string(m.Payload)
			}
			time.AfterFunc(time.Millisecond, func() { done(nil) })
		}}
		w := start(t, broker, liveFirst(50))
		defer w.stop()
		put := func(name, payload string) {
			w.now(name, payload)
			w.q.mu.Lock()
			w.q.waiting[len(w.q.waiting)-1].Msg.Retain = true
			w.q.mu.Unlock()
		}
		for i := range 100 {
			put(fmt.Sprint("t", i%4), fmt.Sprint("old", i))
		}
		broker.setRefuse(nil)
		for w.b.Status().State != Connected {
			time.Sleep(time.Millisecond) // before it has drained
			synctest.Wait()
		}
		put("t1", "new")
		put("t2", "new")
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := fmt.Sprint(retained); got != "map[t0:old96 t1:new t2:new t3:old99]" {
			t.Errorf("retained %s", got)
		}
		if n := w.b.Status().Unretained; n == 0 || n > 50 || w.b.newest.sent != nil {
			t.Errorf("%d went without RETAIN, %d topics are remembered", n, len(w.b.newest.sent))
		}
	})
}

func TestAfterARestartWhatIsBeforeTheLastAcknowledgementIsTakenForOld(t *testing.T) {
	n := &newest{unknown: [holdfast.LaneCount]uint64{holdfast.Normal: 10}, marks: [holdfast.LaneCount]uint64{holdfast.Normal: 20}}
	stale := func(name string, pos uint64) bool {
		return n.stale(holdfast.Item{ID: holdfast.NewItemID(holdfast.Normal, pos), Msg: &holdfast.Message{Topic: name}})
	}
	if !stale("a", 9) || stale("b", 10) || stale("b", 30) || !stale("b", 12) || stale("b", 31) {
		t.Error("wrong by the marks or the topic")
	}
	for i := range maxNewest {
		stale(fmt.Sprint("t", i), 40)
	}
	// There is no more room: what is not known may be old.
	if stale("x", 50) || !stale("x", 15) || stale("t5", 41) || !n.crowd || len(n.sent) > maxNewest {
		t.Errorf("wrong beyond the bound; %d are known", len(n.sent))
	}
	n.drained()
	if n.crowd || stale("x", 15) {
		t.Error("still remembered")
	}
}

func TestABacklogIsThinnedOutBesideWhatIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := taking()
		broker.refuse = errCut
		w := start(t, broker, func(o *Options) { liveFirst(50)(o); o.Routes[0].Sample = time.Minute })
		defer w.stop()
		for i := range 180 {
			w.now("a", fmt.Sprint(i))
			time.Sleep(time.Second)
		}
		broker.setRefuse(nil)
		for w.b.Status().State != Connected {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		for i := range 180 {
			w.now("a", fmt.Sprint("new", i))
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		// An hour has at most one message a minute, and the first and the last.
		if n := len(w.published()); n < 6 || n > 10 {
			t.Errorf("%d went", n)
		}
	})
}

// standing is a queue that hands out nothing for a while, as during an export.
type standing struct {
	*fakeQueue
	stands atomic.Bool
}

func (q *standing) Poll(l holdfast.Lanes) (it holdfast.Item, ok bool, err error) {
	if q.stands.Load() {
		return it, false, nil
	}
	return q.fakeQueue.Poll(l)
}

func (q *standing) PollFresh(l holdfast.Lanes) (it holdfast.Item, ok bool, err error) {
	if q.stands.Load() {
		return it, false, nil
	}
	return q.fakeQueue.PollFresh(l)
}

func (q *standing) Next(ctx context.Context, l holdfast.Lanes) (holdfast.Item, error) {
	for q.stands.Load() {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return holdfast.Item{}, ctx.Err()
		}
	}
	return q.fakeQueue.Next(ctx, l)
}

func TestWhatWasSentAheadIsRememberedWhileTheQueueStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{refuse: errCut}
		var q *standing
		w := start(t, broker, func(o *Options) {
			liveFirst(0)(o)
			q = &standing{fakeQueue: o.Queue.(*fakeQueue)}
			o.Queue = q
		})
		defer w.stop()
		w.now("x", "filler")
		w.now("x", "filler")
		w.now("t", "old")
		w.q.mu.Lock()
		w.q.waiting[2].Msg.Retain = true
		w.q.mu.Unlock()
		broker.setRefuse(nil)
		time.Sleep(aWhile)
		synctest.Wait()
		w.now("t", "new")
		w.step(1)
		w.take()
		q.stands.Store(true)
		w.step(1)
		time.Sleep(time.Second)
		q.stands.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		w.step(2)
		if got, n := fmt.Sprint(w.published()), w.b.Status().Unretained; got != "[filler old]" || n != 1 {
			t.Errorf("sent %s, %d without RETAIN", got, n)
		}
		if n := len(w.b.newest.sent); n != 0 {
			t.Errorf("%d are remembered although nothing is left", n)
		}
	})
}

// passing is a queue whose reader of what is fresh has missed the first of it.
type passing struct{ *fakeQueue }

func (q passing) PollFresh(l holdfast.Lanes) (it holdfast.Item, ok bool, err error) {
	return q.poll(l, max(q.mark, 2))
}

func TestWhatWasPassedOverNeverCostsANewerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, taking(), func(o *Options) {
			liveFirst(0)(o)
			o.Routes[0].Sample = 10 * time.Second
			o.Queue = passing{o.Queue.(*fakeQueue)}
		})
		defer w.stop()
		synctest.Wait() // it waits in Next, which gets the first
		now := time.Now()
		w.q.mu.Lock()
		for i, at := range []time.Duration{0, time.Second, 50 * time.Second, 51 * time.Second} {
			w.q.last++
			w.q.waiting = append(w.q.waiting, holdfast.Item{ID: holdfast.NewItemID(holdfast.Normal, w.q.last), Route: "r",
				Msg: &holdfast.Message{Topic: "t", Payload: fmt.Append(nil, i+1), QoS: 1, Received: now.Add(at)}})
		}
		w.q.mu.Unlock()
		signal(w.q.ready)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := fmt.Sprint(w.published()); !strings.Contains(got, "4") || w.b.Status().Held != 0 {
			t.Errorf("sent %s: not the newest", got)
		}
	})
}
