package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"holdfast"
)

// A record is one message with its route. A batch is the records that one
// commit adds to one lane of one queue; it is one value of the engine:
//
//	version 1 | records | trailer | length of trailer u16 | CRC of records u32 | CRC of the rest u32
//
// The trailer stands behind the records because it is known only when the
// commit is taken, and has a CRC of its own because it says whose messages were
// lost when the records cannot be read.

const (
	recordVersion = 1
	batchVersion  = 1
	// batchTail is the fixed part at the end of a batch.
	batchTail = 2 + 4 + 4
)

// errCorrupt is wrapped by every error of a decoder.
var errCorrupt = errors.New("corrupt")

func corrupt(what string) error { return fmt.Errorf("storage: %s: %w", what, errCorrupt) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	flagRetain = 1 << (iota + 2) // the lower two bits are the QoS
	flagProperties
	flagUTF8 // the Payload Format Indicator; without flagProperties: there are some, and it is 0
	flagExpiry
	flagReceived
	flagQoS0 // in batches only: published with QoS 0
)

// appendMessage appends the stored form of m, to be delivered with qos and
// retain, to b.
func appendMessage(b []byte, m *holdfast.Message, qos byte, retain bool) []byte {
	flags := qos & 3
	if retain {
		flags |= flagRetain
	}
	p := m.Properties
	if p != nil {
		switch {
		case p.PayloadUTF8:
			flags |= flagProperties | flagUTF8
		case p.PayloadBytes:
			flags |= flagUTF8
		default:
			flags |= flagProperties
		}
		if p.HasExpiry {
			flags |= flagExpiry
		}
	}
	if !m.Received.IsZero() {
		flags |= flagReceived
	}
	b = append(b, flags)
	b = appendString(b, m.Topic)
	b = binary.AppendUvarint(b, uint64(len(m.Payload)))
	b = append(b, m.Payload...)
	b = appendString(b, m.Origin)
	if flags&flagReceived != 0 {
		b = binary.AppendVarint(b, m.Received.UnixNano())
	}
	if p == nil {
		return b
	}
	if p.HasExpiry {
		b = binary.AppendUvarint(b, uint64(p.Expiry))
	}
	b = appendString(b, p.ContentType)
	b = appendString(b, p.ResponseTopic)
	b = binary.AppendUvarint(b, uint64(len(p.CorrelationData)))
	b = append(b, p.CorrelationData...)
	b = binary.AppendUvarint(b, uint64(len(p.User)))
	for _, u := range p.User {
		b = appendString(b, u.Name)
		b = appendString(b, u.Value)
	}
	if len(p.SubscriptionIDs) > 0 {
		b = binary.AppendUvarint(b, uint64(len(p.SubscriptionIDs)))
		for _, id := range p.SubscriptionIDs {
			b = binary.AppendUvarint(b, uint64(id))
		}
	}
	return b
}

// messageBound is at least the length of what appendMessage appends.
func messageBound(m *holdfast.Message) int {
	n := 1 + 3*binary.MaxVarintLen32 + len(m.Topic) + len(m.Payload) + len(m.Origin) + binary.MaxVarintLen64
	if p := m.Properties; p != nil {
		n += 5*binary.MaxVarintLen32 + len(p.ContentType) + len(p.ResponseTopic) + len(p.CorrelationData)
		for _, u := range p.User {
			n += len(u.Name) + len(u.Value) + 2*binary.MaxVarintLen32
		}
		n += subscriptionIDsBound(p.SubscriptionIDs)
	}
	return n
}

// subscriptionIDsBound is at least the length of the stored form of ids.
func subscriptionIDsBound(ids []uint32) int { return (len(ids) + 1) * binary.MaxVarintLen32 }

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// decoder reads the forms above; after the first fault every read gives zero
// and bad stays set.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

// bytes is a slice of the decoded value, not a copy.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string { return string(d.bytes()) }

