package packet

import "strconv"

// ReasonCode says how an operation went (MQTT 5, 2.4). Below 0x80 it is a success.
type ReasonCode byte

// The reason codes of MQTT 5. Zero has three names.
const (
	Success             ReasonCode = 0x00
	NormalDisconnection ReasonCode = 0x00
	GrantedQoS0         ReasonCode = 0x00

	GrantedQoS1            ReasonCode = 0x01
	GrantedQoS2            ReasonCode = 0x02
	DisconnectWithWill     ReasonCode = 0x04
	NoMatchingSubscribers  ReasonCode = 0x10
	NoSubscriptionExisted  ReasonCode = 0x11
	ContinueAuthentication ReasonCode = 0x18
	ReAuthenticate         ReasonCode = 0x19

	UnspecifiedError                    ReasonCode = 0x80
	MalformedPacket                     ReasonCode = 0x81
	ProtocolError                       ReasonCode = 0x82
	ImplementationSpecificError         ReasonCode = 0x83
	UnsupportedProtocolVersion          ReasonCode = 0x84
	ClientIdentifierNotValid            ReasonCode = 0x85
	BadUserNameOrPassword               ReasonCode = 0x86
	NotAuthorized                       ReasonCode = 0x87
	ServerUnavailable                   ReasonCode = 0x88
	ServerBusy                          ReasonCode = 0x89
	Banned                              ReasonCode = 0x8A
	ServerShuttingDown                  ReasonCode = 0x8B
	BadAuthenticationMethod             ReasonCode = 0x8C
	KeepAliveTimeout                    ReasonCode = 0x8D
	SessionTakenOver                    ReasonCode = 0x8E
	TopicFilterInvalid                  ReasonCode = 0x8F
	TopicNameInvalid                    ReasonCode = 0x90
	PacketIdentifierInUse               ReasonCode = 0x91
	PacketIdentifierNotFound            ReasonCode = 0x92
	ReceiveMaximumExceeded              ReasonCode = 0x93
	TopicAliasInvalid                   ReasonCode = 0x94
	PacketTooLarge                      ReasonCode = 0x95
	MessageRateTooHigh                  ReasonCode = 0x96
	QuotaExceeded                       ReasonCode = 0x97
	AdministrativeAction                ReasonCode = 0x98
	PayloadFormatInvalid                ReasonCode = 0x99
	RetainNotSupported                  ReasonCode = 0x9A
	QoSNotSupported                     ReasonCode = 0x9B
	UseAnotherServer                    ReasonCode = 0x9C
	ServerMoved                         ReasonCode = 0x9D
	SharedSubscriptionsNotSupported     ReasonCode = 0x9E
	ConnectionRateExceeded              ReasonCode = 0x9F
	MaximumConnectTime                  ReasonCode = 0xA0
	SubscriptionIdentifiersNotSupported ReasonCode = 0xA1
	WildcardSubscriptionsNotSupported   ReasonCode = 0xA2
)

