package bridge

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// nobody cannot be connected to, beside an upstream that carries text only.
func nobody() *fakeBroker { return &fakeBroker{refuse: errors.New("no")} }

func TestWhatCouldNotGoBesideIsNotTakenForUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := helped(t, nobody(), func(o *Options) { o.Routes[0].Encoding, o.Routes[0].OnChange = Base64, true })
		w.now("a", "b\x00")
		after(time.Minute)
		w.want(t, "second refuse", "release [1]", "publish YgA= again", "ack 1")
		w.now("a", "b\x00")
		after(time.Minute)
		if got := w.take(); !slices.Contains(got, "unchanged 2") {
			t.Errorf("%q: it has not changed", got)
		}
	})
}

func TestWhatCouldNotGoBesideIsNotSampledForANewerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := helped(t, nobody(), func(o *Options) { o.Routes[0].Encoding, o.Routes[0].Sample = Base64, 10*time.Minute })
		w.now("a", "old\x00")
		w.now("a", "new\x00")
		after(time.Hour)
		var sent []string
		for _, l := range w.take() {
			if len(l) > 8 && l[:8] == "publish " {
				sent = append(sent, l[8:])
			}
		}
		if got := fmt.Sprint(sent); got != "[b2xkAA== again bmV3AA==]" && got != "[b2xkAA== again bmV3AA== again]" {
			t.Errorf("sent %s", got)
		}
	})
}

func TestTheLastValueSentCountsWhereverItWasInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := taking()
		w := start(t, broker, func(o *Options) { liveFirst(0)(o); o.Routes[0].OnChange = true })
		defer w.stop()
		synctest.Wait()
		w.now("a", "on")
		synctest.Wait()
		broker.setRefuse(errCut)
		broker.last().lose(errCut)
		synctest.Wait()
		w.now("a", "off") // sent as the backlog
		broker.setRefuse(nil)
		time.Sleep(aWhile)
		synctest.Wait()
		w.take()
		w.now("a", "on")
		synctest.Wait()
		w.want(t, "publish on", "ack 3")
	})
}

func TestWhatIsEqualWaitsForTheFateOfWhatWasSent(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*world)
		want []string
	}{
		"acknowledged": {func(w *world) { w.broker.last().answer(1, nil) }, []string{"ack 1", "unchanged 3"}},
		"refused": {func(w *world) { w.broker.last().answer(1, fmt.Errorf("no: %w", holdfast.ErrRefused)) },
			[]string{"quarantine 1: refused", "release [3]", "publish x again"}},
		"lost": {func(w *world) { w.broker.last().lose(errCut) }, []string{"close", "release [1 3]"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, &fakeBroker{}, thinRoute(0, true))
				defer w.stop()
				w.now("a", "x")
				w.now("a", "x")
				w.now("a", "x") // the newest of them is enough
				synctest.Wait()
				w.want(t, "connect", "publish x", "unchanged 2")
				c.end(w)
				synctest.Wait()
				w.want(t, c.want...)
			})
		})
	}
}

func TestWhatIsEqualToAnEarlierOneOnItsWayGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, thinRoute(0, true))
		defer w.stop()
		for _, p := range []string{"on", "on", "off", "off", "on"} {
			w.now("a", p)
		}
		synctest.Wait()
		w.want(t, "connect", "publish on", "publish off", "publish on")
		w.broker.last().answer(1, nil)
		w.broker.last().answer(1, fmt.Errorf("no: %w", holdfast.ErrRefused))
		synctest.Wait()
		// What was equal to the refused one: something newer has gone.
		w.want(t, "ack 1", "unchanged 2", "quarantine 3: refused", "unchanged 4")
		w.now("a", "on")
		w.broker.last().answer(1, nil)
		synctest.Wait()
		w.want(t, "ack 5", "unchanged 6")
	})
}

// What goes beside arrives behind what was sent after it: the far side then has
// the older value.
func TestAValueThatArrivesBehindALaterOneIsNotCoveredByThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := &fakeBroker{}
		w := helped(t, second, func(o *Options) { o.Routes[0].OnChange = true })
		w.now("a", "b\x00")
		w.now("a", "text")
		after(time.Second)
		w.now("a", "text") // nobody knows yet in which order they arrive
		after(time.Second)
		if got := w.take(); !slices.Contains(got, "ack 3") {
			t.Errorf("%q: the last must go", got)
		}
		second.last().answer(1, nil)
		after(time.Second)
		w.want(t, "ack 1")
		w.now("a", "text")
		after(time.Second)
		w.want(t, "publish text", "ack 4")
		w.now("a", "text")
		after(time.Second)
		w.want(t, "unchanged 5")
	})
}

func TestWhatComesBackIsBounded(t *testing.T) {
	released := 0
	th := newThinner(map[string]thinRule{"r": {onChange: true}}, func(holdfast.ItemID) bool { return false },
		func(holdfast.ItemID, string) {}, func(ids ...holdfast.ItemID) { released += len(ids) }, func() {})
	for i := range maxReturning + 10 {
		it := holdfast.Item{ID: holdfast.NewItemID(holdfast.Normal, uint64(i+1)), Route: "r", Msg: &holdfast.Message{Topic: fmt.Sprint(i)}}
		th.take(it)
		if _, ok := th.next(); !ok {
			t.Fatal("the first of a topic must go")
		}
		th.comeBack(it)
	}
	if len(th.returning) != maxReturning || released != maxReturning+10 {
		t.Errorf("%d are known, %d were released", len(th.returning), released)
	}
	if th.giveBack(); len(th.returning) != 0 {
		t.Error("still known behind the connection")
	}
}