// message reads what appendMessage wrote, up to the end of d. The payload shares the memory of the
// value; a topic equal to like is not allocated again.
func (d *decoder) message(like string) *holdfast.Message {
	flags := d.byte()
	m := &holdfast.Message{QoS: flags & 3, Retain: flags&flagRetain != 0}
	if topic := d.bytes(); string(topic) == like {
		m.Topic = like
	} else {
		m.Topic = string(topic)
	}
	m.Payload = d.bytes()
	m.Origin = d.string()
	if flags&flagReceived != 0 {
		m.Received = time.Unix(0, d.varint())
	}
	if format := flags & (flagProperties | flagUTF8); format != 0 {
		p := &holdfast.Properties{PayloadUTF8: format == flagProperties|flagUTF8, PayloadBytes: format == flagUTF8, HasExpiry: flags&flagExpiry != 0}
		if p.HasExpiry {
			e := d.uvarint()
			if e > 1<<32-1 {
				d.bad = true
			}
			p.Expiry = uint32(e)
		}
		p.ContentType = d.string()
		p.ResponseTopic = d.string()
		if c := d.bytes(); len(c) > 0 {
			p.CorrelationData = c
		}
		n := d.uvarint()
		if n > uint64(len(d.b)) { // each takes two bytes at the least
			d.b, d.bad = nil, true
			return nil
		}
		for range n {
			p.User = append(p.User, holdfast.UserProperty{Name: d.string(), Value: d.string()})
			if d.bad {
				return nil
			}
		}
		if len(d.b) > 0 { // it ends before them if there are none
			p.SubscriptionIDs = d.subscriptionIDs()
		}
		m.Properties = p
	}
	if d.bad || m.QoS > 2 {
		d.bad = true
		return nil
	}
	return m
}

func (d *decoder) subscriptionIDs() (ids []uint32) {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	for range n {
		id := d.uvarint()
		if id == 0 || id > 268_435_455 { // MQTT 5, 3.8.2.1.2
			d.bad = true
			return nil
		}
		ids = append(ids, uint32(id))
	}
	return ids
}

// seal frames a small value: version, body, CRC32C.
func seal(body []byte) []byte {
	return binary.LittleEndian.AppendUint32(body, crc32.Checksum(body, castagnoli))
}

