package sim

import "fmt"

const (
	qmtMaxPayload = 4096
	qmtMaxTopic   = 256
)

// qmtCfg is AT+QMTCFG="item",0,values.
func (m *Module) qmtCfg(c call, r *reply) outcome {
	if c.form == formTest {
		r.add(`+QMTCFG: "version",(0-5),(3,4)`)
		return done
	}
	a := &args{s: c.args}
	item := a.str(16)
	a.int(0, 5)
	next := m.mq.cfg
	switch item {
	case "version":
		next.version = a.int(3, 4)
	case "session":
		next.session = a.int(0, 1)
	case "keepalive":
		next.keepalive = a.int(0, 3600)
	case "will":
		if next.will.flag = a.int(0, 1); next.will.flag == 1 {
			next.will.qos, next.will.retain = a.int(0, 2), a.int(0, 1)
			next.will.topic, next.will.msg = a.str(255), a.str(255)
		}
	case "recv/mode":
		a.int(0, 0) // 1, reading on demand, is not simulated
		next.counted = a.int(0, 1) == 1
	case "dataformat":
		a.int(0, 0)
		a.int(0, 0)
	case "timeout":
		a.int(1, 60)
		a.int(0, 10)
		a.int(0, 1)
	default:
		return notAllowed
	}
	if c.form != formSet || !a.ok() {
		return notAllowed
	}
	m.mq.cfg = next
	return done
}

// qmtOpen is AT+QMTOPEN=0,"host",port.
func (m *Module) qmtOpen(c call, r *reply) outcome {
	mq := m.mq
	switch c.form {
	case formTest:
		r.add(`+QMTOPEN: (0-5),"hostname",(1-65535)`)
		return done
	case formRead:
		if mq.state != stateIdle {
			r.add(fmt.Sprintf(`+QMTOPEN: 0,"%s",%d`, mq.host, mq.port))
		}
		return done
	}
	a, ok := setParams(c)
	host, port := a.str(100), a.int(1, 65535)
	if !ok || !a.ok() {
		return notAllowed
	}
	switch {
	case mq.state != stateIdle:
		return outcome{then: func() { m.urc("+QMTOPEN: 0,2") }}
	case !m.radio.pdn:
		return outcome{then: func() { m.urc("+QMTOPEN: 0,3") }}
	}
	mq.host, mq.port, mq.state = host, port, stateOpening
	switch {
	case m.snaps(m.traps.OpenWedge):
	case m.snaps(m.traps.OpenFails):
		return outcome{then: func() { m.dropContext(); m.urc("+QMTOPEN: 0,-1") }}
	default:
		m.connectTCP(mq, m.opened)
	}
	return done
}

// qmtConn is AT+QMTCONN=0,"client id"[,"user","password"].
func (m *Module) qmtConn(c call, r *reply) outcome {
	mq := m.mq
	if c.form == formRead {
		state := 1
		if mq.state == stateConnecting {
			state = 2
		} else if mq.state == stateConnected {
			state = 3
		}
		r.add(fmt.Sprintf("+QMTCONN: 0,%d", state))
		return done
	}
	a, ok := setParams(c)
	if !ok {
		return notAllowed
	}
	mq.clientID, mq.user, mq.password = a.str(255), "", ""
	if a.more() {
		mq.user, mq.password = a.str(255), a.str(255)
	}
	if !a.ok() || mq.state != stateOpened {
		return notAllowed
	}
	return outcome{then: func() {
		if m.mq == mq && mq.sess != nil {
			m.sendConnect(mq, false)
		}
	}}
}

// qmtLeave is AT+QMTDISC=0 and AT+QMTCLOSE=0.
func (m *Module) qmtLeave(c call, r *reply) outcome {
	if a, ok := setParams(c); ok && a.ok() && m.mq.state == stateOpening { // not opened yet
		m.dropContext()
		return outcome{then: func() { m.urc(c.name + ": 0,0") }}
	}
	return m.leave(c, r)
}

// qmtSub is AT+QMTSUB=0,id,"filter",qos.
func (m *Module) qmtSub(c call, _ *reply) outcome {
	a, ok := setParams(c)
	id, filter, qos := a.int(1, 65535), a.str(qmtMaxTopic), a.int(0, 2)
	if !ok || !a.ok() || filter == "" {
		return m.refuseLimit(a)
	}
	p, err := subscribePacket(id, filter, qos)
	return m.request(p, err, fmt.Sprintf("+QMTSUB: 0,%d,2", id))
}

// qmtUns is AT+QMTUNS=0,id,"filter".
func (m *Module) qmtUns(c call, _ *reply) outcome {
	a, ok := setParams(c)
	id, filter := a.int(1, 65535), a.str(qmtMaxTopic)
	if !ok || !a.ok() || filter == "" {
		return m.refuseLimit(a)
	}
	p, err := unsubscribePacket(id, filter)
	return m.request(p, err, fmt.Sprintf("+QMTUNS: 0,%d,2", id))
}

// qmtPub is AT+QMTPUBEX=0,id,qos,retain,"topic",bytes: a prompt, and exactly so
// many bytes.
func (m *Module) qmtPub(c call, r *reply) outcome {
	if c.form == formTest {
		r.add(fmt.Sprintf(`+QMTPUBEX: (0-5),(0-65535),(0-2),(0,1),"topic",(1-%d)`, qmtMaxPayload))
		return done
	}
	a, ok := setParams(c)
	p := publish{id: a.int(0, 65535), qos: a.int(0, 2)}
	p.retain = a.int(0, 1) == 1
	p.topic = a.str(qmtMaxTopic)
	n := a.int(1, 1<<20)
	switch {
	case !ok || !a.ok() || p.topic == "" || (p.id == 0) != (p.qos == 0):
		return m.refuseLimit(a)
	case n > qmtMaxPayload:
		m.stats.mistake(MistakeLimit)
		return outcome{code: 601}
	case m.mq.state != stateConnected:
		m.stats.mistake(MistakeTooEarly)
		return notAllowed
	}
	return outcome{data: &dataMode{need: n, send: func(b []byte, _ bool) outcome { return m.publish(p, b) }}}
}

// qmtReceived writes +QMTRECV, with the count if that was asked for.
func (m *Module) qmtReceived(id int, topic string, payload []byte) {
	count := ""
	if m.mq.cfg.counted {
		count = fmt.Sprintf("%d,", len(payload))
	}
	m.urc(fmt.Sprintf(`+QMTRECV: 0,%d,"%s",%s"%s"`, id, topic, count, payload))
}
