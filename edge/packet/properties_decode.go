package packet

import "holdfast"

// properties reads a property length and the properties behind it for the
// packet where, or for a will if where is 0; nil if there is none.
func (r *reader) properties(where Type) *Properties {
	var p Properties
	if !r.propertiesInto(&p, where) {
		return nil
	}
	out := new(Properties) // p itself would be on the heap without any property
	*out = p
	return out
}

// propertiesInto is properties without an allocation for p, which is reset if
// there are any; it reports whether there are.
func (r *reader) propertiesInto(p *Properties, where Type) bool {
	n := int(r.varint("property length"))
	if n == 0 {
		return false
	}
	if n > len(r.b) {
		r.cut("properties")
		return false
	}
	*p = Properties{}
	sub := reader{b: r.b[:n], of: r.of}
	if where == 0 {
		sub.of = "will"
	}
	r.b = r.b[n:]
	var seen uint64
	for len(sub.b) > 0 {
		id := sub.varint("property identifier")
		if sub.err != nil {
			break
		}
		if id >= idCount || properties[id].name == "" {
			sub.fail(malformed(sub.of + " has a property that MQTT 5 does not know (2.2.2.2)"))
			break
		}
		if properties[id].in&(1<<where) == 0 {
			sub.fail(malformed(properties[id].name + " does not belong in " + sub.of + " (MQTT 5, 2.2.2.2)"))
			break
		}
		if seen&(1<<id) != 0 && id != idUserProperty && !(id == idSubscriptionIdentifier && where == PUBLISH) {
			sub.fail(violation(properties[id].name + " is in " + sub.of + " more than once (MQTT 5, 2.2.2)"))
			break
		}
		seen |= 1 << id
		p.read(&sub, int(id))
	}
	if sub.err != nil {
		r.fail(sub.err)
		return false
	}
	return p.size() > 0
}

// read reads the value of one property.
func (p *Properties) read(r *reader, id int) {
	name := properties[id].name
	switch id {
	case idPayloadFormat:
		p.Message.PayloadUTF8 = r.flag(name)
		p.Message.PayloadBytes = !p.Message.PayloadUTF8 // goes on unaltered [MQTT-3.3.2-4]
	case idMessageExpiry:
		p.Message.Expiry, p.Message.HasExpiry = r.uint32(name), true
	case idContentType:
		p.Message.ContentType = r.string(name)
	case idResponseTopic:
		p.Message.ResponseTopic = r.name(name) // [MQTT-3.3.2-14]
	case idCorrelationData:
		p.Message.CorrelationData = r.data(name)
	case idUserProperty:
		u := holdfast.UserProperty{Name: r.string(name), Value: r.string(name)}
		p.Message.User = append(p.Message.User, u)
	case idSubscriptionIdentifier:
		n := r.varint(name)
		r.notZero(n, name)
		p.SubscriptionIdentifiers = append(p.SubscriptionIdentifiers, n)
	case idTopicAlias:
		p.TopicAlias = r.uint16(name)
		if p.TopicAlias == 0 && r.err == nil {
			r.fail(&Error{TopicAliasInvalid, "Topic Alias is 0 [MQTT-3.3.2-8]"})
		}
	case idSessionExpiry:
		p.SessionExpiry, p.HasSessionExpiry = r.uint32(name), true
	case idReceiveMaximum:
		p.ReceiveMaximum = r.uint16(name)
		r.notZero(uint32(p.ReceiveMaximum), name)
	case idMaximumPacketSize:
		p.MaximumPacketSize = r.uint32(name)
		r.notZero(p.MaximumPacketSize, name)
	case idTopicAliasMaximum:
		p.TopicAliasMaximum = r.uint16(name)
	case idWillDelay:
		p.WillDelay = r.uint32(name)
	case idAuthenticationMethod:
		p.AuthenticationMethod = r.string(name)
	case idAuthenticationData:
		p.AuthenticationData = r.data(name)
	case idRequestProblemInformation:
		p.NoProblemInformation = !r.flag(name)
	case idRequestResponseInformation:
		p.RequestResponseInformation = r.flag(name)
	case idAssignedClientID:
		p.AssignedClientID = r.string(name)
	case idServerKeepAlive:
		p.ServerKeepAlive, p.HasServerKeepAlive = r.uint16(name), true
	case idMaximumQoS:
		p.HasMaximumQoS = true
		if r.flag(name) {
			p.MaximumQoS = 1
		}
	case idResponseInformation:
		p.ResponseInformation = r.string(name)
	case idRetainAvailable:
		p.RetainUnavailable = !r.flag(name)
	case idWildcardAvailable:
		p.WildcardUnavailable = !r.flag(name)
	case idSubscriptionIDAvailable:
		p.SubscriptionIdentifierUnavailable = !r.flag(name)
	case idSharedAvailable:
		p.SharedUnavailable = !r.flag(name)
	case idServerReference:
		p.ServerReference = r.string(name)
	case idReasonString:
		p.ReasonString = r.string(name)
	}
}

// flag reads a byte that must be 0 or 1.
func (r *reader) flag(name string) bool {
	c := r.byte(name)
	if c > 1 {
		r.fail(violation(name + " is neither 0 nor 1 (MQTT 5, 3.1.2.11 and 3.2.2.3)"))
	}
	return c == 1
}

func (r *reader) notZero(n uint32, name string) {
	if n == 0 && r.err == nil {
		r.fail(violation(name + " is 0 (MQTT 5, 3.1.2.11 and 3.8.2.1.2)"))
	}
}
