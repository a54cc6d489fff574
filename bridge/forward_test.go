package bridge

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

var errCut = errors.New("cut")

// aWhile is longer than any backoff.
const aWhile = 2 * time.Minute

func TestAMessageLeavesTheQueueOnlyWhenTheFarBrokerHasAcknowledgedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, nil)
		defer w.stop()
		w.q.add(2, 1)
		synctest.Wait()
		w.want(t, "connect", "publish 1", "publish 2")
		w.broker.last().answer(1, nil)
		synctest.Wait()
		w.want(t, "ack 1")
		if s := w.b.Status(); s.Sent != 2 || s.Acked != 1 || s.Inflight != 1 || s.State != Connected {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestTheWindowIsNeverExceeded(t *testing.T) {
	for name, tc := range map[string]struct {
		options, upstream, bytes, want int
	}{
		"the bridge's own":                        {3, 0, 0, 3},
		"the upstream's if it is lower":           {10, 2, 0, 2},
		"the bridge's if the upstream's is wider": {4, 100, 0, 4},
		"in bytes":                {10, 0, 100, 2},
		"one message always goes": {10, 0, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, &fakeBroker{window: tc.upstream}, func(o *Options) {
					o.Window, o.WindowBytes = tc.options, tc.bytes
				})
				defer w.stop()
				w.q.add(20, 1)
				for acked := 0; acked < 20; acked++ {
					synctest.Wait()
					if n := w.b.Status().Inflight; int(n) != min(tc.want, 20-acked) {
						t.Fatalf("%d in flight after %d acknowledgements, wanted %d", n, acked, tc.want)
					}
					w.broker.last().answer(1, nil)
				}
			})
		})
	}
}

func TestEverythingUnacknowledgedIsBackInTheQueueBeforeTheNextConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, nil)
		defer w.stop()
		w.q.add(4, 1)
		synctest.Wait()
		w.broker.last().answer(1, nil)
		w.take()
		w.broker.last().lose(errCut)
		time.Sleep(aWhile)
		synctest.Wait()
		// 2 was the oldest when the connection died: it goes alone.
		w.want(t, "close", "release [2 3 4]", "connect", "publish 2 again")
		w.broker.last().answer(1, nil)
		synctest.Wait()
		w.want(t, "ack 2", "publish 3 again", "publish 4 again")
	})
}

func TestOldAndNewMessagesKeepTheirOrderAcrossConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The far broker takes a message at its first sight, and loses the
		// connection before every seventh acknowledgement.
		var arrived []string
		n := 0
		w := start(t, &fakeBroker{onPublish: func(u *fakeUpstream, m *holdfast.Message, done func(error)) {
			select {
			case <-u.done:
				return
			default:
			}
			if !slices.Contains(arrived, string(m.Payload)) {
				arrived = append(arrived, string(m.Payload))
			}
			if n++; n%7 == 0 {
				u.lose(errCut)
				return
			}
			done(nil)
		}}, nil)
		for range 10 {
			w.q.add(10, 1)
			time.Sleep(aWhile)
		}
		w.stop()
		for i, p := range arrived {
			if p != fmt.Sprint(i+1) {
				t.Fatalf("place %d has %s: %v", i+1, p, arrived)
			}
		}
		if len(arrived) != 100 || w.b.Status().Acked != 100 {
			t.Errorf("%d arrived, %d acknowledged", len(arrived), w.b.Status().Acked)
		}
	})
}

func TestAnAnswerAfterTheEndOfTheConnectionIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, nil)
		defer w.stop()
		w.q.add(1, 1)
		synctest.Wait()
		old := w.broker.last()
		old.lose(errCut)
		synctest.Wait()
		w.take()
		old.answer(1, nil) // after Close: against the rule of Upstream
		time.Sleep(aWhile)
		synctest.Wait()
		w.want(t, "connect", "publish 1 again")
		if n := w.b.Status().Acked; n != 0 {
			t.Errorf("%d acknowledged", n)
		}
	})
}

