package packet

// Unsubscribe is one UNSUBSCRIBE (MQTT 5, 3.10).
type Unsubscribe struct {
	PacketID   uint16
	Filters    []string // at least one
	Properties *Properties
}

// Decode reads the body of an UNSUBSCRIBE. Filters are valid UTF-8; their
// grammar is for the caller to check.
func (p *Unsubscribe) Decode(body []byte, v Version) error {
	*p = Unsubscribe{}
	r := reader{b: body, of: "UNSUBSCRIBE"}
	p.PacketID = r.packetID()
	if v == V5 {
		p.Properties = r.properties(UNSUBSCRIBE)
	}
	if r.err == nil && len(r.b) == 0 {
		r.fail(violation("UNSUBSCRIBE without a topic filter [MQTT-3.10.3-2]"))
	}
	if n := r.count(0); n > 0 {
		p.Filters = make([]string, 0, n)
	}
	for len(r.b) > 0 {
		p.Filters = append(p.Filters, r.string("topic filter"))
	}
	return r.done()
}

// Append writes p for version v.
func (p *Unsubscribe) Append(dst []byte, v Version) ([]byte, error) {
	w := begin(dst, UNSUBSCRIBE, 0x02)
	w.packetID(p.PacketID)
	if v == V5 {
		w.properties(p.Properties, UNSUBSCRIBE)
	}
	if len(p.Filters) == 0 {
		w.fail(violation("UNSUBSCRIBE without a topic filter [MQTT-3.10.3-2]"))
	}
	for _, f := range p.Filters {
		w.string(f, "topic filter")
	}
	return w.end()
}

// Unsuback is one UNSUBACK (MQTT 5, 3.11).
type Unsuback struct {
	PacketID uint16
	// Codes, of MQTT 5 only, are one for each filter in their order [MQTT-3.11.3-1].
	Codes      []byte
	Properties *Properties
}

// Decode reads the body of an UNSUBACK.
func (p *Unsuback) Decode(body []byte, v Version) error {
	*p = Unsuback{}
	r := reader{b: body, of: "UNSUBACK"}
	p.PacketID = r.packetID()
	if v != V5 {
		return r.done()
	}
	p.Properties = r.properties(UNSUBACK)
	if r.err == nil && len(r.b) == 0 {
		r.fail(violation("UNSUBACK without a reason code [MQTT-3.11.3-1]"))
	}
	for _, c := range r.b {
		if !ReasonCode(c).allowedIn(in(UNSUBACK)) {
			r.fail(violation("UNSUBACK cannot have this reason code [MQTT-3.11.3-2]"))
			break
		}
	}
	p.Codes = append(p.Codes, r.b...)
	r.b = nil
	return r.done()
}

// Append writes p for version v.
func (p *Unsuback) Append(dst []byte, v Version) ([]byte, error) {
	w := begin(dst, UNSUBACK, 0)
	w.packetID(p.PacketID)
	if v == V5 {
		w.properties(p.Properties, UNSUBACK)
		if len(p.Codes) == 0 {
			w.fail(violation("UNSUBACK without a reason code [MQTT-3.11.3-1]"))
		}
		w.raw(p.Codes)
	}
	return w.end()
}
