package packet

import "encoding/binary"

// Publish is one PUBLISH (MQTT 5, 3.3).
type Publish struct {
	Dup    bool
	QoS    byte
	Retain bool
	// Topic is empty only with a Topic Alias. It aliases the decoded bytes.
	Topic    []byte
	PacketID uint16 // 0 with QoS 0
	// Properties of a decoded packet are valid until the next Decode into the
	// same Publish; ForMessage makes what may be kept.
	Properties *Properties
	Payload    []byte // aliases the decoded bytes

	// decoded is where Decode puts the properties: with a reused Publish
	// reading a topic alias costs no allocation.
	decoded Properties
}

// Decode reads the body of a PUBLISH with the flags of its fixed header. Topic
// and Payload alias body. p is reset first.
func (p *Publish) Decode(flags byte, body []byte, v Version) error {
	p.Properties, p.PacketID = nil, 0
	p.Topic, p.Payload = nil, nil
	p.Dup, p.QoS, p.Retain = flags&flagDup != 0, flags>>1&3, flags&flagRetain != 0
	if err := checkPublishFlags(flags); err != nil {
		return err
	}
	if len(body) < 2 {
		return malformed("PUBLISH ends within its topic name (MQTT 5, 2.1.4)")
	}
	end := 2 + int(binary.BigEndian.Uint16(body))
	if len(body) < end {
		return malformed("PUBLISH ends within its topic name (MQTT 5, 2.1.4)")
	}
	topic := body[2:end:end]
	if !plain(topic) {
		if err := checkTopic(topic); err != nil {
			return err
		}
	}
	body = body[end:]
	if p.QoS > 0 {
		if len(body) < 2 {
			return malformed("PUBLISH ends within its packet identifier (MQTT 5, 2.1.4)")
		}
		p.PacketID = binary.BigEndian.Uint16(body)
		if p.PacketID == 0 {
			return violation("PUBLISH with packet identifier 0 [MQTT-2.2.1-3] [MQTT-2.3.1-1]")
		}
		body = body[2:]
	}
	if v == V5 {
		r := reader{b: body, of: "PUBLISH"}
		if r.propertiesInto(&p.decoded, PUBLISH) {
			p.Properties = &p.decoded
		}
		if r.err != nil {
			return r.err
		}
		body = r.b
	}
	if len(topic) == 0 && (p.Properties == nil || p.Properties.TopicAlias == 0) {
		return violation("PUBLISH with neither a topic name nor a topic alias [MQTT-4.7.3-1] (MQTT 5, 3.3.2.1)")
	}
	p.Topic, p.Payload = topic, body
	return nil
}

func checkTopic(topic []byte) error {
	switch {
	case !validUTF8(topic):
		return malformed("PUBLISH has a topic name that is not valid UTF-8 without U+0000 [MQTT-3.3.2-1] [MQTT-1.5.4-1] [MQTT-1.5.4-2]")
	case hasWildcard(topic):
		return &Error{TopicNameInvalid, "PUBLISH has a wildcard in its topic name [MQTT-3.3.2-2]"}
	}
	return nil
}

// Append writes p for version v; properties are left out below MQTT 5. The
// topic's grammar is not checked again.
func (p *Publish) Append(dst []byte, v Version) ([]byte, error) {
	if err := p.check(v); err != nil {
		return dst, err
	}
	remaining := p.remaining(v)
	if remaining > MaxRemaining {
		return dst, tooLarge(PUBLISH)
	}
	first := byte(PUBLISH)<<4 | p.QoS<<1
	if p.Dup {
		first |= flagDup
	}
	if p.Retain {
		first |= flagRetain
	}
	dst = appendVarint(append(dst, first), uint32(remaining))
	dst = appendData(dst, p.Topic)
	if p.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	}
	if v == V5 {
		dst = p.Properties.appendTo(dst)
	}
	return append(dst, p.Payload...), nil
}

func (p *Publish) check(v Version) error {
	switch {
	case p.QoS > 2:
		return malformed("PUBLISH with QoS 3 [MQTT-3.3.1-4]")
	case p.QoS == 0 && p.Dup:
		return malformed("PUBLISH with DUP and QoS 0 [MQTT-3.3.1-2]")
	case p.QoS > 0 && p.PacketID == 0:
		return violation("PUBLISH with packet identifier 0 [MQTT-2.2.1-3] [MQTT-2.3.1-1]")
	case len(p.Topic) > MaxString:
		return tooLong(PUBLISH, "topic name")
	case len(p.Topic) == 0 && (v != V5 || p.Properties == nil || p.Properties.TopicAlias == 0):
		return violation("PUBLISH with neither a topic name nor a topic alias [MQTT-4.7.3-1] (MQTT 5, 3.3.2.1)")
	}
	if v != V5 || p.Properties == nil {
		return nil
	}
	if e := p.Properties.check(PUBLISH); e != nil {
		return e
	}
	return nil
}

// Size is the length in bytes of the whole packet as Append writes it: what
// counts against the Maximum Packet Size of the receiver [MQTT-3.1.2-24].
func (p *Publish) Size(v Version) int {
	n := p.remaining(v)
	return 1 + varintSize(n) + n
}

func (p *Publish) remaining(v Version) int {
	n := 2 + len(p.Topic) + len(p.Payload)
	if p.QoS > 0 {
		n += 2
	}
	if v == V5 {
		s := p.Properties.size()
		n += varintSize(s) + s
	}
	return n
}
