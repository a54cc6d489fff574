package sim

import (
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"time"
)

const (
	ecsoMaxSend = 1400
	ecsoMaxRead = 1358
)

// socketError is what these commands answer instead of +CME ERROR.
func (m *Module) socketError(n int) outcome {
	if m.snaps(m.traps.SocketErrors) {
		return outcome{final: "+SOCKET ERROR: " + strconv.Itoa(n)}
	}
	return notAllowed
}

// ecsoCreate is AT+ECSOCR=STREAM,6,<local port>[,<receive>[,<family>]]; the
// answer is a bare number.
func (m *Module) ecsoCreate(c call, r *reply) outcome {
	if c.form == formTest {
		r.add("+ECSOCR: (DGRAM,STREAM),(6,17),(0-65535),(0,1),(AF_INET,AF_INET6)")
		return done
	}
	a := &args{s: c.args}
	kind, _ := a.next()
	protocol := a.int(6, 17)
	a.int(0, 65535)
	if a.more() {
		a.int(0, 1)
	}
	if a.more() {
		a.next()
	}
	if c.form != formSet || !a.ok() || kind != "STREAM" || protocol != 6 {
		return m.socketError(1)
	}
	id := m.freeSocket()
	if id < 0 || !m.radio.pdn {
		return m.socketError(2)
	}
	m.newSocket(id)
	r.add(strconv.Itoa(id))
	return done
}

// ecsoConnect is AT+ECSOCO=<id>,"<address>",<port>: no names. The result is a URC.
func (m *Module) ecsoConnect(c call, _ *reply) outcome {
	a := &args{s: c.args}
	s := m.socks.all[a.int(0, maxSockets-1)]
	host, _ := a.next()
	port := a.int(1, 65535)
	if c.form != formSet || !a.ok() || s == nil || s.air != nil || net.ParseIP(host) == nil {
		return m.socketError(3)
	}
	if m.snaps(m.traps.OpenWedge) {
		return done
	}
	return outcome{then: func() {
		m.connectSocket(s, host, port, func(err error) {
			if err != nil {
				m.urc(fmt.Sprintf("+ECSOCLI: %d,1", s.id))
				return
			}
			m.urc(fmt.Sprintf("+ECSOCO: %d", s.id))
		})
	}}
}

// ecsoSend is AT+ECSOSD=<id>,<bytes>,<hex>[,<flag>[,<number>]]. The number comes
// back in +ECSOSTR when the bytes are on their way.
func (m *Module) ecsoSend(c call, r *reply) outcome {
	a := &args{s: c.args}
	s := m.socks.all[a.int(0, maxSockets-1)]
	n := a.int(1, 1<<16)
	text, _ := a.next()
	number := 0
	if a.more() {
		a.next()
	}
	if a.more() {
		number = a.int(1, 255)
	}
	b, err := hex.DecodeString(text)
	switch {
	case n > ecsoMaxSend:
		m.stats.mistake(MistakeLimit)
		return m.socketError(4)
	case c.form != formSet || !a.ok() || err != nil || len(b) != n:
		return m.socketError(1)
	case s == nil || s.air == nil || s.ended:
		return m.socketError(5)
	case s.queued >= socketSends:
		return m.socketError(6)
	}
	m.sendSocket(s, b, func(err error) {
		status := 1
		if err != nil {
			status = 0
		}
		if number > 0 && !m.snaps(m.traps.NoSendAcks) {
			m.urc(fmt.Sprintf("+ECSOSTR: %d,%d,%d", s.id, number, status))
		}
	})
	r.add(fmt.Sprintf("%d,%d", s.id, n))
	return done
}

func (m *Module) sendSocket(s *tcpSocket, b []byte, done func(error)) {
	s.queued++
	s.sends <- send{b, done} // has room: queued is less than it
}

