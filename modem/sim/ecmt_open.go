package sim

import (
	"context"
	"fmt"
	"net"
	"strconv"
)

// ecmtOpen is AT+ECMTOPEN=0,"host",port: the TCP connection.
func (m *Module) ecmtOpen(c call, r *reply) outcome {
	mq := m.mq
	switch c.form {
	case formRead:
		if mq.state != stateIdle {
			r.add(fmt.Sprintf(`+ECMTOPEN:0,"%s",%d`, mq.host, mq.port))
		}
		return done
	case formTest:
		r.add(`+ECMTOPEN: (0),"<host_name>",(1-65535)`)
		return done
	}
	a, ok := setParams(c)
	if !ok {
		return notAllowed
	}
	host, port := a.str(m.limit(maxHost, manualHost)), a.int(1, 65535)
	if !a.ok() || host == "" {
		return m.refuseLimit(a)
	}
	if !m.radio.pdn {
		return notAllowed
	}
	m.resetQueue()
	if mq.state != stateIdle {
		return done // and no URC will come
	}
	mq.host, mq.port, mq.state = host, port, stateOpening
	switch {
	case m.snaps(m.traps.OpenWedge):
	case m.snaps(m.traps.OpenFails):
		m.after(0, func() { m.opened(mq, nil, nil, net.ErrClosed) })
	default:
		m.connectTCP(mq, m.opened)
	}
	return done
}

// connectTCP dials, and hands the result to then on the engine goroutine,
// unless the context is gone by that time.
func (m *Module) connectTCP(mq *mqttContext, then func(*mqttContext, *airConn, net.Conn, error)) {
	addr := net.JoinHostPort(mq.host, strconv.Itoa(mq.port))
	ssl := mq.cfg.ssl
	m.spawn(func() {
		ctx, cancel := context.WithTimeout(mq.ctx, m.opt.ConnectTimeout)
		defer cancel()
		var conn net.Conn
		a, err := m.dial(ctx, addr)
		if err == nil {
			if conn, err = secure(ctx, a, ssl, mq.host); err != nil {
				a.Close()
			}
		}
		m.post(func() {
			switch {
			case m.mq == mq:
				then(mq, a, conn, err)
			case a != nil:
				a.Close()
			}
		})
	})
}

func (m *Module) opened(mq *mqttContext, a *airConn, c net.Conn, err error) {
	if m.mq != mq {
		return
	}
	if err != nil {
		m.log.Info("open failed", "err", err)
		m.dropContext() // with all that ECMTCFG had set
		m.openURC(false)
		return
	}
	mq.state = stateOpened
	mq.sess = m.newSession(a, c)
	m.openURC(true)
}

// ecmtDisc is AT+ECMTDISC=0. Like CLOSE it ends the connection and forgets the
// configuration.
func (m *Module) ecmtDisc(c call, r *reply) outcome { return m.leave(c, r) }

// ecmtClose is AT+ECMTCLOSE=0.
func (m *Module) ecmtClose(c call, r *reply) outcome { return m.leave(c, r) }

func (m *Module) leave(c call, r *reply) outcome {
	if c.form == formTest {
		r.add(c.name + ": (0)")
		return done
	}
	a, ok := setParams(c)
	mq := m.mq
	if !ok || !a.ok() || mq.state != stateOpened && mq.state != stateConnected {
		return notAllowed
	}
	s, boots, polite := mq.sess, m.boots(), mq.state == stateConnected
	m.resetQueue()
	mq.cancel()
	m.mq = newContext(m.ctx)
	m.spawn(func() {
		result := 0
		if err := s.bye(polite); err != nil {
			result = -1
		}
		m.post(func() {
			if boots == m.boots() {
				m.urc(fmt.Sprintf("%s: 0,%d", c.name, result))
			}
		})
	})
	return done
}
