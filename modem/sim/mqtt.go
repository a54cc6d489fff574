package sim

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"holdfast"
	"holdfast/edge/packet"
)

// The packets of the firmware's MQTT client.

func connectPacket(mq *mqttContext) ([]byte, error) {
	k := &mq.cfg
	p := packet.Connect{
		Version:    packet.Version(k.version),
		CleanStart: k.session == 1,
		KeepAlive:  uint16(k.keepalive),
		ClientID:   mq.clientID,
	}
	if mq.user != "" {
		p.HasUsername, p.Username = true, mq.user
		if mq.password != "" {
			p.HasPassword, p.Password = true, []byte(mq.password)
		}
	}
	if w := k.will; w.flag == 1 {
		p.Will = &packet.Will{QoS: byte(w.qos), Retain: w.retain == 1, Topic: w.topic, Payload: []byte(w.msg)}
	}
	return p.Append(nil)
}

// publishPacket is put together by hand: the firmware sends any identifier,
// 0 at QoS 1 included, and any topic, and leaves it to the broker to object.
func publishPacket(p publish, payload []byte) []byte {
	n := 2 + len(p.topic) + len(payload)
	if p.qos > 0 {
		n += 2
	}
	b := []byte{byte(packet.PUBLISH)<<4 | byte(p.qos)<<1}
	if p.retain {
		b[0] |= 1
	}
	b = binary.AppendUvarint(b, uint64(n)) // the same coding (MQTT 3.1.1, 2.2.3)
	b = binary.BigEndian.AppendUint16(b, uint16(len(p.topic)))
	b = append(b, p.topic...)
	if p.qos > 0 {
		b = binary.BigEndian.AppendUint16(b, uint16(p.id))
	}
	return append(b, payload...)
}

func subscribePacket(id int, filter string, qos int) ([]byte, error) {
	p := packet.Subscribe{
		PacketID: uint16(id),
		Filters:  []holdfast.Subscription{{Filter: filter, QoS: byte(qos)}},
	}
	return p.Append(nil, packet.V311)
}

func unsubscribePacket(id int, filter string) ([]byte, error) {
	p := packet.Unsubscribe{PacketID: uint16(id), Filters: []string{filter}}
	return p.Append(nil, packet.V311)
}

func ackPacket(t packet.Type, id uint16) []byte {
	a := packet.Ack{PacketID: id}
	return a.Append(nil, t, packet.V311)
}

func pingPacket() []byte { return packet.AppendPingreq(nil) }

func disconnectPacket() []byte { return []byte{byte(packet.DISCONNECT) << 4, 0} }

// frame is one packet as the receive task finds it.
type frame struct {
	kind  packet.Type
	flags byte
	body  []byte
}

// id is the packet identifier in front of the body; ok is false if it is cut.
func (f *frame) id() (id uint16, ok bool) {
	if len(f.body) < 2 {
		return 0, false
	}
	return binary.BigEndian.Uint16(f.body), true
}

var (
	// errOverflow: the packet is larger than the buffer. Its rest stays in the
	// stream and is read as packets, as by the firmware.
	errOverflow = errors.New("buffer overflow")
	errLength   = errors.New("malformed remaining length")
)

// readFrame reads a packet of up to limit bytes. It trusts the stream: after an overflow anything may come.
func readFrame(r *bufio.Reader, limit int) (f frame, err error) {
	first, err := r.ReadByte()
	if err != nil {
		return f, err
	}
	f.kind, f.flags = packet.Type(first>>4), first&15
	n, header := 0, 1
	for shift := 0; ; shift += 7 {
		if shift > 21 {
			return f, errLength
		}
		b, err := r.ReadByte()
		if err != nil {
			return f, err
		}
		header++
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	if header+n > limit {
		return f, errOverflow
	}
	f.body = make([]byte, n)
	_, err = io.ReadFull(r, f.body)
	return f, err
}