// reasons has for each code its words and the packets that may carry it
// (MQTT 5, table 2-6). SUBACK has Granted QoS 0 where others have Success.
var reasons = map[ReasonCode]struct {
	text string
	in   packetSet
}{
	Success:                {"success", in(CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)},
	GrantedQoS1:            {"granted QoS 1", in(SUBACK)},
	GrantedQoS2:            {"granted QoS 2", in(SUBACK)},
	DisconnectWithWill:     {"disconnect with will message", in(DISCONNECT)},
	NoMatchingSubscribers:  {"no matching subscribers", in(PUBACK, PUBREC)},
	NoSubscriptionExisted:  {"no subscription existed", in(UNSUBACK)},
	ContinueAuthentication: {"continue authentication", in(AUTH)},
	ReAuthenticate:         {"re-authenticate", in(AUTH)},

	UnspecifiedError:                    {"unspecified error", in(CONNACK, PUBACK, PUBREC, SUBACK, UNSUBACK, DISCONNECT)},
	MalformedPacket:                     {"malformed packet", in(CONNACK, DISCONNECT)},
	ProtocolError:                       {"protocol error", in(CONNACK, DISCONNECT)},
	ImplementationSpecificError:         {"implementation specific error", in(CONNACK, PUBACK, PUBREC, SUBACK, UNSUBACK, DISCONNECT)},
	UnsupportedProtocolVersion:          {"unsupported protocol version", in(CONNACK)},
	ClientIdentifierNotValid:            {"client identifier not valid", in(CONNACK)},
	BadUserNameOrPassword:               {"bad user name or password", in(CONNACK)},
	NotAuthorized:                       {"not authorized", in(CONNACK, PUBACK, PUBREC, SUBACK, UNSUBACK, DISCONNECT)},
	ServerUnavailable:                   {"server unavailable", in(CONNACK)},
	ServerBusy:                          {"server busy", in(CONNACK, DISCONNECT)},
	Banned:                              {"banned", in(CONNACK)},
	ServerShuttingDown:                  {"server shutting down", in(DISCONNECT)},
	BadAuthenticationMethod:             {"bad authentication method", in(CONNACK, DISCONNECT)},
	KeepAliveTimeout:                    {"keep alive timeout", in(DISCONNECT)},
	SessionTakenOver:                    {"session taken over", in(DISCONNECT)},
	TopicFilterInvalid:                  {"topic filter invalid", in(SUBACK, UNSUBACK, DISCONNECT)},
	TopicNameInvalid:                    {"topic name invalid", in(CONNACK, PUBACK, PUBREC, DISCONNECT)},
	PacketIdentifierInUse:               {"packet identifier in use", in(PUBACK, PUBREC, SUBACK, UNSUBACK)},
	PacketIdentifierNotFound:            {"packet identifier not found", in(PUBREL, PUBCOMP)},
	ReceiveMaximumExceeded:              {"receive maximum exceeded", in(DISCONNECT)},
	TopicAliasInvalid:                   {"topic alias invalid", in(DISCONNECT)},
	PacketTooLarge:                      {"packet too large", in(CONNACK, DISCONNECT)},
	MessageRateTooHigh:                  {"message rate too high", in(DISCONNECT)},
	QuotaExceeded:                       {"quota exceeded", in(CONNACK, PUBACK, PUBREC, SUBACK, DISCONNECT)},
	AdministrativeAction:                {"administrative action", in(DISCONNECT)},
	PayloadFormatInvalid:                {"payload format invalid", in(CONNACK, PUBACK, PUBREC, DISCONNECT)},
	RetainNotSupported:                  {"retain not supported", in(CONNACK, DISCONNECT)},
	QoSNotSupported:                     {"QoS not supported", in(CONNACK, DISCONNECT)},
	UseAnotherServer:                    {"use another server", in(CONNACK, DISCONNECT)},
	ServerMoved:                         {"server moved", in(CONNACK, DISCONNECT)},
	SharedSubscriptionsNotSupported:     {"shared subscriptions not supported", in(SUBACK, DISCONNECT)},
	ConnectionRateExceeded:              {"connection rate exceeded", in(CONNACK, DISCONNECT)},
	MaximumConnectTime:                  {"maximum connect time", in(DISCONNECT)},
	SubscriptionIdentifiersNotSupported: {"subscription identifiers not supported", in(SUBACK, DISCONNECT)},
	WildcardSubscriptionsNotSupported:   {"wildcard subscriptions not supported", in(SUBACK, DISCONNECT)},
}

func (c ReasonCode) String() string {
	if r, ok := reasons[c]; ok {
		return r.text
	}
	return "reason code 0x" + strconv.FormatUint(uint64(c), 16)
}

// Failed reports whether c says that the operation was refused.
func (c ReasonCode) Failed() bool { return c >= 0x80 }

// allowedIn reports whether one of the packets may carry c.
func (c ReasonCode) allowedIn(s packetSet) bool {
	return c == Success || reasons[c].in&s != 0
}

// packetSet is a set of packet types, one bit each; bit 0 is the will.
type packetSet uint16

func in(types ...Type) packetSet {
	var s packetSet
	for _, t := range types {
		s |= 1 << t
	}
	return s
}
