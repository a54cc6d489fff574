package packet

import "holdfast"

// Properties are the properties of one packet or will (MQTT 5, 2.2.2). The zero
// value has none, and each field's zero means "absent": where MQTT 5 gives an
// absent property a default other than zero, the field is named for the other
// case. A present property with the default's value is read as absent.
type Properties struct {
	// Message are those that travel with a message, and for every packet its
	// user properties. CorrelationData is absent if nil.
	Message holdfast.Properties

	// SubscriptionIdentifiers has at most one in SUBSCRIBE, and any number in
	// the PUBLISH of a server.
	SubscriptionIdentifiers []uint32
	// TopicAlias of PUBLISH; never 0 if present.
	TopicAlias uint16

	// SessionExpiry is the Session Expiry Interval in seconds. Absent and 0
	// differ in CONNACK and DISCONNECT.
	SessionExpiry    uint32
	HasSessionExpiry bool
	// ReceiveMaximum and MaximumPacketSize are never 0 if present; absent is
	// 65535 and no limit.
	ReceiveMaximum    uint16
	MaximumPacketSize uint32
	TopicAliasMaximum uint16
	// WillDelay is the Will Delay Interval in seconds.
	WillDelay uint32

	AuthenticationMethod string
	AuthenticationData   []byte // absent if nil

	// NoProblemInformation is Request Problem Information 0.
	NoProblemInformation       bool
	RequestResponseInformation bool

	// Of CONNACK.
	AssignedClientID    string
	ServerKeepAlive     uint16 // seconds
	HasServerKeepAlive  bool
	MaximumQoS          byte // 0 or 1
	HasMaximumQoS       bool
	ResponseInformation string
	// The server can do these unless it says otherwise.
	RetainUnavailable                 bool
	WildcardUnavailable               bool
	SubscriptionIdentifierUnavailable bool
	SharedUnavailable                 bool

	ServerReference string
	ReasonString    string
}

// ForMessage is a copy of the properties that travel with a message, or nil if
// none is set. It shares strings and bytes, which Decode has made for it alone.
// p may be nil.
func (p *Properties) ForMessage() *holdfast.Properties {
	if p == nil {
		return nil
	}
	m := p.Message
	if !m.PayloadUTF8 && !m.PayloadBytes && !m.HasExpiry && m.ContentType == "" && m.ResponseTopic == "" &&
		m.CorrelationData == nil && len(m.User) == 0 {
		return nil
	}
	if cap(m.User) > len(m.User) {
		m.User = append(make([]holdfast.UserProperty, 0, len(m.User)), m.User...) // Size counts no room to spare
	}
	return &m
}

// FromMessage sets the properties that travel with a message; nil is none.
func (p *Properties) FromMessage(m *holdfast.Properties) {
	if m == nil {
		p.Message = holdfast.Properties{}
		return
	}
	p.Message = *m
}

// The identifiers of properties (MQTT 5, table 2-4).
const (
	idPayloadFormat              = 1
	idMessageExpiry              = 2
	idContentType                = 3
	idResponseTopic              = 8
	idCorrelationData            = 9
	idSubscriptionIdentifier     = 11
	idSessionExpiry              = 17
	idAssignedClientID           = 18
	idServerKeepAlive            = 19
	idAuthenticationMethod       = 21
	idAuthenticationData         = 22
	idRequestProblemInformation  = 23
	idWillDelay                  = 24
	idRequestResponseInformation = 25
	idResponseInformation        = 26
	idServerReference            = 28
	idReasonString               = 31
	idReceiveMaximum             = 33
	idTopicAliasMaximum          = 34
	idTopicAlias                 = 35
	idMaximumQoS                 = 36
	idRetainAvailable            = 37
	idUserProperty               = 38
	idMaximumPacketSize          = 39
	idWildcardAvailable          = 40
	idSubscriptionIDAvailable    = 41
	idSharedAvailable            = 42
	idCount                      = 43
)

// inAcks are the packets that may explain themselves.
var inAcks = in(CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)

// inWill is the will of a CONNECT.
const inWill packetSet = 1

// properties has the name of each property and where it may stand (MQTT 5,
// table 2-4).
var properties = [idCount]struct {
	name string
	in   packetSet
}{
	idPayloadFormat:              {"Payload Format Indicator", in(PUBLISH) | inWill},
	idMessageExpiry:              {"Message Expiry Interval", in(PUBLISH) | inWill},
	idContentType:                {"Content Type", in(PUBLISH) | inWill},
	idResponseTopic:              {"Response Topic", in(PUBLISH) | inWill},
	idCorrelationData:            {"Correlation Data", in(PUBLISH) | inWill},
	idSubscriptionIdentifier:     {"Subscription Identifier", in(PUBLISH, SUBSCRIBE)},
	idSessionExpiry:              {"Session Expiry Interval", in(CONNECT, CONNACK, DISCONNECT)},
	idAssignedClientID:           {"Assigned Client Identifier", in(CONNACK)},
	idServerKeepAlive:            {"Server Keep Alive", in(CONNACK)},
	idAuthenticationMethod:       {"Authentication Method", in(CONNECT, CONNACK, AUTH)},
	idAuthenticationData:         {"Authentication Data", in(CONNECT, CONNACK, AUTH)},
	idRequestProblemInformation:  {"Request Problem Information", in(CONNECT)},
	idWillDelay:                  {"Will Delay Interval", inWill},
	idRequestResponseInformation: {"Request Response Information", in(CONNECT)},
	idResponseInformation:        {"Response Information", in(CONNACK)},
	idServerReference:            {"Server Reference", in(CONNACK, DISCONNECT)},
	idReasonString:               {"Reason String", inAcks},
	idReceiveMaximum:             {"Receive Maximum", in(CONNECT, CONNACK)},
	idTopicAliasMaximum:          {"Topic Alias Maximum", in(CONNECT, CONNACK)},
	idTopicAlias:                 {"Topic Alias", in(PUBLISH)},
	idMaximumQoS:                 {"Maximum QoS", in(CONNACK)},
	idRetainAvailable:            {"Retain Available", in(CONNACK)},
	idUserProperty:               {"User Property", in(CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE) | inAcks | inWill},
	idMaximumPacketSize:          {"Maximum Packet Size", in(CONNECT, CONNACK)},
	idWildcardAvailable:          {"Wildcard Subscription Available", in(CONNACK)},
	idSubscriptionIDAvailable:    {"Subscription Identifier Available", in(CONNACK)},
	idSharedAvailable:            {"Shared Subscription Available", in(CONNACK)},
}
