package packet

// subackFailure is the one refusal that SUBACK of MQTT 3.1.1 knows.
const subackFailure = 0x80

// Suback is one SUBACK (MQTT 5, 3.9).
type Suback struct {
	PacketID uint16
	// Codes are one for each filter, in their order [MQTT-3.9.3-1]: the granted
	// QoS, or a ReasonCode from 0x80 on.
	Codes      []byte
	Properties *Properties
}

// Decode reads the body of a SUBACK.
func (p *Suback) Decode(body []byte, v Version) error {
	*p = Suback{}
	r := reader{b: body, of: "SUBACK"}
	p.PacketID = r.packetID()
	if v == V5 {
		p.Properties = r.properties(SUBACK)
	}
	if r.err == nil && len(r.b) == 0 {
		r.fail(violation("SUBACK without a code [MQTT-3.8.4-6]"))
	}
	for _, c := range r.b {
		ok := c <= 2 || c == subackFailure
		if v == V5 {
			ok = ReasonCode(c).allowedIn(in(SUBACK))
		}
		if !ok {
			r.fail(violation("SUBACK cannot have this code [MQTT-3.9.3-2]"))
			break
		}
	}
	p.Codes = append(p.Codes, r.b...)
	r.b = nil
	return r.done()
}

// Append writes p for version v. Below MQTT 5 every refusal is written as 0x80.
func (p *Suback) Append(dst []byte, v Version) ([]byte, error) {
	w := begin(dst, SUBACK, 0)
	w.packetID(p.PacketID)
	if v == V5 {
		w.properties(p.Properties, SUBACK)
	}
	if len(p.Codes) == 0 {
		w.fail(violation("SUBACK without a code [MQTT-3.8.4-6]"))
	}
	for _, c := range p.Codes {
		if v != V5 && c > 2 {
			c = subackFailure
		}
		w.byte(c)
	}
	return w.end()
}
