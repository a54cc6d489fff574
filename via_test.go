package holdfast

import "testing"

func TestAMessageKnowsWhichGatewaysItHasPassed(t *testing.T) {
	plain := &Message{Topic: "t", Properties: &Properties{User: []UserProperty{{Name: "a", Value: "b"}}}}
	m := plain.Via("b").Via("c")
	if plain.Travelled() || plain.Passed("b") {
		t.Error("the message itself has changed")
	}
	if !m.Travelled() || !m.Passed("b") || !m.Passed("c") || m.Passed("d") || m.Passed("") {
		t.Errorf("it has passed %v", m.Properties.User)
	}
	if m.Via("b") != m {
		t.Error("the same gateway is noted twice")
	}
	none := &Message{Topic: "t"}
	if none.Travelled() || none.Passed("b") || !none.Via("b").Passed("b") {
		t.Error("a message without properties")
	}
	for range MaxVia {
		m = m.Via(string(rune('k' + len(m.Properties.User))))
	}
	if !m.Passed("never") {
		t.Errorf("it may pass %d gateways", len(m.Properties.User)-1)
	}
}
