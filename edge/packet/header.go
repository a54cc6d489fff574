package packet

// Header is the fixed header of a packet (MQTT 5, 2.1.1).
type Header struct {
	Type  Type
	Flags byte // the lower four bits of the first byte
	// Remaining is the number of bytes that follow the header.
	Remaining int
}

// The flags of PUBLISH (MQTT 5, 3.3.1).
const (
	flagRetain = 0x01
	flagDup    = 0x08
)

// ReadHeader reads a fixed header from the front of b; n is its length. With
// n == 0 and no error more bytes are needed, at most 5 in all.
//
// Flags, type and length are checked, and PINGREQ and PINGRESP must be empty:
// their header is all there is to them.
func ReadHeader(b []byte) (h Header, n int, err error) { return ReadHeaderVersion(b, V311) }

// ReadHeaderVersion is ReadHeader for a connection whose version is known. The
// one difference: MQTT 3.1 lets a client repeat PUBREL, SUBSCRIBE and
// UNSUBSCRIBE with DUP set (MQTT 3.1, 2.1), which later versions forbid.
func ReadHeaderVersion(b []byte, v Version) (h Header, n int, err error) {
	if len(b) == 0 {
		return h, 0, nil
	}
	h.Type, h.Flags = Type(b[0]>>4), b[0]&0x0F
	if err := h.checkFlags(v); err != nil {
		return Header{}, 0, err
	}
	for i := 1; ; i++ {
		if i > 4 {
			return Header{}, 0, malformed("remaining length is longer than 4 bytes [MQTT-1.5.5]")
		}
		if i >= len(b) {
			return Header{}, 0, nil
		}
		h.Remaining |= int(b[i]&0x7F) << (7 * (i - 1))
		if b[i] < 0x80 {
			if b[i] == 0 && i > 1 {
				return Header{}, 0, malformed("remaining length is not in its shortest form [MQTT-1.5.5-1]")
			}
			n = i + 1
			break
		}
	}
	if h.Remaining != 0 && (h.Type == PINGREQ || h.Type == PINGRESP) {
		return Header{}, 0, malformed(h.Type.String() + " with a body (MQTT 5, 3.12 and 3.13)")
	}
	return h, n, nil
}

func (h Header) checkFlags(v Version) error {
	switch h.Type {
	case 0:
		return malformed("packet type 0 is reserved (MQTT 5, 2.1.2)")
	case PUBLISH:
		return checkPublishFlags(h.Flags)
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		if h.Flags == 0x02 || v == V31 && h.Flags == 0x02|flagDup {
			return nil
		}
	default:
		if h.Flags == 0 {
			return nil
		}
	}
	return malformed(h.Type.String() + " with wrong flags in the fixed header [MQTT-2.1.3-1] [MQTT-2.2.2-2]")
}

func checkPublishFlags(flags byte) error {
	switch qos := flags >> 1 & 3; {
	case qos == 3:
		return malformed("PUBLISH with QoS 3 [MQTT-3.3.1-4]")
	case qos == 0 && flags&flagDup != 0:
		return malformed("PUBLISH with DUP and QoS 0 [MQTT-3.3.1-2]")
	}
	return nil
}

// AppendPingreq appends a PINGREQ.
func AppendPingreq(dst []byte) []byte { return append(dst, byte(PINGREQ)<<4, 0) }

// AppendPingresp appends a PINGRESP.
func AppendPingresp(dst []byte) []byte { return append(dst, byte(PINGRESP)<<4, 0) }
