package bridge

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// A far broker that takes nothing for hours: no message is to blame, and the
// connections do not follow one another closely.
func TestAFullFarBrokerGetsNoMessageQuarantined(t *testing.T) {
	for _, rare := range []int{2, 10} {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			w := start(t, &fakeBroker{onPublish: func(_ *fakeUpstream, _ *holdfast.Message, done func(error)) {
				if calls++; calls%rare == 0 { // one has found room
					done(nil)
					return
				}
				done(errFull)
			}}, nil)
			w.q.add(1500, 1)
			time.Sleep(4 * time.Hour)
			w.stop()
			tries := 0
			for _, line := range w.take() {
				if line == "connect" {
					tries++
				}
			}
			if s := w.b.Status(); s.Quarantined != 0 || s.Acked < 10 || tries > 1000 {
				t.Errorf("one in %d: %d in quarantine, %d acknowledged, %d connections", rare, s.Quarantined, s.Acked, tries)
			}
		})
	}
}

func TestAMessageThatTheFarBrokerAlwaysPutsOffIsRefusedByItInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, &fakeBroker{onPublish: func(_ *fakeUpstream, m *holdfast.Message, done func(error)) {
			if string(m.Payload) == "2" {
				done(errLater)
				return
			}
			done(nil)
		}}, nil)
		defer w.stop()
		w.q.add(3, 1)
		time.Sleep(laterPatience - time.Minute)
		synctest.Wait()
		if s := w.b.Status(); s.Quarantined != 0 {
			t.Error("it is in quarantine too soon")
		}
		w.take()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if got := w.take(); !slices.Contains(got, "quarantine 2: "+ReasonRefused) || !slices.Contains(got, "ack 3") {
			t.Errorf("%q", got)
		}
	})
}
