package bridge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

func downOnly(o *Options) {
	o.Routes = []Route{{Name: "cmd", Direction: In, Filter: "cmd/#", RemotePrefix: "far/", LocalPrefix: "near/", QoS: 1}}
	o.Queue = nil
}

// command sends the n-th command down.
func (w *world) command(n int, qos byte) {
	w.broker.last().receive(&holdfast.Message{Topic: fmt.Sprintf("far/cmd/%d", n), Payload: []byte("x"), QoS: qos}, false,
		func() { w.story.add("acknowledge %d", n) })
}

func TestACommandIsAcknowledgedOnlyWhenTheLocalBrokerHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, downOnly)
		defer w.stop()
		synctest.Wait()
		w.command(1, 1)
		synctest.Wait()
		w.want(t, "connect", "subscribe far/cmd/#", "local near/cmd/1 x")
		if s := w.b.Status(); s.Received != 0 || s.Waiting != 1 {
			t.Errorf("status is %+v", s)
		}
		w.local.take()[0].done(nil)
		w.want(t, "acknowledge 1")
		if s := w.b.Status(); s.Received != 1 || s.Waiting != 0 {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestCommandsAreAcknowledgedInTheOrderInWhichTheyCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, downOnly)
		defer w.stop()
		synctest.Wait()
		w.take()
		for n := range 3 {
			w.command(n+1, 1)
		}
		synctest.Wait()
		w.want(t, "local near/cmd/1 x", "local near/cmd/2 x", "local near/cmd/3 x")
		l := w.local.take()
		l[2].done(nil)
		l[1].done(nil)
		w.want(t)
		l[0].done(nil)
		w.want(t, "acknowledge 1", "acknowledge 2", "acknowledge 3")
	})
}

func TestACommandThatCannotBeTakenNowIsOfferedAgainBeforeLaterOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, downOnly)
		defer w.stop()
		synctest.Wait()
		w.take()
		w.command(1, 1)
		synctest.Wait()
		w.local.take()[0].done(holdfast.ErrFull)
		w.command(2, 1)
		synctest.Wait()
		w.want(t, "local near/cmd/1 x")
		time.Sleep(retryMin)
		synctest.Wait()
		w.want(t, "local near/cmd/1 x", "local near/cmd/2 x")
		for _, p := range w.local.take() {
			p.done(nil)
		}
		w.want(t, "acknowledge 1", "acknowledge 2")
	})
}

func TestACommandThatIsRefusedForGoodDoesNotComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, downOnly)
		defer w.stop()
		synctest.Wait()
		w.take()
		w.command(1, 1)
		synctest.Wait()
		w.local.take()[0].done(holdfast.ErrTooLarge)
		w.want(t, "local near/cmd/1 x", "acknowledge 1")
		if s := w.b.Status(); s.Received != 0 || s.DroppedRefused != 1 {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestNothingIsAcknowledgedAfterTheConnectionHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, downOnly)
		defer w.stop()
		synctest.Wait()
		w.command(1, 1)
		synctest.Wait()
		w.broker.last().lose(errCut)
		synctest.Wait()
		w.take()
		w.local.take()[0].done(nil)
		w.want(t)
	})
}

func TestCommandsThatPileUpHoldTheReaderAndThenEndTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, downOnly)
		defer w.stop()
		synctest.Wait()
		since := time.Now()
		for n := range maxPending + 1 { // the last one is held
			w.command(n, 1)
		}
		if d := time.Since(since); d != roomWait {
			t.Errorf("held for %v", d)
		}
		time.Sleep(aWhile)
		synctest.Wait()
		if s := w.b.Status(); s.Connections != 2 || !strings.Contains(s.LastError, "does not accept commands") || s.Waiting != 0 {
			t.Errorf("status is %+v", s)
		}
		// As soon as there is room, the reader goes on.
		w.local.take()
		for n := range maxPending {
			w.command(n, 1)
		}
		synctest.Wait()
		go func() {
			time.Sleep(roomWait / 2)
			w.local.take()[0].done(nil)
		}()
		w.command(9999, 1)
		if n := w.b.Status().Connections; n != 2 {
			t.Errorf("%d connections", n)
		}
	})
}

