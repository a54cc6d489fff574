package bridge

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// helped runs a bridge whose first upstream carries text only, with a second one
// that can be connected to beside it.
func helped(t *testing.T, second *fakeBroker, change func(*Options)) *world {
	t.Helper()
	first := &fakeBroker{onPublish: acknowledge}
	w := start(t, first, func(o *Options) {
		second.story, second.name = first.story, "second "
		o.Upstreams = []UpstreamOption{
			{Name: "first", ClientID: "a", Connect: texts(first)},
			{Name: "second", ClientID: "b", Connect: second.Connect, Beside: second.Connect},
		}
		o.AckTimeout = 24 * time.Hour
		if change != nil {
			change(o)
		}
	})
	t.Cleanup(w.stop)
	after(time.Second)
	w.take()
	return w
}

// counts are how many messages are handed out and how many have ended, and how
// the first of those has.
func (q *fakeQueue) counts() (out, ended int, first string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.out), len(q.gone), q.gone[holdfast.NewItemID(holdfast.Normal, 1)]
}

func TestWhatTheUpstreamCannotCarryGoesByAnotherOneBesideIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := &fakeBroker{}
		w := helped(t, second, func(o *Options) { o.Routes[0].Encoding = Base64 }) // which is not needed
		w.push("one", "b\x00", "two")
		after(time.Second)
		got := w.take()
		for _, want := range []string{"publish one", "ack 1", "second connect", "publish b\x00", "publish two", "ack 3"} {
			if !slices.Contains(got, want) {
				t.Errorf("%q is not in %q", want, got)
			}
		}
		// It is lost with the message on it: its turn comes again when that upstream
		// is not held any more.
		second.last().lose(errors.New("lost"))
		after(time.Second)
		w.want(t, "second close", "release [2]", "publish YgA= again", "ack 2")

		w.b.encodings["r"] = AsIs // nothing runs
		w.push("c\x00")
		after(10 * time.Minute)
		w.want(t, "second connect", "publish c\x00")
		second.last().answer(1, nil)
		synctest.Wait()
		w.want(t, "ack 4")
		after(2 * besideIdle)
		w.want(t, "second close")
		w.push("d\x00")
		after(time.Second)
		w.want(t, "second connect", "publish d\x00")
		if s := w.b.Status(); s.Upstream != "first" || s.Beside != 1 || s.Inflight != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestWithNobodyBesideTheEncodingHelpsAtOnceAndQuarantineInTheEnd(t *testing.T) {
	for _, encoding := range []Encoding{AsIs, Base64} {
		t.Run(encoding.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				second := &fakeBroker{refuse: errors.New("no")}
				w := helped(t, second, func(o *Options) { o.Routes[0].Encoding = encoding })
				w.push("b\x00", "c\x00", "two")
				after(time.Minute)
				got := w.take()
				if encoding == Base64 {
					for _, want := range []string{"second refuse", "release [1]", "publish YgA= again", "ack 1", "ack 2", "ack 3"} {
						if !slices.Contains(got, want) {
							t.Errorf("%q is not in %q", want, got)
						}
					}
					return
				}
				if _, ended, _ := w.q.counts(); !slices.Contains(got, "ack 3") || ended != 1 {
					t.Errorf("%q: the queue does not go on", got)
				}
				after(besideWait)
				for _, line := range w.take() {
					if line != "second refuse" && !strings.HasPrefix(line, "quarantine") {
						t.Errorf("%q", line)
					}
				}
				if _, ended, how := w.q.counts(); how != ReasonRefused || ended != 3 {
					t.Errorf("%d have ended, the first as %s", ended, how)
				}
			})
		})
	}
}

func TestWhatWentBesideIsNotTakenForACommandWhenItComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := helped(t, &fakeBroker{onPublish: acknowledge}, func(o *Options) {
			o.Routes = []Route{{Name: "r", Direction: Both, Filter: "#", QoS: 1}}
		})
		w.push("b\x00")
		after(time.Second)
		w.want(t, "second connect", "publish b\x00", "ack 1")
		acks := 0
		w.broker.last().receive(&holdfast.Message{Topic: "t/x", Payload: []byte("b\x00"), QoS: 1}, false, func() { acks++ })
		after(time.Second)
		w.want(t)
		if s := w.b.Status(); acks != 1 || s.DroppedLoop != 1 {
			t.Errorf("%d acknowledged, %d dropped", acks, s.DroppedLoop)
		}
	})
}

// Those with the same client identifier would end each other.
func TestAnUpstreamWithTheSameClientIdentifierIsNotUsedBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := helped(t, &fakeBroker{}, func(o *Options) { o.Upstreams[1].ClientID = "a" })
		w.push("b\x00")
		after(time.Second)
		w.want(t, `cannot publish "b\x00"`, "quarantine 1: refused")
	})
}

// What waits is bounded, and given back in its order when the connection ends.
func TestNoMoreThanABoundWaitsForAnotherUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := &fakeBroker{}
		w := helped(t, second, nil)
		for range maxBeside + 10 {
			w.push("b\x00")
		}
		after(time.Second)
		// One more was taken from the queue and waits for room.
		if out, _, _ := w.q.counts(); out != maxBeside+1 {
			t.Errorf("%d are handed out", out)
		}
		for range maxBeside + 10 {
			second.last().answer(1, nil)
			synctest.Wait()
		}
		after(time.Second)
		if _, ended, _ := w.q.counts(); ended != maxBeside+10 || w.b.Status().Beside != maxBeside+10 {
			t.Errorf("%d have ended", ended)
		}
		w.take()
		w.push("c\x00", "d\x00")
		after(time.Second)
		w.broker.last().lose(errors.New("lost"))
		synctest.Wait()
		got := w.take()
		if !slices.Contains(got, "release [75 76]") || !slices.Contains(got, "second close") {
			t.Errorf("%q", got)
		}
	})
}

// A preferred upstream is waited for: the bridge goes back to it.
func TestWhatOnlyAPreferredUpstreamCanCarryWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		preferred := &fakeBroker{onPublish: acknowledge, name: "preferred ", refuse: errors.New("no")}
		other := &fakeBroker{onPublish: acknowledge}
		w := start(t, other, func(o *Options) {
			preferred.story = other.story
			o.Upstreams = []UpstreamOption{
				{Name: "preferred", CarriesAll: true, Connect: preferred.Connect},
				{Name: "other", Connect: texts(other)},
			}
		})
		defer w.stop()
		after(time.Second)
		w.push("b\x00", "two")
		after(time.Second)
		w.want(t, "preferred refuse", "connect", "publish two", "ack 2")
		preferred.setRefuse(nil)
		after(10 * time.Minute)
		w.want(t, "preferred connect", "close", "release [1]", "publish b\x00 again", "ack 1")
	})
}
