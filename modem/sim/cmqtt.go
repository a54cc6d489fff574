package sim

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
)

const (
	cmqttMaxTopic   = 1024
	cmqttMaxPayload = 10240
)

// cmqttState is the service of SIMCom firmware with its one client. A publish is
// put together by several commands.
type cmqttState struct {
	started, acquired bool
	clientID          string
	topic, payload    []byte
	will              mqttWill
}

func (m *Module) cmqttStart(c call, _ *reply) outcome {
	if c.form != formExec {
		return notAllowed
	}
	code := 0
	if m.simcom.started {
		code = 23
	}
	m.simcom.started = true
	return outcome{then: func() { m.urc(fmt.Sprintf("+CMQTTSTART: %d", code)) }}
}

func (m *Module) cmqttStop(c call, _ *reply) outcome {
	if !m.simcom.started || m.simcom.acquired || m.mq.state != stateIdle {
		return notAllowed
	}
	m.simcom = cmqttState{}
	return outcome{then: func() { m.urc("+CMQTTSTOP: 0") }}
}

func (m *Module) cmqttAccq(c call, _ *reply) outcome {
	a, ok := setParams(c)
	id := a.str(128)
	if a.more() {
		a.int(0, 1)
	}
	if !ok || !a.ok() || id == "" || !m.simcom.started || m.simcom.acquired {
		return notAllowed
	}
	m.simcom.acquired, m.simcom.clientID = true, id
	return done
}

func (m *Module) cmqttRel(c call, _ *reply) outcome {
	if _, ok := setParams(c); !ok || !m.simcom.acquired || m.mq.state != stateIdle {
		return notAllowed
	}
	m.simcom.acquired, m.simcom.will = false, mqttWill{}
	return done
}

// cmqttConnect is AT+CMQTTCONNECT=0,"tcp://host:port",keepalive,clean[,"user","password"].
func (m *Module) cmqttConnect(c call, r *reply) outcome {
	mq := m.mq
	if c.form == formTest {
		r.add(`+CMQTTCONNECT: (0-1),"server_addr",(1-64800),(0-1)`)
		return done
	}
	a, ok := setParams(c)
	at, err := url.Parse(a.str(256))
	keepalive, clean := a.int(1, 64800), a.int(0, 1)
	user, password := "", ""
	if a.more() {
		user, password = a.str(256), a.str(256)
	}
	if !ok || !a.ok() || err != nil || at.Scheme != "tcp" || !m.simcom.acquired || mq.state != stateIdle {
		return notAllowed
	}
	host, text, err := net.SplitHostPort(at.Host)
	port, portErr := strconv.Atoi(text)
	if err != nil || portErr != nil {
		return notAllowed
	}
	if !m.radio.pdn {
		return outcome{then: func() { m.urc("+CMQTTCONNECT: 0,3") }}
	}
	mq.host, mq.port, mq.state = host, port, stateOpening
	mq.clientID, mq.user, mq.password = m.simcom.clientID, user, password
	mq.cfg.keepalive, mq.cfg.session, mq.cfg.will = keepalive, clean, m.simcom.will
	switch {
	case m.snaps(m.traps.OpenWedge):
		return done
	case m.snaps(m.traps.OpenFails):
		return outcome{then: func() { m.dropContext(); m.urc("+CMQTTCONNECT: 0,3") }}
	}
	return outcome{then: func() { m.connectTCP(mq, m.opened) }}
}

func (m *Module) cmqttDisc(c call, r *reply) outcome {
	a, ok := setParams(c)
	a.int(0, 180)
	if !ok || !a.ok() {
		return notAllowed
	}
	switch m.mq.state {
	case stateIdle:
		return notAllowed
	case stateOpening:
		m.dropContext()
		return outcome{then: func() { m.urc("+CMQTTDISC: 0,0") }}
	}
	c.args = "0"
	return m.leave(c, r)
}

// counted is a command that takes n bytes behind a prompt.
func (m *Module) counted(c call, limit int, take func(b []byte) outcome) outcome {
	a, ok := setParams(c)
	n := a.int(1, 1<<20)
	switch {
	case !ok || !a.ok() || !m.simcom.acquired:
		return notAllowed
	case n > limit:
		m.stats.mistake(MistakeLimit)
		return notAllowed
	}
	return outcome{data: &dataMode{need: n, send: func(b []byte, _ bool) outcome { return take(b) }}}
}