// open undoes seal; what names the row in the error.
func unseal(v []byte, version byte, what string) (decoder, error) {
	if len(v) < 5 {
		return decoder{}, corrupt(what)
	}
	body := v[:len(v)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(v[len(v)-4:]) || body[0] != version {
		return decoder{}, corrupt(what)
	}
	return decoder{b: body[1:]}, nil
}

// encodeMessage is the value of a row that holds one message: a retained one,
// a will, or one in quarantine (with note and route).
func encodeMessage(m *holdfast.Message, route, note string) []byte {
	b := make([]byte, 0, messageBound(m)+len(route)+len(note)+16)
	b = append(b, recordVersion)
	b = appendString(b, route)
	b = appendString(b, note)
	return seal(appendMessage(b, m, m.QoS, m.Retain))
}

func decodeMessage(v []byte) (m *holdfast.Message, route, note string, err error) {
	d, err := unseal(v, recordVersion, "message")
	if err != nil {
		return nil, "", "", err
	}
	route, note = d.string(), d.string()
	m = d.message("")
	if d.bad || len(d.b) != 0 {
		return nil, "", "", corrupt("message")
	}
	return m, route, note, nil
}

// routeCount is how many records of a batch belong to one route.
type routeCount struct {
	route uint32
	n     uint64
}

// trailer is what a batch says of itself.
type trailer struct {
	first  uint64 // position of its first record
	count  uint64
	seq    uint64 // number of the transaction, growing
	routes []routeCount
	age    uint64 // of the store when it was begun, in ms
}

// maxBatchRecords bounds the count of one batch, so that a damaged trailer
// cannot make a reader believe in billions.
const maxBatchRecords = 1 << 20

func appendTrailer(b []byte, t *trailer) []byte {
	records := crc32.Checksum(b[1:], castagnoli)
	start := len(b)
	b = binary.AppendUvarint(b, t.first)
	b = binary.AppendUvarint(b, t.count)
	b = binary.AppendUvarint(b, t.seq)
	b = binary.AppendUvarint(b, uint64(len(t.routes)))
	for _, r := range t.routes {
		b = binary.AppendUvarint(b, uint64(r.route))
		b = binary.AppendUvarint(b, r.n)
	}
	b = binary.AppendUvarint(b, t.age)
	n := len(b) - start
	b = binary.LittleEndian.AppendUint16(b, uint16(n))
	b = binary.LittleEndian.AppendUint32(b, records)
	sum := crc32.Checksum(b[start:], castagnoli)
	sum = crc32.Update(sum, castagnoli, b[:1])
	return binary.LittleEndian.AppendUint32(b, sum)
}

// decodeTrailer reads the trailer of a batch, and returns the records without
// having looked at them.
func decodeTrailer(v []byte) (t trailer, records []byte, sum uint32, err error) {
	if len(v) < 1+batchTail {
		return t, nil, 0, corrupt("batch")
	}
	end := len(v) - batchTail
	n := int(binary.LittleEndian.Uint16(v[end:]))
	start := end - n
	if start < 1 || v[0] != batchVersion {
		return t, nil, 0, corrupt("batch")
	}
	check := crc32.Checksum(v[start:len(v)-4], castagnoli)
	check = crc32.Update(check, castagnoli, v[:1])
	if check != binary.LittleEndian.Uint32(v[len(v)-4:]) {
		return t, nil, 0, corrupt("batch trailer")
	}
	d := decoder{b: v[start:end]}
	t.first, t.count, t.seq = d.uvarint(), d.uvarint(), d.uvarint()
	routes := d.uvarint()
	if d.bad || routes > uint64(len(d.b)) || t.count == 0 || t.count > maxBatchRecords || t.first == 0 || t.first >= 1<<60 {
		return t, nil, 0, corrupt("batch trailer")
	}
	var total uint64
	for range routes {
		r := d.uvarint()
		c := d.uvarint()
		if r > 1<<32-1 || c > t.count {
			return t, nil, 0, corrupt("batch trailer")
		}
		t.routes = append(t.routes, routeCount{uint32(r), c})
		total += c
	}
	t.age = d.uvarint()
	if d.bad || len(d.b) != 0 || total != t.count || t.age >= 1<<60 {
		return t, nil, 0, corrupt("batch trailer")
	}
	return t, v[1:start], binary.LittleEndian.Uint32(v[end+2:]), nil
}

// decodeRecords reads the records of a batch whose trailer was t.
func decodeRecords(t trailer, records []byte, sum uint32) ([]entry, error) {
	if crc32.Checksum(records, castagnoli) != sum {
		return nil, corrupt("batch records")
	}
	d := decoder{b: records}
	// A record takes nine bytes or more: never trust the count for memory.
	entries := make([]entry, 0, min(t.count, uint64(len(records)/4)+1))
	topic := ""
	for i := range t.count {
		r := decoder{b: d.bytes()}
		route := r.uvarint()
		qos0 := len(r.b) > 0 && r.b[0]&flagQoS0 != 0
		m := r.message(topic)
		if d.bad || r.bad || len(r.b) != 0 || route > 1<<32-1 {
			return nil, corrupt("batch records")
		}
		topic = m.Topic
		entries = append(entries, entry{pos: t.first + i, route: uint32(route), size: uint32(m.Size()), msg: m, qos0: qos0, at: int64(t.age)})
	}
	if len(d.b) != 0 {
		return nil, corrupt("batch records")
	}
	return entries, nil
}
