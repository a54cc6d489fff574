package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	vocabulary "holdfast"
	"holdfast/edge/packet"
)

// A script is a conversation of packets with a broker, any broker: send this,
// receive that. What does not come as it is written ends the script with the reason.
type script struct {
	address  string
	patience time.Duration
	conns    []net.Conn
}

// departure is how a broker has left the script.
type departure string

// follow runs a story against a broker, of which no connection may last longer than
// patience, and returns how it left it; "" if it did not.
func follow(address string, patience time.Duration, story func(s *script)) (left departure) {
	s := &script{address: address, patience: patience}
	defer func() {
		for _, nc := range s.conns {
			nc.Close()
		}
		if r := recover(); r != nil {
			var ok bool
			if left, ok = r.(departure); !ok {
				panic(r)
			}
		}
	}()
	story(s)
	return ""
}

func leave(format string, args ...any) { panic(departure(fmt.Sprintf(format, args...))) }

// peer is one client in a script.
type peer struct {
	s   *script
	nc  net.Conn
	v   packet.Version
	buf []byte
}

func (s *script) dial(v packet.Version) *peer {
	nc, err := net.Dial("tcp", s.address)
	if err != nil {
		leave("connect: %v", err)
	}
	nc.SetDeadline(time.Now().Add(s.patience))
	s.conns = append(s.conns, nc)
	return &peer{s: s, nc: nc, v: v}
}

// connect logs in with a session that ends with the connection, unless set says
// otherwise.
func (s *script) connect(v packet.Version, id string, set ...func(*packet.Connect)) *peer {
	p, a := s.login(v, id, set...)
	if a.Code != 0 {
		leave("CONNACK with code %#x", a.Code)
	}
	return p
}

func (s *script) login(v packet.Version, id string, set ...func(*packet.Connect)) (*peer, packet.Connack) {
	p := s.dial(v)
	c := packet.Connect{Version: v, CleanStart: true, ClientID: id, KeepAlive: 60}
	for _, f := range set {
		f(&c)
	}
	p.send(c.Append(nil))
	var a packet.Connack
	p.must(a.Decode(p.expect(packet.CONNACK), v))
	return p, a
}

func (p *peer) must(err error) {
	if err != nil {
		leave("%v", err)
	}
}

func (p *peer) send(b []byte, err error) {
	p.must(err)
	if _, err := p.nc.Write(b); err != nil {
		leave("write: %v", err)
	}
}

func (p *peer) raw(b ...byte) { p.send(b, nil) }

// next reads one packet; an error is the end of the connection.
func (p *peer) next() (h packet.Header, body []byte, err error) {
	for {
		h, n, err := packet.ReadHeader(p.buf)
		if err != nil {
			return h, nil, err
		}
		if end := n + h.Remaining; n > 0 && len(p.buf) >= end {
			body, p.buf = p.buf[n:end:end], p.buf[end:]
			return h, body, nil
		}
		chunk := make([]byte, 4096)
		m, err := p.nc.Read(chunk)
		if p.buf = append(p.buf, chunk[:m]...); m == 0 && err != nil {
			return h, nil, err
		}
	}
}

func (p *peer) expect(t packet.Type) []byte {
	h, body, err := p.next()
	switch {
	case err != nil:
		leave("waiting for %v: %v", t, err)
	case h.Type != t:
		leave("%v %x came instead of %v", h.Type, body, t)
	}
	return body
}

func (p *peer) expectAck(t packet.Type, id uint16, codes ...packet.ReasonCode) {
	var a packet.Ack
	p.must(a.Decode(p.expect(t), p.v))
	if a.PacketID != id {
		leave("%v for %d, want it for %d", t, a.PacketID, id)
	}
	for _, c := range codes {
		if a.Code == c {
			return
		}
	}
	if len(codes) > 0 {
		leave("%v with %v, want %v", t, a.Code, codes)
	}
}

func (p *peer) ack(t packet.Type, id uint16) {
	a := packet.Ack{PacketID: id}
	p.raw(a.Append(nil, t, p.v)...)
}

func (p *peer) publish(topic, payload string, qos byte, id uint16, set ...func(*packet.Publish)) {
	m := packet.Publish{Topic: []byte(topic), Payload: []byte(payload), QoS: qos, PacketID: id}
	for _, f := range set {
		f(&m)
	}
	p.send(m.Append(nil, p.v))
}

// deliver publishes and takes part in what the QoS asks for.
func (p *peer) deliver(topic, payload string, qos byte, id uint16, set ...func(*packet.Publish)) {
	p.publish(topic, payload, qos, id, set...)
	switch qos {
	case 1:
		p.expectAck(packet.PUBACK, id)
	case 2:
		p.expectAck(packet.PUBREC, id)
		p.ack(packet.PUBREL, id)
		p.expectAck(packet.PUBCOMP, id)
	}
}

