package bridge

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"holdfast"
)

// Route.Stamp: each message says when the gateway took it and where it stands in
// the queue, so that the far side can order a backlog and find repetitions. The
// payload is put into JSON:
//
//	{"time":"2026-11-21T16:30:00.123Z","clock":"sure","gateway":"site-7","bridge":"cloud","lane":"normal","seq":4711,"payload":21.5}
//
// seq grows within gateway, bridge and lane, over restarts too, with gaps where
// messages went by other routes or not at all; a repetition has the same one.
// late is true if something newer of the topic was sent before it (order.go).
// clock is "unsure" while nothing says that the board's clock is right. The
// payload is in "payload" if it is JSON itself, else in "text" if it is UTF-8,
// else in "base64". An empty payload stays empty: it removes a retained message.
type stamp struct {
	Time    time.Time       `json:"time"`
	Clock   string          `json:"clock"`
	Gateway string          `json:"gateway,omitempty"`
	Bridge  string          `json:"bridge"`
	Lane    string          `json:"lane"`
	Seq     uint64          `json:"seq"`
	Late    bool            `json:"late,omitempty"`
	Payload json.RawMessage `json:"payload,omitempty"`
	Text    string          `json:"text,omitempty"`
	Base64  []byte          `json:"base64,omitempty"`
}

// In MQTT 5 the payload stays as it is, and the stamp is in user properties:
// holdfast-time, -clock, -gateway, -bridge, -lane, -seq, and -late if it is.
func (s *stamp) asProperties(m *holdfast.Message) {
	var p holdfast.Properties
	if m.Properties != nil {
		p = *m.Properties
	}
	p.User = append(slices.Clip(p.User),
		holdfast.UserProperty{Name: stampTime, Value: s.Time.Format(time.RFC3339Nano)},
		holdfast.UserProperty{Name: stampClock, Value: s.Clock},
		holdfast.UserProperty{Name: stampGateway, Value: s.Gateway},
		holdfast.UserProperty{Name: stampBridge, Value: s.Bridge},
		holdfast.UserProperty{Name: stampLane, Value: s.Lane},
		holdfast.UserProperty{Name: stampSeq, Value: strconv.FormatUint(s.Seq, 10)})
	if s.Late {
		p.User = append(p.User, holdfast.UserProperty{Name: stampLate, Value: "true"})
	}
	m.Properties = &p
}

// propertied is implemented by an Upstream that knows whether the properties of
// a message reach the far broker.
type propertied interface{ Properties() bool }

// What cannot be known later is kept with the message in the queue, as user
// properties of the first two names; whatever a client, or a Holdfast in front of
// this one, has sent under any of them is taken out.
const (
	stampTime    = "holdfast-time"
	stampClock   = "holdfast-clock"
	stampGateway = "holdfast-gateway"
	stampBridge  = "holdfast-bridge"
	stampLane    = "holdfast-lane"
	stampSeq     = "holdfast-seq"
	stampLate    = "holdfast-late"

	clockSure, clockUnsure = "sure", "unsure"
	// clockApart is from when on the gateway's clock is not the board's.
	clockApart = time.Second
)

// isStamp reports whether a user property of this name is part of a stamp.
func isStamp(name string) bool {
	switch name {
	case stampTime, stampClock, stampGateway, stampBridge, stampLane, stampSeq, stampLate:
		return true
	}
	return false
}

// received notes the time of receipt in out, which nobody else has yet.
func (b *Bridge) received(out *holdfast.Message) {
	now, sure := b.clock()
	var p holdfast.Properties
	if out.Properties != nil {
		p = *out.Properties
	}
	p.User = slices.DeleteFunc(slices.Clone(p.User), func(u holdfast.UserProperty) bool {
		return isStamp(u.Name)
	})
	// A board whose clock is behind may know better from its module.
	if apart := now.Sub(out.Received); apart.Abs() > clockApart {
		p.User = append(p.User, holdfast.UserProperty{Name: stampTime, Value: now.UTC().Format(time.RFC3339Nano)})
	}
	if !sure {
		p.User = append(p.User, holdfast.UserProperty{Name: stampClock, Value: clockUnsure})
	}
	if out.Properties != nil || len(p.User) > 0 {
		out.Properties = &p
	}
}

// stamped is the message of it with its stamp.
func (b *Bridge) stamped(it holdfast.Item, late, props bool) *holdfast.Message {
	m := *it.Msg
	s := stamp{
		Time: m.Received.UTC().Truncate(time.Millisecond), Clock: clockSure,
		Gateway: b.gateway, Bridge: b.name, Lane: it.ID.Lane().String(), Seq: it.ID.Position(), Late: late,
	}
	if m.Properties != nil {
		p := *m.Properties
		p.User = slices.DeleteFunc(slices.Clone(p.User), func(u holdfast.UserProperty) bool {
			switch t, err := time.Parse(time.RFC3339Nano, u.Value); {
			case u.Name == stampTime && err == nil:
				s.Time = t.UTC().Truncate(time.Millisecond)
			case u.Name == stampClock:
				s.Clock = u.Value
			}
			return isStamp(u.Name)
		})
		m.Properties = &p
	}
	if props {
		s.asProperties(&m)
		return &m
	}
	if len(m.Payload) == 0 {
		return &m
	}
	switch {
	case !utf8.Valid(m.Payload): // json.Valid would take it
		s.Base64 = m.Payload
	case json.Valid(m.Payload):
		s.Payload = m.Payload
	default:
		s.Text = string(m.Payload)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if enc.Encode(s) != nil {
		return &m // a year that JSON does not know
	}
	m.Payload = bytes.TrimSuffix(out.Bytes(), []byte("\n"))
	return &m
}
