package holdfast

import "slices"

// The user properties (MQTT 5, 3.3.2.3.7) by which gateways tell each other where a
// message has been. Without them two gateways that bridge one another, or more in a
// ring, would send it round for ever.
const (
	// PropertyGateway is in the CONNACK of a gateway's broker, with its id.
	PropertyGateway = "holdfast-gateway"
	// PropertyVia is in a message, once for each gateway that it has passed, in
	// this order, with the gateway's id.
	PropertyVia = "holdfast-via"
)

// MaxVia is the most gateways that a message may have passed.
const MaxVia = 16

// Passed reports whether m has passed that gateway, or more gateways than it may.
// It is false for "".
func (m *Message) Passed(gateway string) bool {
	if m.Properties == nil || gateway == "" {
		return false
	}
	n := 0
	for _, u := range m.Properties.User {
		if u.Name != PropertyVia {
			continue
		}
		if n++; u.Value == gateway || n > MaxVia {
			return true
		}
	}
	return false
}

// Travelled reports whether it is known that m has passed a gateway.
func (m *Message) Travelled() bool {
	return m.Properties != nil && slices.ContainsFunc(m.Properties.User, func(u UserProperty) bool { return u.Name == PropertyVia })
}

// Via is m when it has passed that gateway; m itself if that is known.
func (m *Message) Via(gateway string) *Message {
	if m.Passed(gateway) {
		return m
	}
	out, p := *m, Properties{}
	if m.Properties != nil {
		p = *m.Properties
	}
	p.User = append(slices.Clip(p.User), UserProperty{Name: PropertyVia, Value: gateway})
	out.Properties = &p
	return &out
}