func TestARefusedMessageIsPutAsideAndTheQueueMovesOn(t *testing.T) {
	for _, tc := range []struct {
		err    error
		reason string
	}{
		{fmt.Errorf("no: %w", holdfast.ErrRefused), ReasonRefused},
		{fmt.Errorf("no: %w", holdfast.ErrTooLarge), ReasonTooLarge},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := start(t, &fakeBroker{}, func(o *Options) { o.Window = 1 })
				defer w.stop()
				w.q.add(2, 1)
				synctest.Wait()
				w.broker.last().answer(1, tc.err)
				synctest.Wait()
				w.want(t, "connect", "publish 1", "quarantine 1: "+tc.reason, "publish 2")
			})
		})
	}
}

func TestAMessageOfUnknownFateEndsTheConnectionAndIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, nil)
		defer w.stop()
		w.q.add(1, 1)
		synctest.Wait()
		w.broker.last().answer(1, holdfast.ErrUnknown)
		time.Sleep(aWhile)
		synctest.Wait()
		w.want(t, "connect", "publish 1", "close", "release [1]", "connect", "publish 1 again")
	})
}

func TestAMessageThatKillsEveryConnectionIsPutAsideAndTheOthersArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaths := 0
		w := start(t, &fakeBroker{onPublish: func(u *fakeUpstream, m *holdfast.Message, done func(error)) {
			select {
			case <-u.done:
				return
			default:
			}
			if string(m.Payload) == "4" {
				deaths++
				u.lose(io.EOF)
				return
			}
			done(nil)
		}}, func(o *Options) { o.MaxAttempts = 3 })
		w.q.add(6, 1)
		time.Sleep(10 * aWhile)
		w.stop()
		want := map[holdfast.ItemID]string{1: "acked", 2: "acked", 3: "acked", 4: ReasonKills, 5: "acked", 6: "acked"}
		if fmt.Sprint(w.q.gone) != fmt.Sprint(want) || deaths != 3 {
			t.Errorf("after %d deaths: %v", deaths, w.q.gone)
		}
	})
}

func TestALinkThatIsCutAgainAndAgainPutsNothingAsideAsLongAsMessagesGetThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		w := start(t, &fakeBroker{onPublish: func(u *fakeUpstream, m *holdfast.Message, done func(error)) {
			select {
			case <-u.done:
				return
			default:
			}
			if n++; n%3 == 0 {
				u.lose(errCut)
			} else {
				done(nil)
			}
		}}, func(o *Options) { o.MaxAttempts = 2 })
		w.q.add(50, 1)
		time.Sleep(100 * aWhile)
		w.stop()
		if s := w.b.Status(); s.Quarantined != 0 || s.Acked != 50 {
			t.Errorf("%d in quarantine, %d acknowledged", s.Quarantined, s.Acked)
		}
	})
}

func TestAMessageIsNotBlamedForALinkThatDiesWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{onPublish: func(u *fakeUpstream, _ *holdfast.Message, _ func(error)) {
			time.AfterFunc(killWindow+time.Second, func() { u.lose(io.EOF) })
		}}, func(o *Options) { o.MaxAttempts = 2 })
		w.q.add(2, 1)
		time.Sleep(time.Hour)
		w.stop()
		if s := w.b.Status(); s.Quarantined != 0 || s.Connections < 10 {
			t.Errorf("%d in quarantine after %d connections", s.Quarantined, s.Connections)
		}
	})
}

func TestABrokerThatPermitsNothingDoesNotEmptyTheQueueIntoQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{onPublish: func(u *fakeUpstream, _ *holdfast.Message, _ func(error)) { u.lose(io.EOF) }},
			func(o *Options) { o.MaxAttempts = 2 })
		w.q.add(100, 1)
		time.Sleep(500 * aWhile)
		w.stop()
		if s := w.b.Status(); s.Quarantined != maxKillers {
			t.Errorf("%d in quarantine", s.Quarantined)
		}
		if s := w.b.Status().LastError; !strings.Contains(s, "client identifier") {
			t.Errorf("the status says %q", s)
		}
	})
}

