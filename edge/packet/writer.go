package packet

import "encoding/binary"

// writer puts a packet together behind dst. The remaining length is one byte
// until end knows it. The first fault stays in err.
type writer struct {
	b     []byte
	start int
	of    Type
	err   *Error
}

func begin(dst []byte, t Type, flags byte) writer {
	return writer{b: append(dst, byte(t)<<4|flags, 0), start: len(dst), of: t}
}

// end writes the remaining length, moving the body if it takes more than one byte.
func (w *writer) end() ([]byte, error) {
	body := len(w.b) - w.start - 2
	if w.err == nil && body > MaxRemaining {
		w.fail(tooLarge(w.of))
	}
	if w.err != nil {
		return w.b[:w.start], w.err
	}
	if body < 0x80 {
		w.b[w.start+1] = byte(body)
		return w.b, nil
	}
	var pad [3]byte
	extra := varintSize(body) - 1
	w.b = append(w.b, pad[:extra]...)
	copy(w.b[w.start+2+extra:], w.b[w.start+2:])
	appendVarint(w.b[:w.start+1], uint32(body))
	return w.b, nil
}

func (w *writer) fail(e *Error) {
	if w.err == nil {
		w.err = e
	}
}

func (w *writer) byte(c byte)     { w.b = append(w.b, c) }
func (w *writer) uint16(n uint16) { w.b = binary.BigEndian.AppendUint16(w.b, n) }
func (w *writer) raw(b []byte)    { w.b = append(w.b, b...) }

func (w *writer) packetID(id uint16) {
	if id == 0 {
		w.fail(violation(typeNames[w.of] + " with packet identifier 0 [MQTT-2.2.1-3] [MQTT-2.3.1-1]"))
	}
	w.uint16(id)
}

func (w *writer) string(s, field string) {
	if len(s) > MaxString {
		w.fail(tooLong(w.of, field))
		return
	}
	w.b = appendString(w.b, s)
}

func (w *writer) data(b []byte, field string) {
	if len(b) > MaxString {
		w.fail(tooLong(w.of, field))
		return
	}
	w.b = appendData(w.b, b)
}

// properties writes p, which may be nil, with its length. where is the packet,
// or 0 for a will.
func (w *writer) properties(p *Properties, where Type) {
	if e := p.check(where); e != nil {
		w.fail(e)
		return
	}
	w.b = p.appendTo(w.b)
}

func tooLong(t Type, field string) *Error {
	return &Error{PacketTooLarge, typeNames[t] + " cannot have a " + field + " of more than 65535 bytes (MQTT 5, 1.5.4)"}
}

func tooLarge(t Type) *Error {
	return &Error{PacketTooLarge, typeNames[t] + " cannot be larger than 268435455 bytes (MQTT 5, 1.5.5)"}
}

func appendString(dst []byte, s string) []byte {
	dst = append(dst, byte(len(s)>>8), byte(len(s)))
	return append(dst, s...)
}

func appendData(dst, b []byte) []byte {
	dst = append(dst, byte(len(b)>>8), byte(len(b)))
	return append(dst, b...)
}

func appendVarint(dst []byte, n uint32) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

// varintSize is the length of n as a Variable Byte Integer.
func varintSize(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}
