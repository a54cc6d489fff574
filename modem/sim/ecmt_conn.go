package sim

import (
	"fmt"
	"net"
	"time"
)

// refuseDelay stands for the way of a CONNECT to a broker that Refuse plays.
const refuseDelay = 20 * time.Millisecond

// ecmtConn is AT+ECMTCONN=0,"client id"[,"user"[,"password"]].
func (m *Module) ecmtConn(c call, r *reply) outcome {
	mq := m.mq
	switch c.form {
	case formRead:
		r.add(fmt.Sprintf("+ECMTCONN:0,%d", mq.state.reported()))
		return done
	case formTest:
		r.add(`+ECMTCONN: (0),"<clientid>"[,"<username>"[,"<password>"]]`)
		return done
	}
	a, ok := setParams(c)
	if !ok {
		return notAllowed
	}
	v := []string{a.str(maxClientID)}
	if a.more() {
		v = append(v, a.str(maxUser))
	}
	if a.more() {
		v = append(v, a.str(m.limit(maxPassword, manualPassword)))
	}
	if !a.ok() {
		return m.refuseLimit(a)
	}
	switch mq.state {
	case stateConnecting, stateConnected, stateReconnecting:
		return done // and no URC will come
	case stateOpened:
	default:
		return notAllowed
	}
	// The firmware copies them only if it got all three, and else connects
	// with what it has: the last ones, or its own name without a login.
	if len(v) == 3 {
		mq.clientID, mq.user, mq.password = v[0], v[1], v[2]
	} else {
		m.stats.mistake(MistakeCredentials)
	}
	mq.refused = 0
	m.sendConnect(mq, false)
	return done
}

// reported is the state as the read form tells it.
func (s mqttState) reported() int {
	switch s {
	case stateIdle:
		return 4
	case stateConnecting, stateReconnecting:
		return 2
	case stateConnected:
		return 3
	}
	return 1
}

// sendConnect sends CONNECT and, as soon as that is written, takes the
// connection for established: the wait for CONNACK is not in the firmware.
func (m *Module) sendConnect(mq *mqttContext, again bool) {
	s := mq.sess
	mq.state = stateConnecting
	m.stats.count(func(st *Stats) {
		st.Connects++
		if again {
			st.Reconnects++
		}
	})
	if code := m.refuse; code != 0 {
		mq.state = stateConnected
		m.after(refuseDelay, func() {
			m.connack(s, int(code))
			m.lost(s, true) // as a broker closes behind a refusal
		})
		return
	}
	p, err := connectPacket(mq)
	s.send(job{packet: p, err: err, done: func(err error) {
		switch {
		case m.mq != mq || mq.sess != s || mq.state != stateConnecting:
			// The answer was here first, and has settled it.
		case err == nil:
			mq.state = stateConnected
			m.pull()
		case again:
			m.wedge(mq)
		default:
			mq.state = stateOpened
			m.connURC(2, 2)
		}
	}})
}

// connack takes the broker's answer; 6 stands for one that is none.
func (m *Module) connack(s *session, code int) {
	mq := m.mq
	if mq.sess != s || mq.state != stateConnected && mq.state != stateConnecting {
		return
	}
	// A broker may answer before the send task has said that it has sent.
	mq.state = stateConnected
	m.pull()
	if m.snaps(m.traps.LostConnack) {
		return
	}
	if code == 0 {
		mq.refused = 0
		if mq.cfg.keepalive > 0 {
			m.keepAlive(s, time.Duration(mq.cfg.keepalive)*m.opt.KeepAliveUnit)
		}
		if m.snaps(m.traps.DoubleConn) {
			m.connURC(2, 2)
			m.after(130*time.Millisecond, func() { m.connURC(0, 0) })
			return
		}
	}
	m.connURC(0, code)
	if code != 0 {
		if mq.refused++; mq.refused > maxRefusals {
			// Enough: back to an open connection that is none any more, and
			// nobody is told.
			s.stop()
			mq.state = stateOpened
		}
	}
}

// connURC reports a result of CONN in the spelling of the day.
func (m *Module) connURC(result, code int) {
	if m.opt.Dialect != DialectECMT {
		m.loginURC(result, code)
		return
	}
	name := "+ECMTCONN: "
	switch {
	case m.snaps(m.traps.ConnShort):
		name = "+ECMTCON:"
	case m.snaps(m.traps.ConnShortSpaced):
		name = "+ECMTCON: "
	case m.snaps(m.traps.ConnTight):
		name = "+ECMTCONN:"
	}
	m.urc(fmt.Sprintf("%s0,%d,%d", name, result, code))
}

// lost is the end of a connection that nobody has asked for. The firmware says
// so, if announce is set, and connects again by itself.
func (m *Module) lost(s *session, announce bool) {
	mq := m.mq
	if mq.sess != s {
		return
	}
	s.stop()
	if mq.state != stateConnected && mq.state != stateConnecting {
		return // found out by the next send
	}
	m.log.Info("connection lost")
	if m.opt.Dialect != DialectECMT { // these do not connect again by themselves
		m.dropContext()
		m.lostURC()
		return
	}
	if m.snaps(m.traps.SpontaneousBye) {
		m.dropContext()
		m.urc("+ECMTDISC: 0,0")
		return
	}
	if announce && !m.snaps(m.traps.QuietReconnect) {
		m.urc("+ECMTSTAT: 0,1")
	}
	mq.sess, mq.inHand, mq.state = nil, false, stateReconnecting
	clear(mq.inflight) // no answer will come for these, and no URC
	m.after(m.opt.ReconnectAfter, func() { m.reconnect(mq) })
}

// breakSession is for a radio that takes its sockets away.
func (m *Module) breakSession() {
	if s := m.mq.sess; s != nil {
		m.lost(s, true)
	}
	m.breakSockets()
}

// reconnect is the firmware's own: TCP, then CONNECT with the stored login.
// Subscriptions are not sent again.
func (m *Module) reconnect(mq *mqttContext) {
	if m.mq != mq || mq.state != stateReconnecting {
		return
	}
	if !m.radio.pdn {
		m.wedge(mq)
		return
	}
	m.connectTCP(mq, func(mq *mqttContext, a *airConn, c net.Conn, err error) {
		if err != nil {
			m.wedge(mq)
			return
		}
		mq.sess = m.newSession(a, c)
		m.sendConnect(mq, true)
	})
}

// wedge is what a failed reconnect leaves: connecting, for ever. OPEN and CONN
// answer OK and do nothing, CLOSE and DISC are not allowed; a reset helps.
func (m *Module) wedge(mq *mqttContext) {
	m.log.Info("reconnect failed")
	mq.state = stateConnecting
	m.resetQueue()
	if mq.sess != nil {
		mq.sess.stop()
		mq.sess = nil
	}
}

// keepAlive pings every interval. A lost PINGRESP is only noticed, and the
// connection given up, after three further ones.
func (m *Module) keepAlive(s *session, every time.Duration) {
	m.after(every, func() {
		if m.mq.sess != s || m.mq.state != stateConnected {
			return
		}
		if s.pinging {
			if s.missed++; s.missed > maxPingRetries {
				m.lost(s, true)
				return
			}
		}
		s.pinging = true
		s.send(job{packet: pingPacket(), done: func(err error) {
			if err != nil {
				m.lost(s, false)
			}
		}})
		m.keepAlive(s, every)
	})
}
