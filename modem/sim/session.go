package sim

import (
	"bufio"
	"errors"
	"net"
	"time"

	"holdfast/edge/packet"
)

// session is one TCP connection of the MQTT client with its two tasks, one
// that sends and one that receives.
type session struct {
	m    *Module
	air  *airConn
	conn net.Conn // air, or TLS over it
	jobs chan job

	// Only accessed from the engine goroutine.
	stopped bool
	pinging bool // a PINGRESP is due
	missed  int
}

func (m *Module) newSession(a *airConn, c net.Conn) *session {
	s := &session{m: m, air: a, conn: c, jobs: make(chan job, 2+maxPingRetries+2)}
	m.spawn(s.sendTask)
	m.spawn(s.receiveTask)
	return s
}

// send hands j to the send task; its done is called in any case. Only called
// from the engine goroutine, which must not wait here: at most one CONNECT, one
// message and the unanswered pings are under way, and they have room.
func (s *session) send(j job) {
	if !s.stopped {
		select {
		case s.jobs <- j:
			return
		default:
		}
	}
	s.m.after(0, func() { j.done(net.ErrClosed) })
}

// stop closes the connection. Only called from the engine goroutine.
func (s *session) stop() {
	s.stopped = true
	s.air.Close()
}

// bye sends what was written and, if polite, DISCONNECT, and closes. It takes
// at most a second, also in an outage.
func (s *session) bye(polite bool) (err error) {
	t := time.AfterFunc(time.Second, func() { s.air.Close() })
	defer t.Stop()
	defer s.air.Close()
	if polite {
		_, err = s.conn.Write(disconnectPacket())
	}
	if !s.air.drain(time.Second) && err == nil {
		err = net.ErrClosed
	}
	return err
}

func (s *session) sendTask() {
	for {
		select {
		case j := <-s.jobs:
			err := j.err
			if err == nil {
				_, err = s.conn.Write(j.packet)
			}
			s.m.post(func() { j.done(err) })
		case <-s.air.closed:
			for {
				select {
				case j := <-s.jobs:
					s.m.post(func() { j.done(net.ErrClosed) })
				default:
					return
				}
			}
		}
	}
}

func (s *session) receiveTask() {
	r := bufio.NewReaderSize(s.conn, 2048)
	for {
		f, err := readFrame(r, s.m.packetLimit())
		if errors.Is(err, errOverflow) {
			continue
		}
		if err != nil {
			s.tell(func() { s.m.lost(s, true) })
			return
		}
		s.handle(f)
	}
}

// tell runs f on the engine if this is still the connection.
func (s *session) tell(f func()) {
	s.m.post(func() {
		if s.m.mq.sess == s && !s.stopped {
			f()
		}
	})
}

func (s *session) handle(f frame) {
	m := s.m
	switch f.kind {
	case packet.CONNACK:
		code := 6 // not to be understood
		if len(f.body) == 2 {
			code = int(f.body[1])
		}
		s.tell(func() { m.connack(s, code) })
	case packet.PUBLISH:
		s.downlink(f)
	case packet.PUBACK, packet.PUBCOMP:
		if id, ok := f.id(); ok {
			s.tell(func() { m.acked(int(id)) })
		}
	case packet.PUBREC:
		if id, ok := f.id(); ok {
			s.answer(packet.PUBREL, id)
		}
	case packet.PUBREL:
		if id, ok := f.id(); ok {
			s.answer(packet.PUBCOMP, id)
		}
	case packet.SUBACK:
		if id, ok := f.id(); ok {
			s.tell(func() { m.suback(int(id), f.body[2:]) })
		}
	case packet.UNSUBACK:
		if id, ok := f.id(); ok {
			s.tell(func() { m.unsuback(int(id)) })
		}
	case packet.PINGRESP:
		s.tell(func() { s.pinging, s.missed = false, 0 })
	}
}

// downlink acknowledges a message before the host has seen a byte of it: what
// is lost on the line from here is lost.
func (s *session) downlink(f frame) {
	var p packet.Publish
	if p.Decode(f.flags, f.body, packet.V311) != nil {
		return
	}
	switch p.QoS {
	case 1:
		s.answer(packet.PUBACK, p.PacketID)
	case 2:
		s.answer(packet.PUBREC, p.PacketID)
	}
	topic := string(p.Topic)
	s.tell(func() { s.m.received(int(p.PacketID), topic, p.Payload) })
}

func (s *session) answer(t packet.Type, id uint16) {
	_, _ = s.conn.Write(ackPacket(t, id)) // a failure is met by the next send
}
