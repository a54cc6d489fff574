package packet

// The return codes of CONNACK in MQTT 3.1 and 3.1.1 (MQTT 3.1.1, 3.2.2.3).
const (
	Accepted             byte = 0
	RefusedVersion       byte = 1
	RefusedIdentifier    byte = 2
	RefusedUnavailable   byte = 3
	RefusedBadLogin      byte = 4
	RefusedNotAuthorized byte = 5
)

// ReturnCode is what a client of MQTT 3.x is told where one of MQTT 5 is told c.
func ReturnCode(c ReasonCode) byte {
	switch c {
	case Success:
		return Accepted
	case UnsupportedProtocolVersion:
		return RefusedVersion
	case ClientIdentifierNotValid:
		return RefusedIdentifier
	case BadUserNameOrPassword:
		return RefusedBadLogin
	case NotAuthorized, Banned, BadAuthenticationMethod:
		return RefusedNotAuthorized
	}
	return RefusedUnavailable
}

// Connack is one CONNACK (MQTT 5, 3.2).
type Connack struct {
	// SessionPresent is never set with a refusal, nor in MQTT 3.1.
	SessionPresent bool
	// Code is a return code for 3.x and a ReasonCode for MQTT 5. One of 3.x may
	// be any byte: a client tells its user what the server said.
	Code       byte
	Properties *Properties
}

// Decode reads the body of a CONNACK.
func (p *Connack) Decode(body []byte, v Version) error {
	*p = Connack{}
	r := reader{b: body, of: "CONNACK"}
	flags := r.byte("flags")
	p.Code = r.byte("code")
	if v == V31 {
		flags = 0 // an unused byte there (MQTT 3.1, 3.2)
	}
	if flags > 1 {
		r.fail(malformed("CONNACK with reserved flags [MQTT-3.2.2-1]"))
	}
	p.SessionPresent = flags&1 != 0
	if p.SessionPresent && p.Code != 0 {
		r.fail(violation("CONNACK that refuses with Session Present [MQTT-3.2.2-4] [MQTT-3.2.2-6]"))
	}
	if v != V5 {
		return r.done()
	}
	if len(body) == 2 && p.Code == RefusedVersion {
		// A server that does not know MQTT 5 answers in the words of 3.1.1.
		p.Code = byte(UnsupportedProtocolVersion)
		return r.done()
	}
	if !ReasonCode(p.Code).allowedIn(in(CONNACK)) {
		r.fail(violation("CONNACK cannot have this reason code [MQTT-3.2.2-8]"))
	}
	p.Properties = r.properties(CONNACK)
	return r.done()
}

// Append writes p for version v; properties are left out below MQTT 5.
func (p *Connack) Append(dst []byte, v Version) ([]byte, error) {
	w := begin(dst, CONNACK, 0)
	var flags byte
	if p.SessionPresent && p.Code == 0 && v != V31 {
		flags = 1
	}
	w.byte(flags)
	w.byte(p.Code)
	if v == V5 {
		w.properties(p.Properties, CONNACK)
	}
	return w.end()
}