// What the client inside a module has acknowledged does not come again: it is handed
// over although the connection has ended, and what comes behind that as well.
func TestCommandsThatWereAcknowledgedBeforeOutliveTheirConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, downOnly)
		defer w.stop()
		synctest.Wait()
		u := w.broker.last()
		down := func(n int, ack func()) {
			u.receive(&holdfast.Message{Topic: fmt.Sprintf("far/cmd/%d", n), Payload: []byte("x"), QoS: 1}, false, ack)
		}
		down(1, nil)
		synctest.Wait()
		// The local broker cannot take it now, so that the others wait behind it.
		w.local.take()[0].done(fmt.Errorf("not now: %w", holdfast.ErrFull))
		down(2, nil)
		down(3, func() { t.Error("acknowledged") })
		w.take()
		u.lose(errors.New("gone"))
		synctest.Wait()
		down(4, nil)
		down(5, func() { t.Error("acknowledged") })
		var got []string
		for _, line := range w.take() {
			if strings.HasPrefix(line, "local ") {
				got = append(got, line)
			}
		}
		if want := []string{"local near/cmd/1 x", "local near/cmd/2 x", "local near/cmd/4 x"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		for _, p := range w.local.take() {
			p.done(fmt.Errorf("not now: %w", holdfast.ErrFull))
		}
		if s := w.b.Status(); s.DroppedFull != 3 {
			t.Errorf("%d counted as lost, want 3", s.DroppedFull)
		}
	})
}

func TestCommandsOfQoS0OverTheBoundAreDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, downOnly)
		defer w.stop()
		synctest.Wait()
		for n := range maxPending + 7 {
			w.command(n, 0)
		}
		if s := w.b.Status(); s.DroppedFull != 7 || s.Waiting != maxPending {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestAMessageOfNoRouteIsAcknowledgedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, downOnly)
		defer w.stop()
		synctest.Wait()
		w.take()
		w.broker.last().receive(&holdfast.Message{Topic: "old/route", QoS: 1}, false, func() { w.story.add("acknowledge") })
		w.want(t, "acknowledge")
		if s := w.b.Status(); s.DroppedUnrouted != 1 {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestARefusedSubscriptionIsSaidAndDoesNotStopTheWayUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{subscribe: fmt.Errorf("not for you: %w", holdfast.ErrRefused)}, func(o *Options) {
			o.Routes[0].Direction = Both
		})
		defer w.stop()
		w.q.add(1, 1)
		synctest.Wait()
		w.want(t, "connect", "subscribe t/#", "publish 1")
		if s := w.b.Status(); s.State != Connected || !strings.Contains(s.LastError, "not for you") {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestASubscriptionWithoutAnAnswerIsTriedOnANewConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{subscribe: errors.New("no answer")}, downOnly)
		time.Sleep(100 * time.Millisecond)
		w.stop()
		if l := w.take(); l[2] != "close" {
			t.Errorf("%q", l)
		}
		if s := w.b.Status(); s.Connections != 0 || !strings.Contains(s.LastError, `route "cmd": no answer`) {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestAnEchoIsCutOnceForEachPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, func(o *Options) { o.Routes[0].Direction = Both })
		defer w.stop()
		w.q.add(1, 1) // topic t/1, payload 1
		synctest.Wait()
		w.take()
		arrive := func(payload string) {
			w.broker.last().receive(&holdfast.Message{Topic: "t/1", Payload: []byte(payload), QoS: 1}, false, func() { w.story.add("acknowledge") })
			synctest.Wait()
		}
		arrive("2")
		w.want(t, "local t/1 2")
		w.local.take()[0].done(nil)
		w.want(t, "acknowledge")
		arrive("1")
		w.want(t, "acknowledge")
		arrive("1") // somebody else's
		w.want(t, "local t/1 1")
		if s := w.b.Status(); s.DroppedLoop != 1 {
			t.Errorf("status is %+v", s)
		}
		// What came down does not go up again.
		if _, _, _, ok := w.b.Match(&holdfast.Message{Topic: "t/1", Origin: holdfast.BridgeOrigin("b")}); ok {
			t.Error("it goes round")
		}
	})
}

func TestMarksOfEchoesAreBoundedInNumberAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEchoes()
		for i := range 3 * echoLimit {
			e.sent("t", fmt.Append(nil, i))
		}
		if e.came("t", fmt.Append(nil, 2*echoLimit-1)) || !e.came("t", fmt.Append(nil, 2*echoLimit)) {
			t.Error("the bound in number is wrong")
		}
		if len(e.live) != echoLimit-1 {
			t.Errorf("%d marks", len(e.live))
		}
		time.Sleep(echoPeriod + 1)
		if e.came("t", fmt.Append(nil, 3*echoLimit-1)) || len(e.live) != 0 || e.count != 0 {
			t.Errorf("%d marks after their time", len(e.live))
		}
	})
}
