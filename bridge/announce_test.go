package bridge

import (
	"context"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// withState has a state here and there, and a route that would bring it down.
func withState(o *Options) {
	o.StateTopic, o.FarStateTopic, o.StateSpace = "holdfast/gw/bridge/b/state", "far/state", "holdfast/gw/bridge/"
	o.Routes = append(o.Routes, Route{Name: "down", Direction: In, Filter: "#", QoS: 1})
	o.Local.(*fakeLocal).answer = func(_ *holdfast.Message, done func(error)) { done(nil) }
}

// wantAll is want for lines whose order is open.
func (s *story) wantAll(t *testing.T, want ...string) {
	t.Helper()
	got := s.take()
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Fatalf("happened:\n %q\nwanted, in any order:\n %q", got, want)
		}
	}
}

func TestTheStateIsToldHereAndThereWheneverItChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{will: true, refuse: errCut}, withState)
		synctest.Wait()
		const local = "local holdfast/gw/bridge/b/state "
		w.wantAll(t, "refuse", local+Offline)
		w.broker.setRefuse(nil)
		time.Sleep(aWhile)
		synctest.Wait()
		w.wantAll(t, "connect", "subscribe #", "publish "+Online, local+Online)
		w.broker.last().answer(1, nil)
		w.broker.setRefuse(errCut)
		w.broker.last().lose(errCut)
		synctest.Wait()
		w.wantAll(t, "close", local+Offline) // the will tells the far broker
		w.broker.setRefuse(nil)
		time.Sleep(aWhile)
		synctest.Wait()
		w.take()
		w.stop()
		w.wantAll(t, "publish "+Offline, local+Offline, "close")
	})
}

func TestTheLocalBrokerIsToldTheStateAgainIfItCouldNotTakeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := 3
		w := start(t, &fakeBroker{refuse: errCut}, func(o *Options) {
			withState(o)
			o.Local.(*fakeLocal).answer = func(_ *holdfast.Message, done func(error)) {
				if fails--; fails >= 0 {
					done(holdfast.ErrBusy)
					return
				}
				done(nil)
			}
		})
		defer w.stop()
		time.Sleep(aWhile)
		synctest.Wait()
		told := 0
		for _, l := range w.take() {
			if l == "local holdfast/gw/bridge/b/state "+Offline {
				told++
			}
		}
		if told != 4 {
			t.Errorf("told %d times, wanted 4", told)
		}
	})
}

// With DISCONNECT the far broker forgets the will: what tells it that the bridge
// has gone, although the connection worked to the end?
func TestTheFarBrokerIsToldWhenTheBridgeItselfGivesAConnectionUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{will: true}, withState)
		defer w.stop()
		synctest.Wait()
		w.broker.last().answer(1, nil)
		w.q.add(1, 1)
		synctest.Wait()
		w.take()
		w.broker.setRefuse(errCut)
		w.broker.last().answer(1, errLater)
		time.Sleep(time.Second)
		synctest.Wait()
		got := w.take()
		if i := slices.Index(got, "publish "+Offline); i < 0 || i > slices.Index(got, "close") {
			t.Errorf("%q", got)
		}
	})
}

// The local broker is busy, and takes the word after all when the bridge ends.
func TestTheLastWordIsThatTheBridgeIsNotConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var words []string
		w := start(t, &fakeBroker{refuse: errCut}, func(o *Options) {
			withState(o)
			o.Local.(*fakeLocal).answer = func(m *holdfast.Message, done func(error)) {
				words = append(words, string(m.Payload))
				if string(m.Payload) == Offline {
					done(nil)
				}
			}
		})
		synctest.Wait()
		w.broker.setRefuse(nil)
		time.Sleep(aWhile)
		synctest.Wait()
		w.stop()
		if !slices.Contains(words, Online) || words[len(words)-1] != Offline {
			t.Errorf("%q", words)
		}
	})
}

func TestNoStateIsToldOverAConnectionWithoutAWill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{}, func(o *Options) { withState(o); o.StateTopic = "" })
		synctest.Wait()
		w.stop()
		w.want(t, "connect", "subscribe #", "close")
	})
}

func TestAStateThatComesBackFromTheFarBrokerIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{will: true}, withState)
		defer w.stop()
		synctest.Wait()
		w.take()
		acks := 0
		for _, name := range []string{"far/state", "holdfast/gw/bridge/b/state", "holdfast/gw/bridge/other/state", "holdfast/other/bridge/b/state"} {
			w.broker.last().receive(&holdfast.Message{Topic: name, Payload: []byte("x"), QoS: 1}, false, func() { acks++ })
		}
		synctest.Wait()
		w.want(t, "local holdfast/other/bridge/b/state x")
		if s := w.b.Status(); acks != 4 || s.DroppedLoop != 3 {
			t.Errorf("%d acknowledged, %d dropped", acks, s.DroppedLoop)
		}
	})
}

func TestTheFarBrokerPublishesTheWillWhenTheLinkIsLostAndNotAtAnOrderlyEnd(t *testing.T) {
	noLeaks(t)
	m := startMosquitto(t)
	_, got := m.client("state", 1)
	var wire net.Conn
	o := ClientOptions{URL: "tcp://" + m.addr, ClientID: "gw", Will: StateMessage("state", Offline),
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			wire = c
			return c, err
		}}
	up := dial(t, o, ignore)
	if w, ok := up.(willed); !ok || !w.HasWill() {
		t.Error("the connection does not know of its will")
	}
	wire.Close()
	if r := next(t, got, "the will"); string(r.Payload()) != Offline {
		t.Errorf("%s", r.Payload())
	}
	up.Close()
	up = dial(t, o, ignore)
	done := make(chan error, 1)
	up.Publish(StateMessage("state", Online), false, func(err error) { done <- err })
	if err := next(t, done, "done"); err != nil {
		t.Error(err)
	}
	up.Close()
	c, _ := m.client("", 0)
	m.publish(c, "state", "last", 1)
	for _, want := range []string{Online, "last"} {
		if r := next(t, got, want); string(r.Payload()) != want {
			t.Errorf("%s came, wanted %s", r.Payload(), want)
		}
	}
}

// The will of a connection that has ended without a word comes after one and a half
// keep-alives. By then the bridge is connected by another way.
func TestOnlineIsToldAgainBehindTheWillOfAnotherWay(t *testing.T) {
	for name, id := range map[string]string{"another client identifier": "two", "the same": "one"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				second := &fakeBroker{name: "second ", will: true}
				w := start(t, &fakeBroker{will: true}, func(o *Options) {
					withState(o)
					second.story = o.Queue.(*fakeQueue).story
					o.Upstreams[0].ClientID, o.Upstreams[0].KeepAlive = "one", 10*time.Minute
					o.Upstreams = append(o.Upstreams, UpstreamOption{Name: "second", ClientID: id, KeepAlive: 10 * time.Minute, Connect: second.Connect})
				})
				defer w.stop()
				time.Sleep(time.Hour) // what an earlier process may have left is over
				w.broker.setRefuse(errCut)
				w.take()
				w.broker.last().lose(errCut)
				time.Sleep(aWhile)
				synctest.Wait()
				w.wantAll(t, "second connect", "publish "+Online)
				second.last().answer(1, nil)
				time.Sleep(14 * time.Minute)
				if got := w.take(); slices.Contains(got, "publish "+Online) {
					t.Errorf("too early: %q", got)
				}
				time.Sleep(6*time.Minute + aWhile)
				synctest.Wait()
				if told := slices.Contains(w.take(), "publish "+Online); told != (id == "two") {
					t.Errorf("told again: %v", told)
				}
			})
		})
	}
}
