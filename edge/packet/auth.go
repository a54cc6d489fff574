package packet

// Auth is one AUTH (MQTT 5, 3.15).
type Auth struct {
	Code ReasonCode
	// Properties have the Authentication Method unless the packet is empty.
	Properties *Properties
}

// Decode reads the body of an AUTH. Below MQTT 5 there is no such packet.
func (p *Auth) Decode(body []byte, v Version) error {
	*p = Auth{}
	r := reader{b: body, of: "AUTH"}
	if v != V5 {
		return malformed("AUTH is a packet of MQTT 5 only (3.15)")
	}
	if len(body) == 0 { // Success without properties (MQTT 5, 3.15.2.1)
		return nil
	}
	p.Code = ReasonCode(r.byte("reason code"))
	if !p.Code.allowedIn(in(AUTH)) {
		r.fail(violation("AUTH cannot have this reason code [MQTT-3.15.2-1]"))
	}
	p.Properties = r.properties(AUTH)
	if r.err == nil && (p.Properties == nil || p.Properties.AuthenticationMethod == "") {
		r.fail(violation("AUTH without an authentication method (MQTT 5, 3.15.2.2.2)"))
	}
	return r.done()
}

// Append writes p, for MQTT 5 only.
func (p *Auth) Append(dst []byte, v Version) ([]byte, error) {
	w := begin(dst, AUTH, 0)
	switch {
	case v != V5:
		w.fail(malformed("AUTH is a packet of MQTT 5 only (3.15)"))
	case p.Code == Success && p.Properties.size() == 0:
	case p.Properties == nil || p.Properties.AuthenticationMethod == "":
		w.fail(violation("AUTH without an authentication method (MQTT 5, 3.15.2.2.2)"))
	default:
		w.byte(byte(p.Code))
		w.properties(p.Properties, AUTH)
	}
	return w.end()
}
