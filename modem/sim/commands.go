package sim

import (
	"strings"
	"time"
)

// The codes of +CME ERROR that the module gives (3GPP TS 27.007 9.2).
const (
	cmeNotAllowed   = 3
	cmeNotSupported = 4
	cmeNoSIM        = 10
	cmePINRequired  = 11
	cmePUKRequired  = 12
	cmeBadPassword  = 16
	cmeBadParameter = 50
)

func cmeText(code int) string {
	switch code {
	case cmeNotAllowed:
		return "operation not allowed"
	case cmeNotSupported:
		return "operation not supported"
	case cmeNoSIM:
		return "SIM not inserted"
	case cmePINRequired:
		return "SIM PIN required"
	case cmePUKRequired:
		return "SIM PUK required"
	case cmeBadPassword:
		return "incorrect password"
	case cmeBadParameter:
		return "Incorrect parameters"
	}
	return "unknown"
}

// urcFirstBy is how much later than its URC an OK comes under that trap.
const urcFirstBy = 250 * time.Millisecond

// reply collects the information lines of a command line, and what is to
// happen once its final result is written.
type reply struct {
	lines []string
	then  []func()
	raw   []byte // stands behind the last line
	final string // instead of OK
}

func (r *reply) add(line string) { r.lines = append(r.lines, line) }

// outcome is how a command ended: with OK, with an error code, or not yet.
type outcome struct {
	code int
	// then runs after the final result was given to the line.
	then func()
	// wait is for a command that takes its time: it must arrange that done is
	// called once, on the engine goroutine.
	wait func(done func(code int))
	// data asks for a prompt.
	data *dataMode
	// final, if not empty, is the final result instead of OK or an error.
	final string
}

var (
	done       = outcome{}
	notAllowed = outcome{code: cmeNotAllowed}
	badParam   = outcome{code: cmeBadParameter}
)

// settle ends a command that was waiting for its data.
func (m *Module) settle(o outcome) {
	r := new(reply)
	if o.wait == nil {
		if o.then != nil {
			r.then = append(r.then, o.then)
		}
		m.finish(r, o)
		return
	}
	m.line.busy = true
	boots := m.boots()
	o.wait(func(code int) {
		if boots == m.boots() {
			m.finish(r, outcome{code: code})
		}
	})
}

type handler func(m *Module, c call, r *reply) outcome

