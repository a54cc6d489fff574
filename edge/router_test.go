package edge

import (
	"fmt"
	"strings"
	"testing"

	"holdfast"
)

func TestWhatIsRememberedOfTopicsIsBounded(t *testing.T) {
	remembered := func(r *router) (topics, bytes, dests int) {
		for name, d := range r.cache {
			bytes += len(name)
			dests += len(d)
		}
		if dests != r.cached {
			t.Errorf("%d destinations are counted, %d there", r.cached, dests)
		}
		return len(r.cache), bytes, dests
	}
	t.Run("for topics of 60 KB", func(t *testing.T) {
		var r router
		for i := range 2 * matchCacheTopics {
			r.match(fmt.Sprint(i, strings.Repeat("x", 60_000)))
		}
		if _, bytes, _ := remembered(&r); bytes > 4<<20 {
			t.Errorf("%d bytes", bytes)
		}
	})
	t.Run("for topics with many subscribers", func(t *testing.T) {
		var r router
		for i := range 1000 {
			r.subscribe(newSession(fmt.Sprint(i), false), holdfast.Subscription{Filter: "#"})
		}
		for i := range 2 * matchCacheTopics {
			if n := len(r.match(fmt.Sprint(i))); n != 1000 {
				t.Fatalf("%d subscribers", n)
			}
		}
		if n, _, dests := remembered(&r); n == 0 || dests > matchCacheDestinations {
			t.Errorf("%d topics with %d subscribers", n, dests)
		}
	})
	t.Run("for many topics, of which most are found again", func(t *testing.T) {
		var r router
		for i := range 10 * matchCacheTopics {
			r.match(fmt.Sprint(i % 5000))
		}
		found := 0
		for i := range 5000 {
			if _, ok := r.cache[fmt.Sprint(i)]; ok {
				found++
			}
		}
		if found < 3000 || found > matchCacheTopics {
			t.Errorf("%d of 5000", found)
		}
	})
	t.Run("and stays when a client without subscriptions leaves", func(t *testing.T) {
		var r router
		s := newSession("s", false)
		r.subscribe(s, holdfast.Subscription{Filter: "a"})
		r.match("a")
		r.forget(newSession("publisher", false))
		if n, _, _ := remembered(&r); n != 1 {
			t.Error("the topic was forgotten")
		}
		r.unsubscribe(s, "a")
		if len(r.match("a")) != 0 {
			t.Error("there is a subscriber after UNSUBSCRIBE")
		}
	})
}