func (m *Module) cmqttTopic(c call, _ *reply) outcome {
	return m.counted(c, cmqttMaxTopic, func(b []byte) outcome { m.simcom.topic = b; return done })
}

func (m *Module) cmqttWillTopic(c call, _ *reply) outcome {
	return m.counted(c, cmqttMaxTopic, func(b []byte) outcome { m.simcom.will.topic = string(b); return done })
}

// cmqttWillMsg is AT+CMQTTWILLMSG=0,n,qos[,retained], behind the topic.
func (m *Module) cmqttWillMsg(c call, _ *reply) outcome {
	a, ok := setParams(c)
	n, w := a.int(1, cmqttMaxPayload), mqttWill{flag: 1, topic: m.simcom.will.topic, qos: a.int(0, 2)}
	if a.more() {
		w.retain = a.int(0, 1)
	}
	if !ok || !a.ok() || w.topic == "" || !m.simcom.acquired {
		return notAllowed
	}
	return outcome{data: &dataMode{need: n, send: func(b []byte, _ bool) outcome {
		w.msg = string(b)
		m.simcom.will = w
		return done
	}}}
}

func (m *Module) cmqttPayload(c call, _ *reply) outcome {
	return m.counted(c, cmqttMaxPayload, func(b []byte) outcome { m.simcom.payload = b; return done })
}

// cmqttPub is AT+CMQTTPUB=0,qos,timeout[,retained]: one at a time.
func (m *Module) cmqttPub(c call, _ *reply) outcome {
	a, ok := setParams(c)
	p := publish{id: 1, qos: a.int(0, 2), topic: string(m.simcom.topic)}
	a.int(60, 180)
	if a.more() {
		p.retain = a.int(0, 1) == 1
	}
	mq := m.mq
	if !ok || !a.ok() || p.topic == "" || m.simcom.payload == nil || mq.state != stateConnected {
		return notAllowed
	}
	if len(mq.inflight) > 0 {
		m.stats.mistake(MistakeWindow)
		return notAllowed
	}
	payload := m.simcom.payload
	m.simcom.topic, m.simcom.payload = nil, nil
	return m.publish(p, payload)
}

// cmqttSub is AT+CMQTTSUB=0,bytes,qos, and the filter behind a prompt.
func (m *Module) cmqttSub(c call, _ *reply) outcome {
	a, ok := setParams(c)
	n, qos := a.int(1, cmqttMaxTopic), a.int(0, 2)
	if !ok || !a.ok() || m.mq.state != stateConnected {
		return notAllowed
	}
	return outcome{data: &dataMode{need: n, send: func(b []byte, _ bool) outcome {
		p, err := subscribePacket(1, string(b), qos)
		return m.request(p, err, "+CMQTTSUB: 0,11")
	}}}
}

// cmqttUnsub is AT+CMQTTUNSUB=0,bytes[,dup], and the filter behind a prompt.
func (m *Module) cmqttUnsub(c call, _ *reply) outcome {
	a, ok := setParams(c)
	n := a.int(1, cmqttMaxTopic)
	if a.more() {
		a.int(0, 1)
	}
	if !ok || !a.ok() || m.mq.state != stateConnected {
		return notAllowed
	}
	return outcome{data: &dataMode{need: n, send: func(b []byte, _ bool) outcome {
		p, err := unsubscribePacket(1, string(b))
		return m.request(p, err, "+CMQTTUNSUB: 0,11")
	}}}
}

// cmqttReceived writes a group; a long payload is in several pieces.
func (m *Module) cmqttReceived(topic string, payload []byte) {
	m.urc(fmt.Sprintf("+CMQTTRXSTART: 0,%d,%d", len(topic), len(payload)))
	m.piece("+CMQTTRXTOPIC", []byte(topic))
	for len(payload) > 0 {
		n := min(len(payload), 1024)
		m.piece("+CMQTTRXPAYLOAD", payload[:n])
		payload = payload[n:]
	}
	m.urc("+CMQTTRXEND: 0")
}

func (m *Module) piece(name string, b []byte) {
	if m.line.off {
		return
	}
	head := appendLine(nil, fmt.Sprintf("%s: 0,%d", name, len(b)))
	m.emit(append(head, b...))
}
