package edge

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTwoDevicesWithOneIdentifierAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rivals
		want := func(total uint64, id string) {
			t.Helper()
			if n, got := r.quarrel(); n != total || got != id {
				t.Errorf("%d %q, want %d %q", n, got, total, id)
			}
		}
		// One that reconnects now and then is no quarrel.
		for range 5 {
			r.takenOver("a")
			time.Sleep(10 * time.Minute)
		}
		want(5, "")
		for range 3 {
			r.takenOver("b")
			time.Sleep(10 * time.Second)
		}
		want(8, "b")
		r.takenOver("a")
		want(9, "b")
		time.Sleep(rivalWithin)
		want(9, "")
	})
}