// ecsoRead is AT+ECSORF=<id>,<bytes>. Without bytes the answer is only OK.
func (m *Module) ecsoRead(c call, r *reply) outcome {
	a := &args{s: c.args}
	s := m.socks.all[a.int(0, maxSockets-1)]
	n := a.int(1, 1<<16)
	if n > ecsoMaxRead {
		m.stats.mistake(MistakeLimit)
		return m.socketError(1)
	}
	if c.form != formSet || !a.ok() || s == nil {
		return m.socketError(5)
	}
	if m.traps.PushedBytes > 0 {
		return done // nothing is kept
	}
	b := s.takeRx(n)
	if len(b) > 0 {
		r.add(fmt.Sprintf(`%d,"127.0.0.1",1883,%d,"%X",%d`, s.id, len(b), b, len(s.rx)))
	}
	return done
}

func (m *Module) ecsoClose(c call, _ *reply) outcome {
	a := &args{s: c.args}
	s := m.socks.all[a.int(0, maxSockets-1)]
	if c.form != formSet || !a.ok() || s == nil {
		return m.socketError(5)
	}
	m.closeSocket(s)
	return done
}

// ecsoNotify is AT+ECSONMI=<mode>: 1 tells how much has come, 3 gives it.
func (m *Module) ecsoNotify(c call, r *reply) outcome {
	if c.form == formRead {
		r.add(fmt.Sprintf("+ECSONMI:%d,2048,8", m.socks.mode))
		return done
	}
	a := &args{s: c.args}
	mode := a.int(0, 3)
	for a.more() {
		a.next()
	}
	if c.form != formSet || !a.ok() {
		return m.socketError(1)
	}
	m.socks.mode = mode
	return done
}

// notify tells the host that bytes have come, or gives them.
func (m *Module) notify(s *tcpSocket) {
	switch {
	case m.opt.Sockets == SocketsQI:
		// Only once, until it was read empty.
		if !s.told {
			s.told = true
			m.urc(fmt.Sprintf(`+QIURC: "recv",%d`, s.id))
		}
	case m.traps.PushedBytes > 0:
		m.pushBytes(s)
	default:
		m.urc(fmt.Sprintf("+ECSONMI: %d,%d", s.id, len(s.rx)))
	}
}

// pushBytes gives what has come as the line has room for it.
func (m *Module) pushBytes(s *tcpSocket) {
	for len(s.rx) > 0 {
		if m.uart.waiting() > 4096 {
			m.after(2*time.Millisecond, func() {
				if m.socks.all[s.id] == s {
					m.pushBytes(s)
				}
			})
			return
		}
		b := s.takeRx(1024)
		m.urc(fmt.Sprintf(`+ECSONMI: %d,%d,"%X"`, s.id, len(b), b))
	}
	if s.ended {
		m.notifyClosed(s)
	}
}

func (m *Module) notifyClosed(s *tcpSocket) {
	switch {
	case m.opt.Sockets == SocketsQI:
		m.urc(fmt.Sprintf(`+QIURC: "closed",%d`, s.id))
	case m.traps.PushedBytes > 0 && len(s.rx) > 0: // pushBytes says it in the end
	default:
		m.urc(fmt.Sprintf("+ECSOCLI: %d,0", s.id))
	}
}

// ecdns is AT+ECDNS="<name>".
func (m *Module) ecdns(c call, r *reply) outcome {
	a := &args{s: c.args}
	host, _ := a.next()
	if c.form != formSet || !a.ok() || host == "" || !m.radio.pdn {
		return m.socketError(1)
	}
	return outcome{wait: func(answer func(int)) {
		m.spawn(func() {
			ips, err := net.DefaultResolver.LookupIP(m.ctx, "ip4", host)
			m.post(func() {
				if err != nil || len(ips) == 0 {
					answer(cmeNotAllowed)
					return
				}
				r.add(`+ECDNS: "` + ips[0].String() + `"`)
				answer(0)
			})
		})
	}}
}
