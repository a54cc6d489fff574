package bridge

import (
	"math/rand/v2"
	"strings"
	"testing"

	"holdfast"
	"holdfast/edge/topic"
)

// quietBridge is a bridge that is not run.
func quietBridge(t testing.TB, routes ...Route) *Bridge {
	t.Helper()
	s := &story{}
	b, err := New(Options{Name: "b", Routes: routes, Queue: newFakeQueue(s), Local: &fakeLocal{story: s},
		Upstreams: []UpstreamOption{{Name: "u", Connect: (&fakeBroker{story: s}).Connect}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatARouteExcludesGoesToALaterOneOrStays(t *testing.T) {
	b := quietBridge(t,
		Route{Name: "most", Direction: Both, Filter: "+/#", Exclude: []string{"raw/#", "+/debug"}, LocalPrefix: "s/", RemotePrefix: "gw/"},
		Route{Name: "raw", Filter: "raw/a", LocalPrefix: "s/"})
	for name, want := range map[string]string{
		"s/t/1": "most", "s/raw/a": "raw", "s/raw/b": "", "s/raw": "", "s/t/debug": "", "s/t/debug/1": "most", "s/debug": "most",
	} {
		if got, _, _, _ := b.Match(&holdfast.Message{Topic: name}); got != want {
			t.Errorf("%s goes by route %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]bool{"gw/t/1": true, "gw/raw/a": false, "gw/t/debug": false} {
		if _, got := b.bringDown(&holdfast.Message{Topic: name}); got != want {
			t.Errorf("%s comes down: %v, want %v", name, got, want)
		}
	}
	if err := (Route{Filter: "a/#", Exclude: []string{"a+"}}).Validate(); err == nil {
		t.Error("an exclude that is no filter is taken")
	}
	for d, want := range map[Direction]bool{Out: true, In: false, Both: false} {
		r := Route{Direction: d, Filter: "a/#", RemotePrefix: "site7", Exclude: []string{"+/raw"}}
		if err := r.Validate(); (err == nil) != want {
			t.Errorf("%v, with an exclude that is no filter in the far broker: %v", d, err)
		}
	}
}

func TestARouteMapsLocalToRemoteTopicsAndBack(t *testing.T) {
	for _, tc := range []struct{ filter, local, remote, from, to string }{
		{"sensors/#", "", "", "sensors/t1", "sensors/t1"},
		{"sensors/#", "", "", "sensors", "sensors"},
		{"sensors/#", "", "site7/", "sensors/t1", "site7/sensors/t1"},
		{"#", "plant/", "site7/", "plant/pump/1", "site7/pump/1"},
		{"#", "plant/", "site7/", "plant/", "site7/"},
		{"+/set", "cmd/", "site7/cmd/", "cmd/valve/set", "site7/cmd/valve/set"},
		{"", "local/one", "far/other", "local/one", "far/other"},
		{"one", "a/", "", "a/one", "one"},
		{"x/+", "pre", "", "prex/1", "x/1"},
		{"#", "", "up/", "/lead/", "up//lead/"},
		{"#", "$SYS/", "sys/", "$SYS/uptime", "sys/uptime"},
		// Not matched:
		{"sensors/#", "", "", "sensor/t1", ""},
		{"#", "plant/", "site7/", "plant", ""},
		{"#", "plant/", "site7/", "plants/x", ""},
		{"+/set", "cmd/", "x/", "cmd/valve/x/set", ""},
		{"#", "", "up/", "$SYS/uptime", ""},
		{"+/x", "", "up/", "$SYS/x", ""},
		{"", "local/one", "far/other", "local/one/more", ""},
	} {
		b := quietBridge(t, Route{Name: "r", Direction: Both, Filter: tc.filter, LocalPrefix: tc.local, RemotePrefix: tc.remote, QoS: 1, Lane: holdfast.High})
		route, lane, out, ok := b.Match(&holdfast.Message{Topic: tc.from, Origin: "sensor"})
		if ok != (tc.to != "") {
			t.Errorf("%+v: matched %v", tc, ok)
			continue
		}
		if !ok {
			continue
		}
		if out.Topic != tc.to || route != "r" || lane != holdfast.High {
			t.Errorf("%+v: %q in route %q, lane %v", tc, out.Topic, route, lane)
		}
		if in, ok := b.bringDown(out); !ok || in.Topic != tc.from {
			t.Errorf("%+v: comes back as %+v", tc, in)
		}
	}
}

func TestWhatGoesOutAndComesInIsTheSameForAnyTopicAndRoute(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	level := func() string { return []string{"", "a", "b", "cc", "$x", "ä"}[r.IntN(6)] }
	name := func(n int) string {
		l := make([]string, n)
		for i := range l {
			l[i] = level()
		}
		return strings.Join(l, "/")
	}
	matched := 0
	for range 20000 {
		route := Route{Name: "r", Direction: Both, QoS: 1}
		if r.IntN(2) == 0 {
			route.LocalPrefix = name(1+r.IntN(2)) + "/"
		}
		if r.IntN(2) == 0 {
			route.RemotePrefix = name(1+r.IntN(2)) + "/"
		}
		l := strings.Split(name(1+r.IntN(3)), "/")
		for i := range l {
			if r.IntN(2) == 0 {
				l[i] = "+"
			}
		}
		if r.IntN(2) == 0 {
			l = append(l, "#")
		}
		route.Filter = strings.Join(l, "/")
		if route.Validate() != nil {
			continue
		}
		o, i := newOutRoute(route), newInRoute(route)
		from := route.LocalPrefix + name(1+r.IntN(4))
		to, ok := o.toRemote(from)
		if want := topic.Match(o.filter, from) && strings.HasPrefix(from, route.LocalPrefix) && route.RemotePrefix+from[len(route.LocalPrefix):] != ""; ok != want {
			t.Fatalf("%+v, %q: matched %v", route, from, ok)
		}
		if !ok {
			continue
		}
		// A remote name that begins with a dollar is in no subscription that
		// begins with a wildcard: it goes out and does not come in.
		if back, ok := i.toLocal(to); ok && back == from {
			matched++
		} else if ok || !strings.HasPrefix(to, "$") {
			t.Fatalf("%+v: %q goes out as %q and comes back as %q, %v", route, from, to, back, ok)
		}
	}
	if matched < 1000 {
		t.Errorf("only %d topics were matched", matched)
	}
}

func TestTheFirstRouteThatMatchesOwnsAMessage(t *testing.T) {
	b := quietBridge(t,
		Route{Name: "in", Direction: In, Filter: "a/#"},
		Route{Name: "alarm", Filter: "a/alarm", QoS: 2, Lane: holdfast.High},
		Route{Name: "all", Filter: "a/#", QoS: 0, Retain: true, Lane: holdfast.Low})
	for _, tc := range []struct {
		in     holdfast.Message
		route  string
		qos    byte
		retain bool
	}{
		{holdfast.Message{Topic: "a/alarm", QoS: 0, Retain: true}, "alarm", 2, false},
		{holdfast.Message{Topic: "a/b", QoS: 2, Retain: true}, "all", 0, true},
		{holdfast.Message{Topic: "a/b"}, "all", 0, false},
		{holdfast.Message{Topic: "a/b", Origin: holdfast.BridgeOrigin("other")}, "all", 0, false},
		{holdfast.Message{Topic: "a/b", Origin: holdfast.BridgeOrigin("b")}, "", 0, false},
		{holdfast.Message{Topic: "a/b", Origin: "bridge:b"}, "all", 0, false}, // a client of that name
		{holdfast.Message{Topic: "b"}, "", 0, false},
	} {
		before := tc.in
		route, _, out, ok := b.Match(&tc.in)
		if route != tc.route || ok != (tc.route != "") {
			t.Errorf("%+v is owned by %q", tc.in, route)
		} else if ok && (out.QoS != tc.qos || out.Retain != tc.retain) {
			t.Errorf("%+v goes as %+v", tc.in, out)
		}
		if before.Topic != tc.in.Topic || before.QoS != tc.in.QoS || before.Retain != tc.in.Retain {
			t.Error("the message was changed")
		}
	}
}

func TestARouteThatCannotWorkIsRefusedInWords(t *testing.T) {
	for _, tc := range []struct {
		r    Route
		want string
	}{
		{Route{Filter: "a#"}, "a#"},
		{Route{Filter: "#", LocalPrefix: "plant"}, "slash"},
		{Route{Filter: "+", RemotePrefix: "x"}, "slash"},
		{Route{Filter: "a", RemotePrefix: "+/"}, "wildcard"},
		{Route{Filter: ""}, "local_prefix"},
		{Route{Filter: "$share/g/a"}, "shared"},
		{Route{Filter: "a", QoS: 3}, "qos"},
		{Route{Filter: "a", Direction: 9}, "direction"},
		{Route{Filter: "a", Lane: 7}, "priority"},
	} {
		if err := tc.r.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc.r, err)
		}
	}
}

func TestPairsOfRoutesThatMayEchoAreFound(t *testing.T) {
	for name, tc := range map[string]struct {
		routes []Route
		want   int
	}{
		"both ways":    {[]Route{{Filter: "a/#", Direction: Both}}, 1},
		"overlapping":  {[]Route{{Filter: "a/#"}, {Filter: "a/cmd/+", Direction: In}}, 1},
		"apart":        {[]Route{{Filter: "a/#", RemotePrefix: "up/"}, {Filter: "a/#", RemotePrefix: "down/", Direction: In}}, 0},
		"only out":     {[]Route{{Filter: "a/#"}, {Filter: "a/b"}}, 0},
		"local only":   {[]Route{{Filter: "a/#", RemotePrefix: "x/"}, {Filter: "a/#", RemotePrefix: "y/", Direction: In}}, 0},
		"not a filter": {[]Route{{Filter: "a#", Direction: Both}}, 0},
	} {
		if got := FindEchoes(tc.routes); len(got) != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestMatchAllocatesNothingForWhatNoRouteOwns(t *testing.T) {
	b := quietBridge(t, manyRoutes()...)
	m := &holdfast.Message{Topic: "plant/area/7/machine/3/temperature", Origin: "sensor"}
	if n := testing.AllocsPerRun(1000, func() { b.Match(m) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func manyRoutes() []Route {
	r := []Route{{Filter: "plant/+/alarm"}}
	for _, n := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		r = append(r, Route{Filter: n + "/#", RemotePrefix: "site/"})
	}
	return r
}

func BenchmarkMatchNothing(b *testing.B) {
	br := quietBridge(b, manyRoutes()...)
	m := &holdfast.Message{Topic: "plant/area/7/machine/3/temperature", Origin: "sensor"}
	b.ReportAllocs()
	for b.Loop() {
		br.Match(m)
	}
}

func BenchmarkMatchWithPrefix(b *testing.B) {
	br := quietBridge(b, manyRoutes()...)
	m := &holdfast.Message{Topic: "g/area/7/machine/3/temperature", Origin: "sensor"}
	b.ReportAllocs()
	for b.Loop() {
		br.Match(m)
	}
}
