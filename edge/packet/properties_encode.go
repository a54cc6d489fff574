package packet

import "encoding/binary"

// visit hands each property to out, which leaves out the absent ones. size,
// appendTo and check all go through this one list, so that they agree.
func (p *Properties) visit(out *propertyWriter) {
	m := &p.Message
	out.flag(idPayloadFormat, m.PayloadBytes && !m.PayloadUTF8, 0)
	out.flag(idPayloadFormat, m.PayloadUTF8, 1)
	out.uint32(idMessageExpiry, m.Expiry, m.HasExpiry)
	out.string(idContentType, m.ContentType)
	out.string(idResponseTopic, m.ResponseTopic)
	out.data(idCorrelationData, m.CorrelationData)
	for i := range p.SubscriptionIdentifiers {
		out.varint(idSubscriptionIdentifier, p.SubscriptionIdentifiers[i])
	}
	out.uint16(idTopicAlias, p.TopicAlias, p.TopicAlias != 0)
	out.uint32(idSessionExpiry, p.SessionExpiry, p.HasSessionExpiry)
	out.string(idAssignedClientID, p.AssignedClientID)
	out.uint16(idServerKeepAlive, p.ServerKeepAlive, p.HasServerKeepAlive)
	out.string(idAuthenticationMethod, p.AuthenticationMethod)
	out.data(idAuthenticationData, p.AuthenticationData)
	out.flag(idRequestProblemInformation, p.NoProblemInformation, 0)
	out.uint32(idWillDelay, p.WillDelay, p.WillDelay != 0)
	out.flag(idRequestResponseInformation, p.RequestResponseInformation, 1)
	out.string(idResponseInformation, p.ResponseInformation)
	out.string(idServerReference, p.ServerReference)
	out.string(idReasonString, p.ReasonString)
	out.uint16(idReceiveMaximum, p.ReceiveMaximum, p.ReceiveMaximum != 0)
	out.uint16(idTopicAliasMaximum, p.TopicAliasMaximum, p.TopicAliasMaximum != 0)
	out.flag(idMaximumQoS, p.HasMaximumQoS, p.MaximumQoS)
	out.flag(idRetainAvailable, p.RetainUnavailable, 0)
	for i := range m.User {
		out.pair(idUserProperty, m.User[i].Name, m.User[i].Value)
	}
	out.uint32(idMaximumPacketSize, p.MaximumPacketSize, p.MaximumPacketSize != 0)
	out.flag(idWildcardAvailable, p.WildcardUnavailable, 0)
	out.flag(idSubscriptionIDAvailable, p.SubscriptionIdentifierUnavailable, 0)
	out.flag(idSharedAvailable, p.SharedUnavailable, 0)
}

// propertyWriter counts, and writes if b is not nil. It notes what is present
// and the first property that cannot be encoded.
type propertyWriter struct {
	b    []byte
	size int
	set  uint64
	bad  int
}

// put notes a property whose value takes n bytes and tells whether to write it.
func (w *propertyWriter) put(id, n int) bool {
	w.size += 1 + n
	w.set |= 1 << id
	if w.b == nil {
		return false
	}
	w.b = append(w.b, byte(id))
	return true
}

func (w *propertyWriter) flag(id int, present bool, value byte) {
	if present && value > 1 {
		w.bad = id
	}
	if present && w.put(id, 1) {
		w.b = append(w.b, value)
	}
}

func (w *propertyWriter) uint16(id int, n uint16, present bool) {
	if present && w.put(id, 2) {
		w.b = binary.BigEndian.AppendUint16(w.b, n)
	}
}

func (w *propertyWriter) uint32(id int, n uint32, present bool) {
	if present && w.put(id, 4) {
		w.b = binary.BigEndian.AppendUint32(w.b, n)
	}
}

func (w *propertyWriter) varint(id int, n uint32) {
	if n == 0 || n > MaxRemaining {
		w.bad = id
	}
	if w.put(id, varintSize(int(n))) {
		w.b = appendVarint(w.b, n)
	}
}

func (w *propertyWriter) string(id int, s string) {
	if len(s) > MaxString {
		w.bad = id
	}
	if s != "" && w.put(id, 2+len(s)) {
		w.b = appendString(w.b, s)
	}
}

func (w *propertyWriter) data(id int, b []byte) {
	if len(b) > MaxString {
		w.bad = id
	}
	if b != nil && w.put(id, 2+len(b)) {
		w.b = appendData(w.b, b)
	}
}

func (w *propertyWriter) pair(id int, name, value string) {
	if len(name) > MaxString || len(value) > MaxString {
		w.bad = id
	}
	if w.put(id, 4+len(name)+len(value)) {
		w.b = appendString(appendString(w.b, name), value)
	}
}

// size is the length of the properties without their length; p may be nil.
func (p *Properties) size() int {
	if p == nil {
		return 0
	}
	var w propertyWriter
	p.visit(&w)
	return w.size
}

// check tells what of p cannot stand in a packet of type where (0 is a will).
func (p *Properties) check(where Type) *Error {
	if p == nil {
		return nil
	}
	var w propertyWriter
	p.visit(&w)
	if w.bad != 0 {
		return &Error{PacketTooLarge, properties[w.bad].name + " of " + typeNames[where] + " is out of its bounds (MQTT 5, 1.5)"}
	}
	if w.size > MaxRemaining {
		return tooLarge(where)
	}
	if w.set&^allowed[where] == 0 {
		return nil
	}
	for id, known := range properties {
		if w.set&(1<<id) != 0 && known.in&(1<<where) == 0 {
			return violation(known.name + " does not belong in " + typeNames[where] + " (MQTT 5, 2.2.2.2)")
		}
	}
	return nil
}

// appendTo writes the property length and the properties; p may be nil.
func (p *Properties) appendTo(dst []byte) []byte {
	n := p.size()
	dst = appendVarint(dst, uint32(n))
	if n == 0 {
		return dst
	}
	w := propertyWriter{b: dst}
	p.visit(&w)
	return w.b
}

// allowed is the table of properties turned round: for each packet the set of
// identifiers, one bit each.
var allowed = func() (sets [16]uint64) {
	for id, known := range properties {
		for t := range sets {
			if known.in&(1<<t) != 0 {
				sets[t] |= 1 << id
			}
		}
	}
	return sets
}()
