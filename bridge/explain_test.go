package bridge

import (
	"reflect"
	"testing"

	"holdfast"
)

func TestWhatARouteWouldDoIsWhatItDoes(t *testing.T) {
	routes := []Route{
		{Direction: In, Filter: "a/#"},
		{Name: "one", Filter: "a/+", RemotePrefix: "x/", QoS: 1, Lane: holdfast.High},
		{Name: "two", Filter: "a/#", QoS: 2, Retain: true},
		{Name: "bad", Filter: "a+"},
	}
	want := []Explanation{
		{Route: "one", Owner: true, Remote: "x/a/b", QoS: 1, Lane: holdfast.High},
		{Route: "two", Remote: "a/b", QoS: 2, Retain: true},
	}
	if got := Explain(routes, "a/b"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := Explain(routes, "b"); got != nil {
		t.Errorf("%+v", got)
	}
	name, lane, msg, ok := quietBridge(t, routes[:3]...).Match(&holdfast.Message{Topic: "a/b", Retain: true})
	if !ok || name != want[0].Route || lane != want[0].Lane || msg.Topic != want[0].Remote || msg.QoS != want[0].QoS || msg.Retain {
		t.Errorf("the bridge does %q, %v, %+v", name, lane, msg)
	}
}

func TestTheSizeOnTheWireGrowsWithWhatIsCarried(t *testing.T) {
	for _, tc := range []struct {
		topic, payload int
		qos            byte
		tls            bool
		want           int
	}{
		{10, 50, 0, false, 2 + 12 + 50 + 2*52},
		{10, 50, 1, false, 2 + 14 + 50 + 4 + 3*52},
		{10, 50, 1, true, 2 + 14 + 50 + 4 + 3*52 + 2*22},
		{10, 200, 2, false, 3 + 14 + 200 + 12 + 5*52},
	} {
		if got := WireSize(tc.topic, tc.payload, tc.qos, tc.tls); got != tc.want {
			t.Errorf("%+v: %d", tc, got)
		}
	}
}
