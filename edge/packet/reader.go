package packet

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// reader takes a body apart. The first fault stays in err and empties b, so
// that every later read fails too and loops over len(b) end.
type reader struct {
	b   []byte
	of  string // what it is, for the words of errors
	err *Error
}

func (r *reader) fail(e *Error) {
	if r.err == nil {
		r.err = e
	}
	r.b = nil
}

func (r *reader) cut(field string) {
	r.fail(malformed(r.of + " ends within its " + field + ", before the remaining length or a length in it says (MQTT 5, 2.1.4)"))
}

// done is the outcome of a Decode: nothing may be left over.
func (r *reader) done() error {
	if r.err == nil && len(r.b) != 0 {
		r.fail(malformed(r.of + " goes on after its last field (MQTT 5, 2.1.4)"))
	}
	if r.err != nil {
		return r.err
	}
	return nil
}

func (r *reader) byte(field string) byte {
	if len(r.b) < 1 {
		r.cut(field)
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uint16(field string) uint16 {
	if len(r.b) < 2 {
		r.cut(field)
		return 0
	}
	n := binary.BigEndian.Uint16(r.b)
	r.b = r.b[2:]
	return n
}

func (r *reader) uint32(field string) uint32 {
	if len(r.b) < 4 {
		r.cut(field)
		return 0
	}
	n := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return n
}

// varint reads a Variable Byte Integer in its shortest form [MQTT-1.5.5-1].
func (r *reader) varint(field string) uint32 {
	var n uint32
	for i := 0; i < 4; i++ {
		if i >= len(r.b) {
			r.cut(field)
			return 0
		}
		c := r.b[i]
		n |= uint32(c&0x7F) << (7 * i)
		if c >= 0x80 {
			continue
		}
		if c == 0 && i > 0 {
			r.fail(malformed(r.of + " has a " + field + " that is not in its shortest form [MQTT-1.5.5-1]"))
			return 0
		}
		r.b = r.b[i+1:]
		return n
	}
	r.fail(malformed(r.of + " has a " + field + " of more than 4 bytes (MQTT 5, 1.5.5)"))
	return 0
}

// bytes reads binary data. The result aliases the body.
func (r *reader) bytes(field string) []byte {
	if len(r.b) < 2 {
		r.cut(field)
		return nil
	}
	end := 2 + int(binary.BigEndian.Uint16(r.b))
	if len(r.b) < end {
		r.cut(field)
		return nil
	}
	s := r.b[2:end:end]
	r.b = r.b[end:]
	return s
}

// data is bytes, copied; never nil unless it failed.
func (r *reader) data(field string) []byte {
	b := r.bytes(field)
	if b == nil {
		return nil
	}
	return append(make([]byte, 0, len(b)), b...)
}

// string reads a UTF-8 Encoded String.
func (r *reader) string(field string) string {
	b := r.bytes(field)
	if !validUTF8(b) {
		r.fail(malformed(r.of + " has a " + field + " that is not valid UTF-8 without U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2]"))
		return ""
	}
	return string(b)
}

// name reads a Topic Name.
func (r *reader) name(field string) string {
	s := r.string(field)
	switch {
	case r.err != nil:
	case s == "":
		r.fail(&Error{TopicNameInvalid, r.of + " has an empty " + field + " [MQTT-4.7.3-1]"})
	case hasWildcard([]byte(s)):
		r.fail(&Error{TopicNameInvalid, r.of + " has a wildcard in its " + field + " [MQTT-4.7.1-1]"})
	}
	return s
}

func (r *reader) packetID() uint16 {
	id := r.uint16("packet identifier")
	if id == 0 && r.err == nil {
		r.fail(violation(r.of + " with packet identifier 0 [MQTT-2.2.1-3] [MQTT-2.3.1-1]"))
	}
	return id
}

// count is the number of strings to come, each with extra bytes behind it: room
// for that many is made at once, as a list that grows costs five times as much.
func (r *reader) count(extra int) int {
	n := 0
	for b := r.b; len(b) >= 2; n++ {
		end := 2 + int(binary.BigEndian.Uint16(b)) + extra
		if end > len(b) {
			break
		}
		b = b[end:]
	}
	return n
}

// validUTF8 tells whether b may be an MQTT string: well-formed UTF-8, which
// leaves out surrogates, without U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2].
func validUTF8(b []byte) bool {
	return bytes.IndexByte(b, 0) < 0 && utf8.Valid(b)
}

func hasWildcard(b []byte) bool {
	return bytes.IndexByte(b, '+') >= 0 || bytes.IndexByte(b, '#') >= 0
}

// plain reports that b is ASCII without U+0000 and wildcards: nearly every topic
// name is. It looks at eight bytes at a time, which takes a third of the time of
// the exact checks; what it does not pass may still be a topic name.
func plain(b []byte) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	var bad uint64
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		// In bytes below 0x80 subtracting one sets the high bit of a zero only.
		bad |= x | (x - ones) | ((x ^ '+'*ones) - ones) | ((x ^ '#'*ones) - ones)
	}
	for _, c := range b {
		if c == 0 || c == '+' || c == '#' {
			return false
		}
		bad |= uint64(c)
	}
	return bad&high == 0
}
