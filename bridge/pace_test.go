package bridge

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// weak is a link in a bubble of time: it carries so many bytes in a second, one
// after another, and each answer takes a round trip more; some bytes are lost and
// come later, and what is behind them waits, as in TCP. What is lost depends on the
// moment alone, so that a run is the same however its goroutines take turns.
type weak struct {
	bytes int // in a second
	trip  time.Duration
	loss  float64

	mu    sync.Mutex
	free  time.Time // the link is
	there time.Time // the last answer
}

func (w *weak) publish(msg *holdfast.Message, done func(error)) {
	w.mu.Lock()
	now := time.Now()
	if w.free.Before(now) {
		w.free = now
	}
	size := len(msg.Topic) + len(msg.Payload) + 45 // with the headers of TCP/IP and MQTT
	w.free = w.free.Add(time.Duration(size) * time.Second / time.Duration(w.bytes))
	there := w.free.Add(w.trip)
	moment := w.free.UnixNano() / int64(40*time.Millisecond) // about one message
	rng := rand.New(rand.NewPCG(seed, uint64(moment)))
	for rng.Float64() < w.loss {
		there = there.Add(2 * w.trip)
	}
	if there.Before(w.there) {
		there = w.there
	}
	w.there = there
	w.mu.Unlock()
	time.AfterFunc(time.Until(there), func() { done(nil) })
}

// seed fixes what is lost.
const seed = 2

// TestAlarmsGetThroughWhileABacklogDrainsOverAWeakLink: 300 ms, 4 kB/s and a loss
// of 20 %.
func TestAlarmsGetThroughWhileABacklogDrainsOverAWeakLink(t *testing.T) {
	for _, tc := range []struct {
		loss  float64
		count int // of alarms
		used  int // percent of what the link could carry without loss
	}{{0, 100, 75}, {0.2, 600, 40}} {
		t.Run(fmt.Sprintf("loss %g", tc.loss), func(t *testing.T) { alarms(t, tc.loss, tc.count, tc.used) })
	}
}

func alarms(t *testing.T, loss float64, count, used int) {
	synctest.Test(t, func(t *testing.T) {
		link := &weak{bytes: 4000, trip: 300 * time.Millisecond, loss: loss}
		broker := &fakeBroker{}
		var mu sync.Mutex
		acked := map[string]time.Time{}
		broker.onPublish = func(_ *fakeUpstream, msg *holdfast.Message, done func(error)) {
			link.publish(msg, func(err error) {
				done(err)
				mu.Lock()
				defer mu.Unlock()
				acked[string(msg.Payload)] = time.Now()
			})
		}
		w := start(t, broker, nil)
		t.Cleanup(w.stop)
		const backlog = 50_000
		w.q.mu.Lock()
		for range backlog {
			w.q.last++
			w.q.waiting = append(w.q.waiting, holdfast.Item{ID: holdfast.NewItemID(holdfast.Normal, w.q.last), Route: "r",
				Msg: &holdfast.Message{Topic: "t/old", Payload: []byte(strings.Repeat("o", 100)), QoS: 1}})
		}
		w.q.mu.Unlock()
		signal(w.q.ready)
		after(10 * time.Second)
		begun, before := time.Now(), w.b.Status().Acked
		sent := map[string]time.Time{}
		for n := range count {
			name := fmt.Sprintf("alarm %d", n)
			sent[name] = time.Now()
			w.q.insert(holdfast.High, name)
			after(3 * time.Second)
		}
		drained, took := w.b.Status().Acked-before, time.Since(begun)
		after(time.Minute)
		var delays []time.Duration
		mu.Lock()
		defer mu.Unlock()
		for name, at := range sent {
			if acked[name].IsZero() {
				t.Fatalf("%s did not arrive", name)
			}
			delays = append(delays, acked[name].Sub(at))
		}
		slices.Sort(delays)
		p99 := delays[len(delays)*99/100]
		most := int(took.Seconds() * 4000 / 150)
		t.Logf("alarms: half within %v, p99 %v; %d of the %d old ones that the link could carry", delays[len(delays)/2], p99, drained, most)
		if p99 > 3*time.Second {
			t.Errorf("the p99 of alarms is %v", p99)
		}
		if int(drained) < most*used/100 {
			t.Errorf("only %d of %d were drained meanwhile: the link is not used", drained, most)
		}
	})
}

func TestAFastLinkIsNotHeldBack(t *testing.T) {
	now := time.Now()
	p := newPace(1 << 20)
	for range 2000 {
		now = now.Add(20 * time.Microsecond)
		p.answered(now, 1000, 20*time.Millisecond, true)
	}
	if p.limit != 1<<20 {
		t.Errorf("after 2,000 acknowledgements the limit is %d", p.limit)
	}
	// One that stalls for a moment makes it smaller once, not to nothing.
	for range 1000 {
		p.answered(now, 1000, 3*time.Second, true)
	}
	if p.limit < 1<<19 {
		t.Errorf("one stall has made it %d", p.limit)
	}
}

func TestThePaceKeepsItsBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, most := range []int{1, 1000, 1 << 20} {
		p, now := newPace(most), time.Now()
		for range 10_000 {
			now = now.Add(time.Duration(rng.Int64N(int64(10 * time.Second))))
			p.answered(now, rng.IntN(1<<18), time.Duration(rng.Int64N(int64(time.Minute))), rng.IntN(2) == 0)
			if p.limit > most || p.limit < min(paceFloor, most) {
				t.Fatalf("the limit is %d of %d", p.limit, most)
			}
		}
	}
}

func TestNoMoreThanTheRateIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &fakeBroker{onPublish: func(_ *fakeUpstream, _ *holdfast.Message, done func(error)) { done(nil) }}
		w := start(t, broker, func(o *Options) { o.Rate = 10 })
		t.Cleanup(w.stop)
		w.q.add(1000, 1)
		after(10 * time.Second)
		if n := w.b.Status().Acked; n < 100 || n > 111 {
			t.Errorf("%d in 10 s at 10 a second", n)
		}
	})
}

func TestTheLowLaneGetsItsTwentieth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		broker := &fakeBroker{onPublish: func(_ *fakeUpstream, m *holdfast.Message, done func(error)) {
			got = append(got, string(m.Payload))
			done(nil)
		}}
		broker.refuse = fmt.Errorf("not yet")
		w := start(t, broker, nil)
		t.Cleanup(w.stop)
		w.q.add(100, 1)
		for range 3 {
			w.q.insert(holdfast.Low, "low")
		}
		broker.setRefuse(nil)
		after(5 * time.Minute)
		if len(got) != 103 || got[19] != "low" || got[39] != "low" || got[59] != "low" || got[18] != "19" {
			t.Errorf("%d sent: %q", len(got), got)
		}
	})
}
