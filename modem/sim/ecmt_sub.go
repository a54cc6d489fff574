package sim

import (
	"bytes"
	"fmt"
)

// ecmtSub is AT+ECMTSUB=0,id,"filter",qos.
func (m *Module) ecmtSub(c call, r *reply) outcome {
	if c.form == formTest {
		r.add(`+ECMTSUB: (0),<msgID>,"<topic>",(0-2)`)
		return done
	}
	a, ok := setParams(c)
	if !ok {
		return notAllowed
	}
	id, filter, qos := a.int(1, 65535), a.str(maxTopic), a.int(0, 2)
	if !a.ok() || filter == "" {
		return m.refuseLimit(a)
	}
	p, err := subscribePacket(id, filter, qos)
	return m.request(p, err, fmt.Sprintf("+ECMTSUB: 0,%d,2,0", id))
}

// ecmtUns is AT+ECMTUNS=0,id,"filter".
func (m *Module) ecmtUns(c call, r *reply) outcome {
	if c.form == formTest {
		r.add(`+ECMTUNS: (0),<msgID>,"<topic>"`)
		return done
	}
	a, ok := setParams(c)
	if !ok {
		return notAllowed
	}
	id, filter := a.int(1, 65535), a.str(maxTopic)
	if !a.ok() || filter == "" {
		return m.refuseLimit(a)
	}
	p, err := unsubscribePacket(id, filter)
	return m.request(p, err, fmt.Sprintf("+ECMTUNS: 0,%d,2", id))
}

// request queues a subscribe or unsubscribe beside the publishes.
func (m *Module) request(p []byte, err error, failed string) outcome {
	mq := m.mq
	if mq.state != stateConnected {
		m.stats.mistake(MistakeTooEarly)
		return notAllowed
	}
	if len(p) > m.packetLimit() {
		err = errTooLong
	}
	m.push(job{packet: p, err: err, done: func(err error) {
		if err != nil {
			m.urc(failed)
		}
	}})
	return done
}

// suback reports how many codes there were, not what they said: a refused
// subscription looks like a granted one.
func (m *Module) suback(id int, granted []byte) {
	codes := len(granted)
	if m.opt.Dialect != DialectECMT {
		m.subURC(id, granted)
		return
	}
	result := 0
	if codes == 0 {
		result = 1
	}
	m.urc(fmt.Sprintf("+ECMTSUB: 0,%d,%d,%d", id, result, codes))
}

// unsuback: the one of SIMCom has no identifier.
func (m *Module) unsuback(id int) {
	switch m.opt.Dialect {
	case DialectQMT:
		m.urc(fmt.Sprintf("+QMTUNS: 0,%d,0", id))
	case DialectCMQTT:
		m.urc("+CMQTTUNSUB: 0,0")
	default:
		m.urc(fmt.Sprintf("+ECMTUNS: 0,%d,0", id))
	}
}

// received writes +ECMTRECV. There is no length, there are no quotes, and what
// has a NUL ends there: the firmware's printf knows no better. A CR LF in the
// payload is one on the line.
func (m *Module) received(id int, topic string, payload []byte) {
	m.stats.count(func(s *Stats) { s.Received++ })
	switch m.opt.Dialect {
	case DialectQMT:
		m.qmtReceived(id, topic, payload)
		return
	case DialectCMQTT:
		m.cmqttReceived(topic, payload)
		return
	}
	payload = bytes.TrimLeft(payload, "\x00")
	payload, _, _ = bytes.Cut(payload, []byte{0})
	quote := ""
	if m.snaps(m.traps.QuotedRecv) {
		quote = `"`
	}
	m.urc(fmt.Sprintf(`+ECMTRECV: 0,%d,"%s",%s%s%s`, id, topic, quote, payload, quote))
}
