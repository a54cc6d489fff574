package packet

// Connect is one CONNECT (MQTT 5, 3.1).
type Connect struct {
	// Version is set by Decode even if it fails, if name and level could be
	// read, so that a refusal can be put in the client's own words. It is then
	// the level as it came and may be an unknown one.
	Version Version
	// CleanStart is Clean Session in 3.x.
	CleanStart  bool
	KeepAlive   uint16 // seconds; 0 is off
	ClientID    string
	Username    string
	HasUsername bool
	Password    []byte
	HasPassword bool
	Will        *Will
	// Bridge is the bit 0x80 of the level, by which a bridge makes itself
	// known in 3.1 and 3.1.1. It is a custom among brokers, not in a standard.
	Bridge     bool
	Properties *Properties
}

// Will is the message that a server publishes for a client that is lost.
type Will struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Properties *Properties
}

// The connect flags (MQTT 5, 3.1.2.3).
const (
	connectReserved   = 0x01
	connectClean      = 0x02
	connectWill       = 0x04
	connectWillRetain = 0x20
	connectPassword   = 0x40
	connectUsername   = 0x80
)

const bridgeBit = 0x80

// Decode reads the body of a CONNECT. p is reset first. Rules for the length of
// a client identifier are left to the caller.
func (p *Connect) Decode(body []byte) error {
	*p = Connect{}
	r := reader{b: body, of: "CONNECT"}
	name := string(r.bytes("protocol name"))
	level := r.byte("protocol level")
	if r.err != nil {
		return r.err
	}
	if err := p.version(name, level); err != nil {
		return err
	}
	flags := r.byte("flags")
	p.KeepAlive = r.uint16("keep alive")
	if r.err == nil {
		if e := checkConnectFlags(flags, p.Version); e != nil {
			r.fail(e)
		}
	}
	p.CleanStart = flags&connectClean != 0
	if p.Version == V5 {
		p.Properties = r.properties(CONNECT)
		if a := p.Properties; a != nil && a.AuthenticationData != nil && a.AuthenticationMethod == "" {
			r.fail(violation("CONNECT has authentication data without a method (MQTT 5, 3.1.2.11.10)"))
		}
	}
	p.ClientID = r.string("client identifier")
	if flags&connectWill != 0 {
		w := &Will{QoS: flags >> 3 & 3, Retain: flags&connectWillRetain != 0}
		if p.Version == V5 {
			w.Properties = r.properties(0)
		}
		w.Topic = r.name("will topic")
		w.Payload = r.data("will payload")
		p.Will = w
	}
	// In MQTT 3.1 the remaining length is stronger than these two flags (3.1).
	if flags&connectUsername != 0 && !(p.Version == V31 && r.err == nil && len(r.b) == 0) {
		p.Username, p.HasUsername = r.string("user name"), true
	}
	if flags&connectPassword != 0 && !(p.Version == V31 && r.err == nil && len(r.b) == 0) {
		p.Password, p.HasPassword = r.data("password"), true
	}
	return r.done()
}

// version takes the protocol name and level (MQTT 5, 3.1.2.1 and 3.1.2.2).
func (p *Connect) version(name string, level byte) error {
	p.Version = Version(level)
	if v := Version(level &^ bridgeBit); level&bridgeBit != 0 && (v == V31 || v == V311) {
		p.Version, p.Bridge = v, true
	}
	switch {
	case name == "MQTT" && (p.Version == V311 || p.Version == V5):
		return nil
	case name == "MQIsdp" && p.Version == V31:
		return nil
	case name != "MQTT" && name != "MQIsdp":
		return &Error{UnsupportedProtocolVersion, "CONNECT names a protocol other than MQTT [MQTT-3.1.2-1]"}
	}
	return &Error{UnsupportedProtocolVersion, "CONNECT asks for a protocol level other than 3.1, 3.1.1 and 5.0 [MQTT-3.1.2-2]"}
}

func checkConnectFlags(flags byte, v Version) *Error {
	const willQoS = 0x18
	switch {
	case flags&connectReserved != 0 && v != V31:
		return malformed("CONNECT with its reserved flag set [MQTT-3.1.2-3]")
	case flags&willQoS == willQoS:
		return malformed("CONNECT with will QoS 3 [MQTT-3.1.2-12] [MQTT-3.1.2-14]")
	case flags&connectWill == 0 && flags&(willQoS|connectWillRetain) != 0 && v != V31:
		return malformed("CONNECT with will QoS or will retain but without a will [MQTT-3.1.2-11] [MQTT-3.1.2-13]")
	case v != V5 && flags&connectPassword != 0 && flags&connectUsername == 0:
		return malformed("CONNECT with a password but without a user name [MQTT-3.1.2-22]")
	}
	return nil
}

// Append writes p for p.Version; properties are left out below MQTT 5.
func (p *Connect) Append(dst []byte) ([]byte, error) {
	w := begin(dst, CONNECT, 0)
	name, level := "MQTT", byte(p.Version)
	switch p.Version {
	case V31:
		name = "MQIsdp"
	case V311:
	case V5:
		if p.Bridge {
			w.fail(violation("CONNECT of MQTT 5 has no bit for bridges; it has No Local"))
		}
	default:
		w.fail(&Error{UnsupportedProtocolVersion, "CONNECT for a version other than 3.1, 3.1.1 and 5.0 [MQTT-3.1.2-2]"})
	}
	if p.Bridge {
		level |= bridgeBit
	}
	w.string(name, "protocol name")
	w.byte(level)
	w.byte(p.flags(&w))
	w.uint16(p.KeepAlive)
	if p.Version == V5 {
		w.properties(p.Properties, CONNECT)
	}
	w.string(p.ClientID, "client identifier")
	if p.Will != nil {
		if p.Version == V5 {
			w.properties(p.Will.Properties, 0)
		}
		w.string(p.Will.Topic, "will topic")
		w.data(p.Will.Payload, "will payload")
	}
	if p.HasUsername {
		w.string(p.Username, "user name")
	}
	if p.HasPassword {
		w.data(p.Password, "password")
	}
	return w.end()
}

func (p *Connect) flags(w *writer) byte {
	var f byte
	if p.CleanStart {
		f |= connectClean
	}
	if p.Will != nil {
		f |= connectWill
		if p.Will.QoS > 2 {
			w.fail(malformed("CONNECT with will QoS 3 [MQTT-3.1.2-12] [MQTT-3.1.2-14]"))
		}
		f |= p.Will.QoS << 3
		if p.Will.Retain {
			f |= connectWillRetain
		}
		if p.Will.Topic == "" {
			w.fail(&Error{TopicNameInvalid, "CONNECT has an empty will topic [MQTT-4.7.3-1]"})
		}
	}
	if p.HasUsername {
		f |= connectUsername
	}
	if p.HasPassword {
		f |= connectPassword
		if !p.HasUsername && p.Version != V5 {
			w.fail(malformed("CONNECT with a password but without a user name [MQTT-3.1.2-22]"))
		}
	}
	return f
}
