package packet

import (
	"strings"

	"holdfast"
)

// Subscribe is one SUBSCRIBE (MQTT 5, 3.8).
type Subscribe struct {
	PacketID uint16
	// Filters have at least one element. All have the same Identifier: there
	// is one in a packet.
	Filters    []holdfast.Subscription
	Properties *Properties
}

// Decode reads the body of a SUBSCRIBE. Filters are valid UTF-8; their grammar
// is for the caller to check. The Subscription Identifier is put in each of
// them and stays in Properties.
func (p *Subscribe) Decode(body []byte, v Version) error {
	*p = Subscribe{}
	r := reader{b: body, of: "SUBSCRIBE"}
	p.PacketID = r.packetID()
	var id uint32
	if v == V5 {
		p.Properties = r.properties(SUBSCRIBE)
		if p.Properties != nil && len(p.Properties.SubscriptionIdentifiers) > 0 {
			id = p.Properties.SubscriptionIdentifiers[0]
		}
	}
	if r.err == nil && len(r.b) == 0 {
		r.fail(violation("SUBSCRIBE without a topic filter [MQTT-3.8.3-2] [MQTT-3.8.3-3]"))
	}
	if n := r.count(1); n > 0 {
		p.Filters = make([]holdfast.Subscription, 0, n)
	}
	for len(r.b) > 0 {
		s := holdfast.Subscription{Filter: r.string("topic filter"), Identifier: id}
		readOptions(&r, &s, v)
		p.Filters = append(p.Filters, s)
	}
	return r.done()
}

// readOptions reads the subscription options (MQTT 5, 3.8.3.1); in 3.x they are
// the requested QoS alone.
func readOptions(r *reader, s *holdfast.Subscription, v Version) {
	o := r.byte("subscription options")
	s.QoS = o & 3
	if s.QoS == 3 {
		r.fail(malformed("SUBSCRIBE asks for QoS 3 [MQTT-3.8.3-4] (MQTT 5, 3.8.3.1)"))
		return
	}
	if v != V5 {
		if o > 2 {
			r.fail(malformed("SUBSCRIBE with reserved bits beside the requested QoS [MQTT-3.8.3-4]"))
		}
		return
	}
	s.NoLocal = o&0x04 != 0
	s.RetainAsPublished = o&0x08 != 0
	s.RetainHandling = o >> 4 & 3
	switch {
	case o&0xC0 != 0:
		r.fail(malformed("SUBSCRIBE with reserved bits in the subscription options [MQTT-3.8.3-5]"))
	case s.RetainHandling == 3:
		r.fail(violation("SUBSCRIBE with retain handling 3 (MQTT 5, 3.8.3.1)"))
	case s.NoLocal && strings.HasPrefix(s.Filter, "$share/"):
		r.fail(violation("SUBSCRIBE with No Local on a shared subscription [MQTT-3.8.3-4]"))
	}
}

// Append writes p for version v. In MQTT 5 the Subscription Identifier is that
// of the filters, or of Properties; if both are set they must be the same.
func (p *Subscribe) Append(dst []byte, v Version) ([]byte, error) {
	w := begin(dst, SUBSCRIBE, 0x02)
	w.packetID(p.PacketID)
	if len(p.Filters) == 0 {
		w.fail(violation("SUBSCRIBE without a topic filter [MQTT-3.8.3-2] [MQTT-3.8.3-3]"))
		return w.end()
	}
	if v == V5 {
		w.properties(p.withIdentifier(&w), SUBSCRIBE)
	}
	for _, s := range p.Filters {
		w.string(s.Filter, "topic filter")
		if s.QoS > 2 || s.RetainHandling > 2 {
			w.fail(malformed("SUBSCRIBE with QoS or retain handling 3 (MQTT 5, 3.8.3.1)"))
		}
		o := s.QoS
		if v == V5 {
			o |= s.RetainHandling << 4
			if s.NoLocal {
				o |= 0x04
			}
			if s.RetainAsPublished {
				o |= 0x08
			}
		}
		w.byte(o)
	}
	return w.end()
}

func (p *Subscribe) withIdentifier(w *writer) *Properties {
	var in []uint32
	if p.Properties != nil {
		in = p.Properties.SubscriptionIdentifiers
	}
	id := p.Filters[0].Identifier
	same := len(in) < 2 && (id == 0 || len(in) == 0 || in[0] == id)
	for _, s := range p.Filters {
		same = same && s.Identifier == id
	}
	if !same {
		w.fail(violation("SUBSCRIBE with more than one subscription identifier (MQTT 5, 3.8.2.1.2)"))
	}
	if id == 0 || len(in) > 0 {
		return p.Properties
	}
	var q Properties
	if p.Properties != nil {
		q = *p.Properties
	}
	q.SubscriptionIdentifiers = []uint32{id}
	return &q
}