func (p *peer) subscribe(subs ...vocabulary.Subscription) (codes []byte) {
	m := packet.Subscribe{PacketID: 77, Filters: subs}
	if subs[0].Identifier != 0 {
		m.Properties = &packet.Properties{SubscriptionIdentifiers: []uint32{subs[0].Identifier}}
	}
	p.send(m.Append(nil, p.v))
	var a packet.Suback
	p.must(a.Decode(p.expect(packet.SUBACK), p.v))
	if a.PacketID != 77 || len(a.Codes) != len(subs) {
		leave("SUBACK %+v", a)
	}
	return a.Codes
}

func (p *peer) sub(filter string, qos byte) {
	if codes := p.subscribe(vocabulary.Subscription{Filter: filter, QoS: qos}); codes[0] != qos {
		leave("SUBACK with %#x for QoS %d", codes[0], qos)
	}
}

// receive reads a PUBLISH and answers it as its QoS asks.
func (p *peer) receive(topic, payload string, qos byte) packet.Publish {
	m := p.receiveOnly(topic, payload, qos)
	switch qos {
	case 1:
		p.ack(packet.PUBACK, m.PacketID)
	case 2:
		p.ack(packet.PUBREC, m.PacketID)
		p.expectAck(packet.PUBREL, m.PacketID)
		p.ack(packet.PUBCOMP, m.PacketID)
	}
	return m
}

func (p *peer) receiveOnly(topic, payload string, qos byte) (m packet.Publish) {
	h, body, err := p.next()
	switch {
	case err != nil:
		leave("waiting for %q: %v", payload, err)
	case h.Type != packet.PUBLISH:
		leave("%v %x came instead of %q", h.Type, body, payload)
	}
	p.must(m.Decode(h.Flags, body, p.v))
	if string(m.Topic) != topic || string(m.Payload) != payload || m.QoS != qos {
		leave("%s %q with QoS %d came, want %s %q with QoS %d", m.Topic, m.Payload, m.QoS, topic, payload, qos)
	}
	return m
}

// nothing proves that nothing has come before an answer that is asked for now.
func (p *peer) nothing() {
	p.raw(packet.AppendPingreq(nil)...)
	p.expect(packet.PINGRESP)
}

// ends waits for the end of the connection; with MQTT 5 a DISCONNECT or CONNACK
// with one of the codes may come before it, and must if there are any.
func (p *peer) ends(codes ...packet.ReasonCode) {
	h, body, err := p.next()
	if err == nil && p.v == packet.V5 && (h.Type == packet.DISCONNECT || h.Type == packet.CONNACK) {
		at := 0
		if h.Type == packet.CONNACK {
			at = 1
		}
		told := len(codes) == 0
		for _, c := range codes {
			told = told || len(body) > at && body[at] == byte(c)
		}
		if !told {
			leave("%v %x, want %v", h.Type, body, codes)
		}
		codes = nil
		_, _, err = p.next()
	}
	switch {
	case err == nil:
		leave("%v %x came instead of the end of the connection", h.Type, body)
	case errors.Is(err, os.ErrDeadlineExceeded):
		leave("the connection was not closed")
	case !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset"):
		leave("%v", err)
	case len(codes) > 0:
		leave("the connection ended without a word, want %v", codes)
	}
}

// bye disconnects and waits until the broker has seen it.
func (p *peer) bye() {
	p.send(new(packet.Disconnect).Append(nil, p.v))
	p.ends()
}

// TestScripts holds this broker, and a mosquitto beside it, to scripts that follow the
// specification. Where mosquitto is known to leave one the script says so with the
// clause; another version of it may not.
func TestScripts(t *testing.T) {
	t.Parallel()
	g := newHoldfast(t, "")
	g.start()
	m := newMosquitto(t)
	m.start()
	names := map[string]bool{}
	for _, story := range stories {
		if names[story.name] {
			t.Fatalf("two scripts are called %q", story.name)
		}
		names[story.name] = true
		t.Run(story.name, func(t *testing.T) {
			if left := follow(g.address, patience, story.tell); left != "" {
				t.Errorf("left the script: %s", left)
			}
			most := patience
			if story.mosquitto != "" {
				most = time.Second // for what it is known not to do
			}
			left := follow(m.address, most, story.tell)
			switch {
			case left != "" && story.mosquitto == "":
				t.Errorf("mosquitto left the script: %s", left)
			case left != "":
				t.Logf("mosquitto left the script (%s): %s", story.mosquitto, left)
			case story.mosquitto != "":
				t.Logf("this mosquitto keeps to the script (%s)", story.mosquitto)
			}
		})
	}
}