func TestNothingIsTakenFromTheQueueWithoutAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{refuse: errors.New("no login")}, nil)
		defer w.stop()
		w.q.add(1, 1)
		time.Sleep(time.Hour)
		if len(w.q.waiting) != 1 {
			t.Error("taken")
		}
		s := w.b.Status()
		if s.State == Connected || s.LastError != "u: no login" || s.Attempts < 60 || s.Attempts > 600 {
			t.Errorf("status is %+v", s)
		}
		w.broker.setRefuse(nil)
		time.Sleep(aWhile)
		synctest.Wait()
		if s := w.b.Status(); s.State != Connected || s.Attempts != 0 || s.Upstream != "u" {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestStoppingReleasesWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, nil)
		w.q.add(3, 1)
		synctest.Wait()
		w.take()
		w.stop()
		w.want(t, "close", "release [1 2 3]")
		if s := w.b.Status(); s.State != Stopped || s.Inflight != 0 {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestStoppingTakesTheAnswersThatComeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, nil)
		w.q.add(2, 1)
		synctest.Wait()
		w.take()
		w.cancel()
		time.Sleep(drainGrace / 2)
		w.broker.last().answer(1, nil)
		<-w.ended
		w.want(t, "ack 1", "close", "release [2]")
	})
}

func TestAConnectionOnWhichNothingIsAcknowledgedIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, nil)
		defer w.stop()
		time.Sleep(time.Hour) // idle: no reason to give up
		w.q.add(2, 1)
		time.Sleep(defaultAckTimeout - time.Second)
		w.broker.last().answer(1, nil)
		time.Sleep(defaultAckTimeout - time.Second) // one acknowledgement is progress
		w.want(t, "connect", "publish 1", "publish 2", "ack 1")
		time.Sleep(defaultAckTimeout/4 + 2*time.Second)
		w.want(t, "close", "release [2]", "connect", "publish 2 again")
		if s := w.b.Status(); !strings.Contains(s.LastError, "stopped acknowledging") {
			t.Errorf("the status says %q", s.LastError)
		}
	})
}

func TestTheNextUpstreamIsTriedAtOnceWhenOneCannotBeReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &fakeBroker{story: &story{}, refuse: errors.New("down")}
		w := start(t, &fakeBroker{}, func(o *Options) {
			o.Upstreams = []UpstreamOption{{Name: "first", Connect: first.Connect}, {Name: "second", Connect: o.Upstreams[0].Connect}}
		})
		defer w.stop()
		synctest.Wait()
		if s := w.b.Status(); s.Upstream != "second" || s.State != Connected {
			t.Errorf("status is %+v", s)
		}
	})
}

func TestAnUnreadableQueueDoesNotEndTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, func(o *Options) {
			o.Queue.(*fakeQueue).fail = errors.New("bad sector")
		})
		defer w.stop()
		w.q.add(1, 1)
		synctest.Wait()
		w.want(t, "connect")
		time.Sleep(queueRetry)
		synctest.Wait()
		w.want(t, "publish 1")
		if s := w.b.Status().LastError; !strings.Contains(s, "bad sector") {
			t.Errorf("the status says %q", s)
		}
	})
}

func TestAKickAfterTheLoginCountsAsAFailedAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{onConnect: func(u *fakeUpstream) {
			time.AfterFunc(time.Second, func() { u.lose(io.EOF) })
		}}, nil)
		time.Sleep(10 * time.Hour)
		w.stop()
		// 31 s on average for each; without the rule there would be 24,000.
		if n := w.b.Status().Connections; n < 700 || n > 1700 {
			t.Errorf("%d connections in ten hours", n)
		}
	})
}

func TestRunDoesNotRunTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, nil)
		defer w.stop()
		synctest.Wait()
		if err := w.b.Run(t.Context()); err == nil {
			t.Error("it does")
		}
	})
}

func TestNewTellsEveryFaultAtOnce(t *testing.T) {
	_, err := New(Options{
		Window:    -1,
		Routes:    []Route{{Name: "x", Filter: "a#"}, {Name: "x", Direction: In, Filter: "b", QoS: 3, RemotePrefix: "+/"}},
		Upstreams: []UpstreamOption{{Name: "u"}, {Name: "u"}},
	})
	for _, want := range []string{
		"no name", `"a#"`, "used twice", "qos is 3", "must not have a wildcard", "window is -1",
		"cannot be connected to", "is there twice",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	_, err = New(Options{Name: "b", Routes: []Route{{Filter: "a", Direction: Both}}})
	for _, want := range []string{"no queue", "no local broker", "no upstream"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}
