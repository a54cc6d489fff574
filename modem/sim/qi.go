package sim

import (
	"fmt"
	"net"
)

const (
	qiMaxSend = 1460
	qiMaxRead = 1500
)

// qiOpen is AT+QIOPEN=<context>,<id>,"TCP","<host>",<port>,<local port>,<mode>.
func (m *Module) qiOpen(c call, r *reply) outcome {
	if c.form == formTest {
		r.add(`+QIOPEN: (1-15),(0-11),"TCP/UDP/TCP LISTENER/UDP SERVICE","<IP_address>/<domain_name>",<remote_port>,<local_port>,(0-2)`)
		return done
	}
	a := &args{s: c.args}
	a.int(1, 15)
	id := a.int(0, maxSockets-1)
	kind := a.str(16)
	host := a.str(150)
	port := a.int(1, 65535)
	mode := 0
	if a.more() {
		a.int(0, 65535)
	}
	if a.more() {
		mode = a.int(0, 2)
	}
	if c.form != formSet || !a.ok() || kind != "TCP" || mode != 0 {
		return notAllowed
	}
	if m.socks.all[id] != nil {
		return outcome{then: func() { m.urc(fmt.Sprintf("+QIOPEN: %d,563", id)) }}
	}
	if !m.radio.pdn {
		return outcome{then: func() { m.urc(fmt.Sprintf("+QIOPEN: %d,561", id)) }}
	}
	if m.snaps(m.traps.OpenWedge) {
		return done
	}
	s := m.newSocket(id)
	return outcome{then: func() {
		m.connectSocket(s, host, port, func(err error) {
			code := 0
			if err != nil {
				code = 566
			}
			m.urc(fmt.Sprintf("+QIOPEN: %d,%d", id, code))
		})
	}}
}

// qiSend is AT+QISEND=<id>,<bytes>: a prompt, and exactly so many bytes.
func (m *Module) qiSend(c call, _ *reply) outcome {
	a := &args{s: c.args}
	s := m.socks.all[a.int(0, maxSockets-1)]
	n := a.int(1, 1<<16)
	switch {
	case n > qiMaxSend:
		m.stats.mistake(MistakeLimit)
		return notAllowed
	case c.form != formSet || !a.ok() || s == nil || s.air == nil || s.ended:
		return notAllowed
	}
	return outcome{data: &dataMode{need: n, send: func(b []byte, _ bool) outcome {
		switch {
		case m.socks.all[s.id] != s || s.ended:
			return notAllowed
		case s.queued >= socketSends:
			return outcome{final: "SEND FAIL"}
		}
		sendInfo := m.snaps(m.traps.SendInfo)
		m.sendSocket(s, b, func(err error) {
			if sendInfo {
				m.urc(fmt.Sprintf("+QISEND: %d,%s,%d", s.id, bit(err != nil), len(b)))
			}
		})
		if sendInfo {
			return done
		}
		return outcome{final: "SEND OK"}
	}}}
}

// qiRead is AT+QIRD=<id>,<bytes>: the count, and the bytes as they are.
func (m *Module) qiRead(c call, r *reply) outcome {
	a := &args{s: c.args}
	s := m.socks.all[a.int(0, maxSockets-1)]
	n := a.int(0, qiMaxRead)
	if c.form != formSet || !a.ok() || s == nil {
		return notAllowed
	}
	b := s.takeRx(n)
	r.add(fmt.Sprintf("+QIRD: %d", len(b)))
	if len(b) == 0 {
		s.told = false
	}
	r.raw = b
	return done
}

func (m *Module) qiClose(c call, _ *reply) outcome {
	a := &args{s: c.args}
	s := m.socks.all[a.int(0, maxSockets-1)]
	if a.more() {
		a.int(0, 65535)
	}
	if c.form != formSet || !a.ok() {
		return notAllowed
	}
	if s != nil {
		m.closeSocket(s)
	}
	return done
}

// qiAct is AT+QIACT: the attach has activated the context.
func (m *Module) qiAct(c call, r *reply) outcome {
	if c.form == formRead && m.radio.pdn {
		r.add(fmt.Sprintf(`+QIACT: 1,1,1,"%s"`, ipAddress))
	}
	if c.form == formSet && !m.radio.pdn {
		return notAllowed
	}
	return done
}

// qiResolve is AT+QIDNSGIP=<context>,"<name>": a line with result and number, and
// one for each address.
func (m *Module) qiResolve(c call, _ *reply) outcome {
	a := &args{s: c.args}
	a.int(1, 15)
	host := a.str(255)
	if c.form != formSet || !a.ok() || host == "" || !m.radio.pdn {
		return notAllowed
	}
	return outcome{then: func() {
		m.spawn(func() {
			ips, err := net.DefaultResolver.LookupIP(m.ctx, "ip4", host)
			m.post(func() {
				if err != nil || len(ips) == 0 {
					m.urc(`+QIURC: "dnsgip",565`)
					return
				}
				m.urc(fmt.Sprintf(`+QIURC: "dnsgip",0,%d,300`, len(ips)))
				for _, ip := range ips {
					m.urc(fmt.Sprintf(`+QIURC: "dnsgip","%s"`, ip))
				}
			})
		})
	}}
}