// The commands of the module; what is not here is not supported.
var (
	basicCommands = map[string]handler{
		"E": (*Module).ate, "I": (*Module).ati,
		"V": ignore, "Q": ignore, "X": ignore, "H": ignore, "&D": ignore, "&C": ignore, "&W": ignore,
		"Z": (*Module).atz, "&F": (*Module).atz,
	}
	extendedCommands = map[string]handler{
		"+CGMI": (*Module).cgmi, "+GMI": (*Module).cgmi,
		"+CGMM": (*Module).cgmm, "+GMM": (*Module).cgmm,
		"+CGMR": (*Module).cgmr, "+GMR": (*Module).cgmr,
		"+CGSN": (*Module).cgsn, "+GSN": (*Module).cgsn,
		"+CMEE": (*Module).cmee, "+IPR": (*Module).ipr,
		"+ECRST": (*Module).ecrst, "+CCLK": (*Module).cclk,

		"+CPIN": (*Module).cpin, "+CIMI": (*Module).cimi,
		"+CCID": (*Module).iccid, "+ECICCID": (*Module).iccid,

		"+CFUN": (*Module).cfun, "+CEREG": (*Module).cereg,
		"+CSQ": (*Module).csq, "+CESQ": (*Module).cesq, "+COPS": (*Module).cops,
		"+CGATT": (*Module).cgatt, "+CGACT": (*Module).cgact,
		"+CGPADDR": (*Module).cgpaddr,
		"+CGDCONT": (*Module).cgdcont, "+CGAUTH": (*Module).cgauth,

		"+ECMTCFG": (*Module).ecmtCfg, "+ECMTOPEN": (*Module).ecmtOpen,
		"+ECMTCONN": (*Module).ecmtConn, "+ECMTDISC": (*Module).ecmtDisc,
		"+ECMTCLOSE": (*Module).ecmtClose, "+ECMTSUB": (*Module).ecmtSub,
		"+ECMTUNS": (*Module).ecmtUns, "+ECMTPUB": (*Module).ecmtPub,

		"+QMTCFG": (*Module).qmtCfg, "+QMTOPEN": (*Module).qmtOpen,
		"+QMTCONN": (*Module).qmtConn, "+QMTDISC": (*Module).qmtLeave,
		"+QMTCLOSE": (*Module).qmtLeave, "+QMTSUB": (*Module).qmtSub,
		"+QMTUNS": (*Module).qmtUns, "+QMTPUBEX": (*Module).qmtPub,

		"+CMQTTSTART": (*Module).cmqttStart, "+CMQTTSTOP": (*Module).cmqttStop,
		"+CMQTTACCQ": (*Module).cmqttAccq, "+CMQTTREL": (*Module).cmqttRel,
		"+CMQTTCONNECT": (*Module).cmqttConnect, "+CMQTTDISC": (*Module).cmqttDisc,
		"+CMQTTWILLTOPIC": (*Module).cmqttWillTopic, "+CMQTTWILLMSG": (*Module).cmqttWillMsg,
		"+CMQTTTOPIC": (*Module).cmqttTopic, "+CMQTTPAYLOAD": (*Module).cmqttPayload,
		"+CMQTTPUB": (*Module).cmqttPub, "+CMQTTSUB": (*Module).cmqttSub,
		"+CMQTTUNSUB": (*Module).cmqttUnsub, "+CMQTTCFG": ignore,

		"+ECSOCR": (*Module).ecsoCreate, "+ECSOCO": (*Module).ecsoConnect,
		"+ECSOSD": (*Module).ecsoSend, "+ECSORF": (*Module).ecsoRead,
		"+ECSOCL": (*Module).ecsoClose, "+ECSONMI": (*Module).ecsoNotify,
		"+ECDNS": (*Module).ecdns,

		"+QIOPEN": (*Module).qiOpen, "+QISEND": (*Module).qiSend,
		"+QIRD": (*Module).qiRead, "+QICLOSE": (*Module).qiClose,
		"+QIACT": (*Module).qiAct, "+QIDNSGIP": (*Module).qiResolve, "+QGDCNT": (*Module).qgdcnt,
	}
	// plainSettings are kept and read back; nothing else comes of them.
	plainSettings = map[string]string{
		"+IFC": "0,0", "+ECSCLK": "0", "+ECSCLKEX": "0,1,1", "+CPSMS": "0", "+CEDRXS": "0",
		"+CGEREP": "0", "+CTZR": "0", "+CTZU": "1", "+CREG": "0,0", "+CGREG": "0,0",
		"+ECPMUCFG": "0", "+ECPCFG": "", "+ECNETDEVCTL": "0",
	}
)

func (m *Module) dispatch(c call, r *reply) outcome {
	m.log.Debug("command", "name", c.name)
	if !m.has(c.name) {
		return outcome{code: cmeNotSupported}
	}
	h, ok := extendedCommands[c.name]
	if !ok {
		h, ok = basicCommands[c.name]
	}
	if ok {
		return h(m, c, r)
	}
	if _, ok := plainSettings[c.name]; ok {
		return m.plain(c, r)
	}
	return outcome{code: cmeNotSupported}
}

// has reports whether this firmware was built with a command.
func (m *Module) has(name string) bool {
	sockets, dialect := "", ""
	switch {
	case name == "+QGDCNT":
		return m.opt.Sockets == SocketsQI || m.opt.Dialect == DialectQMT
	case strings.HasPrefix(name, "+ECMT"):
		dialect = DialectECMT
	case strings.HasPrefix(name, "+QMT"):
		dialect = DialectQMT
	case strings.HasPrefix(name, "+CMQTT"):
		dialect = DialectCMQTT
	case strings.HasPrefix(name, "+ECSO"):
		sockets = SocketsECSO
	case strings.HasPrefix(name, "+QI"):
		sockets = SocketsQI
	}
	return (sockets == "" || sockets == m.opt.Sockets) && (dialect == "" || dialect == m.opt.Dialect)
}

func ignore(*Module, call, *reply) outcome { return done }

// plain keeps a setting that changes nothing in a simulation.
func (m *Module) plain(c call, r *reply) outcome {
	switch c.form {
	case formRead:
		v, ok := m.set.plain[c.name]
		if !ok {
			v = plainSettings[c.name]
		}
		r.add(c.name + ": " + v)
	case formSet:
		if c.args == "" {
			return badParam
		}
		m.set.plain[c.name] = c.args
	}
	return done
}
