package sim

import "fmt"

// The dialects of the MQTT commands.
const (
	DialectECMT  = "ecmt"
	DialectQMT   = "qmt"
	DialectCMQTT = "cmqtt"
)

// The same client says the same things in each dialect's own words.

// packetLimit is the size of the packet buffers.
func (m *Module) packetLimit() int {
	switch m.opt.Dialect {
	case DialectQMT:
		return qmtMaxPayload + 512
	case DialectCMQTT:
		return cmqttMaxPayload + 2048
	}
	return maxPacket
}

func (m *Module) openURC(ok bool) {
	switch m.opt.Dialect {
	case DialectQMT:
		if ok {
			m.urc("+QMTOPEN: 0,0")
		} else {
			m.urc("+QMTOPEN: 0,5")
		}
	case DialectCMQTT:
		if ok {
			m.sendConnect(m.mq, false)
		} else {
			m.urc("+CMQTTCONNECT: 0,3")
		}
	default:
		if ok {
			m.urc("+ECMTOPEN: 0,0")
		} else {
			m.urc("+ECMTOPEN: 0,-1")
		}
	}
}

// loginURC tells the result of a login; result is 2 if it could not be sent.
func (m *Module) loginURC(result, code int) {
	switch {
	case m.opt.Dialect == DialectQMT && result != 0:
		m.urc(fmt.Sprintf("+QMTCONN: 0,%d", result))
	case m.opt.Dialect == DialectQMT:
		m.urc(fmt.Sprintf("+QMTCONN: 0,0,%d", code))
	case result != 0:
		m.urc("+CMQTTCONNECT: 0,11")
	case code == 0:
		m.urc("+CMQTTCONNECT: 0,0")
	default:
		m.urc(fmt.Sprintf("+CMQTTCONNECT: 0,%d", 26+code))
	}
}

func (m *Module) lostURC() {
	if m.opt.Dialect == DialectQMT {
		m.urc("+QMTSTAT: 0,1")
		return
	}
	m.urc("+CMQTTCONNLOST: 0,1")
}

// pubURC tells what came of a publish: 0 acknowledged, 2 not sent.
func (m *Module) pubURC(id, result int) {
	switch m.opt.Dialect {
	case DialectQMT:
		name := "+QMTPUBEX"
		if m.snaps(m.traps.OldPubName) {
			name = "+QMTPUB"
		}
		if result == 0 && m.snaps(m.traps.Resent) {
			m.urc(fmt.Sprintf("%s: 0,%d,1,1", name, id))
		}
		m.urc(fmt.Sprintf("%s: 0,%d,%d", name, id, result))
	case DialectCMQTT:
		if result != 0 {
			result = 11
		}
		m.urc(fmt.Sprintf("+CMQTTPUB: 0,%d", result))
	default:
		m.urc(fmt.Sprintf("+ECMTPUB: 0,%d,%d", id, result))
	}
}

func (m *Module) subURC(id int, granted []byte) {
	code := 128
	if len(granted) > 0 {
		code = int(granted[0])
	}
	switch {
	case m.opt.Dialect == DialectQMT:
		m.urc(fmt.Sprintf("+QMTSUB: 0,%d,0,%d", id, code))
	case code == 128:
		m.urc("+CMQTTSUB: 0,12")
	default:
		m.urc("+CMQTTSUB: 0,0")
	}
}
