package bridge

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"holdfast"
)

func TestAStampHasTimeSequenceAndThePayload(t *testing.T) {
	noon := time.Date(2026, 11, 21, 12, 0, 0, 123456789, time.UTC)
	sure, now := true, noon
	s := &story{}
	b, err := New(Options{Name: "cloud", GatewayID: "7", Queue: newFakeQueue(s),
		Clock:     func() (time.Time, bool) { return now, sure },
		Routes:    []Route{{Name: "r", Filter: "#", Stamp: true}},
		Upstreams: []UpstreamOption{{Name: "u", Connect: (&fakeBroker{story: s}).Connect}}})
	if err != nil {
		t.Fatal(err)
	}
	stamped := func(m *holdfast.Message) *holdfast.Message {
		m.Topic = "t"
		_, lane, out, ok := b.Match(m)
		if !ok {
			t.Fatal("no match")
		}
		return b.stamped(holdfast.Item{ID: holdfast.NewItemID(lane, 4711), Route: "r", Msg: out}, false, false)
	}
	const head = `{"time":"2026-11-21T12:00:00.123Z","clock":"sure","gateway":"7","bridge":"cloud","lane":"normal","seq":4711,`
	for payload, want := range map[string]string{
		`21.5`:               head + `"payload":21.5}`,
		`{"a":[1, "<&>"]}`:   head + `"payload":{"a":[1,"<&>"]}}`,
		`"on"`:               head + `"payload":"on"}`,
		"on\n\"<":            head + `"text":"on\n\"<"}`,
		"\xff\x00":           head + `"base64":"/wA="}`,
		"\"\xff\"":           head + `"base64":"Iv8i"}`,
		"":                   "",
		`123456789012345678`: head + `"payload":123456789012345678}`,
	} {
		if got := string(stamped(&holdfast.Message{Payload: []byte(payload), Received: noon}).Payload); got != want {
			t.Errorf("%q is\n%s, want\n%s", payload, got, want)
		}
	}
	_, _, kept, _ := b.Match(&holdfast.Message{Topic: "t", Payload: []byte("x"), Received: noon})
	v5 := b.stamped(holdfast.Item{ID: 5, Route: "r", Msg: kept}, true, true)
	if got := fmt.Sprint(v5.Properties.User); string(v5.Payload) != "x" || got != "[{holdfast-time 2026-11-21T12:00:00.123Z} {holdfast-clock sure} {holdfast-gateway 7} {holdfast-bridge cloud} {holdfast-lane normal} {holdfast-seq 5} {holdfast-late true}]" {
		t.Errorf("in MQTT 5: %s, %s", v5.Payload, got)
	}
	// A board that starts in 1970, with a module that knows the time; a client
	// that says what is not its own to say.
	sure = false
	liar := &holdfast.Properties{User: []holdfast.UserProperty{{Name: stampClock, Value: "fine"}, {Name: "k", Value: "v"}, {Name: stampTime, Value: "2000-01-01T00:00:00Z"}}}
	for _, name := range []string{"holdfast-gateway", "holdfast-bridge", "holdfast-lane", "holdfast-seq", "holdfast-late"} {
		liar.User = append(liar.User, holdfast.UserProperty{Name: name, Value: "its own"})
	}
	out := stamped(&holdfast.Message{Payload: []byte("1"), Received: time.Unix(100, 0), Properties: liar})
	var got stamp
	if err := json.Unmarshal(out.Payload, &got); err != nil || got.Clock != "unsure" || !got.Time.Equal(noon.Truncate(time.Millisecond)) {
		t.Errorf("%s, %v", out.Payload, err)
	}
	if u := out.Properties.User; len(u) != 1 || u[0].Name != "k" || len(liar.User) != 8 {
		t.Errorf("user properties are %v, the client's %v", u, liar.User)
	}
}

// FuzzStamp: every payload must come back out of its stamp.
func FuzzStamp(f *testing.F) {
	for _, p := range []string{"", "1", "[1, 2]", "x", "\xff", "{\"a\":1,\"a\":2}", "1e400", "\u2028"} {
		f.Add([]byte(p))
	}
	b := quietBridge(f, Route{Name: "r", Filter: "#", Stamp: true})
	f.Fuzz(func(t *testing.T, payload []byte) {
		out := b.stamped(holdfast.Item{ID: 1, Msg: &holdfast.Message{Payload: payload, Received: time.Now()}}, false, false)
		if len(payload) == 0 {
			if len(out.Payload) != 0 {
				t.Fatal("an empty payload has become one")
			}
			return
		}
		var s stamp
		if err := json.Unmarshal(out.Payload, &s); err != nil {
			t.Fatal(err)
		}
		switch {
		case s.Base64 != nil:
			if string(s.Base64) != string(payload) {
				t.Fatalf("%q", s.Base64)
			}
		case s.Text != "":
			if s.Text != string(payload) {
				t.Fatalf("%q", s.Text)
			}
		case !json.Valid(s.Payload):
			t.Fatalf("%q", s.Payload)
		}
	})
}
