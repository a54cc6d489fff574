package packet

// Disconnect is one DISCONNECT (MQTT 5, 3.14).
type Disconnect struct {
	// Code and Properties are of MQTT 5 only.
	Code       ReasonCode
	Properties *Properties
}

// Decode reads the body of a DISCONNECT, which is empty below MQTT 5.
func (p *Disconnect) Decode(body []byte, v Version) error {
	*p = Disconnect{}
	r := reader{b: body, of: "DISCONNECT"}
	if v == V5 && len(body) > 0 {
		p.Code = ReasonCode(r.byte("reason code"))
		if !p.Code.allowedIn(in(DISCONNECT)) {
			r.fail(violation("DISCONNECT cannot have this reason code [MQTT-3.14.2-1]"))
		}
		if len(r.b) > 0 { // the property length may be left out (MQTT 5, 3.14.2.2.1)
			p.Properties = r.properties(DISCONNECT)
		}
	}
	return r.done()
}

// Append writes p for version v, in its shortest form.
func (p *Disconnect) Append(dst []byte, v Version) ([]byte, error) {
	w := begin(dst, DISCONNECT, 0)
	if v == V5 {
		properties := p.Properties.size() > 0
		if p.Code != Success || properties {
			w.byte(byte(p.Code))
		}
		if properties {
			w.properties(p.Properties, DISCONNECT)
		}
	}
	return w.end()
}
