// Package packet is the wire codec for MQTT 3.1, 3.1.1 and 5.0. It is the first
// thing that a message meets in the gateway and the last that it leaves: bytes
// of a connection become packets here, and packets become bytes.
//
// A reader calls ReadHeader on what has arrived, waits until Header.Remaining
// more bytes are there, and hands those to the Decode of the packet's type.
// Decode never reads beyond them. Publish aliases the bytes that it was decoded
// from; all other packets are copies and may be kept.
//
// Input of any kind gives a packet or an *Error. Memory used for a packet is
// proportional to its size, so a bound on Header.Remaining bounds all.
//
// Append writes a whole packet behind dst, with its fixed header. If it fails,
// dst comes back as it was.
package packet

// Version is the protocol level of a connection.
type Version byte

// The versions that are spoken here, by the level in the CONNECT packet.
const (
	V31  Version = 3 // MQTT 3.1, "MQIsdp"
	V311 Version = 4 // MQTT 3.1.1
	V5   Version = 5 // MQTT 5.0
)

func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5.0"
	}
	return "unknown"
}

// Type is the type of a control packet (MQTT 5, 2.1.2).
type Type byte

// The control packets. AUTH is for MQTT 5 only.
const (
	CONNECT Type = iota + 1
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
)

// typeNames has "will" at 0: the properties of a will are a set of their own
// within CONNECT, and errors name it like a packet.
var typeNames = [16]string{
	"will", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

func (t Type) String() string {
	if t == 0 || int(t) >= len(typeNames) {
		return "unknown"
	}
	return typeNames[t]
}

const (
	// MaxRemaining is the largest remaining length (MQTT 5, 1.5.5).
	MaxRemaining = 268_435_455
	// MaxString is the largest length of a string or of binary data in bytes
	// (MQTT 5, 1.5.4 and 1.5.6).
	MaxString = 65_535
)

// Error is a packet that breaks the protocol, or one that cannot be encoded.
// The connection that it came from cannot go on.
type Error struct {
	// Code is what an MQTT 5 peer is told in DISCONNECT or CONNACK.
	Code ReasonCode
	// Text says to a person what is wrong, with the clause. It holds nothing
	// of the packet's content.
	Text string
}

func (e *Error) Error() string { return e.Code.String() + ": " + e.Text }

func malformed(text string) *Error { return &Error{MalformedPacket, text} }

func violation(text string) *Error { return &Error{ProtocolError, text} }
