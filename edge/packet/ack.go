package packet

import "encoding/binary"

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP (MQTT 5, 3.4 to 3.7). Which one is
// in the fixed header.
type Ack struct {
	PacketID uint16
	// Code and Properties are of MQTT 5 only.
	Code       ReasonCode
	Properties *Properties
}

// Decode reads the body. Code may be any that one of the four packets may carry.
func (a *Ack) Decode(body []byte, v Version) error {
	*a = Ack{}
	if len(body) == 2 { // nearly always: all of 3.x, and success in MQTT 5
		a.PacketID = binary.BigEndian.Uint16(body)
		if a.PacketID != 0 {
			return nil
		}
	}
	r := reader{b: body, of: "acknowledgement"}
	a.PacketID = r.packetID()
	if v == V5 && len(r.b) > 0 {
		a.Code = ReasonCode(r.byte("reason code"))
		if !a.Code.allowedIn(in(PUBACK, PUBREC, PUBREL, PUBCOMP)) {
			r.fail(violation("an acknowledgement cannot have this reason code [MQTT-3.4.2-1] [MQTT-3.6.2-1]"))
		}
		if len(r.b) > 0 { // the property length may be left out (MQTT 5, 3.4.2.2.1)
			a.Properties = r.properties(PUBACK)
		}
	}
	return r.done()
}

// Append writes a as a packet of type t: four bytes if Code is Success and there
// are no properties, and always below MQTT 5. Properties that cannot be encoded
// are left out: they are there to explain, and the acknowledgement is not.
func (a *Ack) Append(dst []byte, t Type, v Version) []byte {
	first := byte(t) << 4
	if t == PUBREL {
		first |= 0x02 // [MQTT-3.6.1-1]
	}
	if v != V5 || a.Code == Success && a.Properties.size() == 0 {
		return append(dst, first, 2, byte(a.PacketID>>8), byte(a.PacketID))
	}
	p := a.Properties
	if p.check(t) != nil || p.size() > MaxRemaining-8 {
		p = nil
	}
	n := p.size()
	if n == 0 {
		return append(dst, first, 3, byte(a.PacketID>>8), byte(a.PacketID), byte(a.Code))
	}
	dst = appendVarint(append(dst, first), uint32(3+varintSize(n)+n))
	dst = append(dst, byte(a.PacketID>>8), byte(a.PacketID), byte(a.Code))
	return p.appendTo(dst)
}
