package sim

import (
	"fmt"
	"strings"
)

// mqttConfig is what AT+ECMTCFG sets. Only keepalive, session, version, will,
// cloud and ssl have an effect; the firmware stores the rest and never looks.
type mqttConfig struct {
	keepalive, session, version int
	will                        mqttWill
	timeout                     [3]int
	dataformat                  [2]int
	echomode                    int
	cloud                       [2]int
	aliauth                     []string
	ssl                         []string
	counted                     bool // QMT: received payloads have their length
}

type mqttWill struct {
	flag, qos, retain int
	topic, msg        string
}

const (
	cloudOneNET = 1
	cloudAli    = 2
)

func defaultConfig() mqttConfig {
	return mqttConfig{keepalive: 120, version: 4, timeout: [3]int{10, 3, 0}, cloud: [2]int{0, 1}}
}

// ecmtCfg is AT+ECMTCFG="item",0[,values]. Without values it reads. The test
// form has no space behind its colon, the others have.
func (m *Module) ecmtCfg(c call, r *reply) outcome {
	switch c.form {
	case formTest:
		for _, s := range []string{
			`"keepalive",(0),(0-3600)`, `"session",(0),(0,1)`, `"version",(0),(3,4)`,
			`"will",(0),(0,1),(0-2),(0,1),"<will_topic>","<will_msg>"`,
			`"timeout",(0),(1-60),(1-10),(0,1)`, `"dataformat",(0),(0,1),(0,1)`,
			`"echomode",(0),(0,1)`, `"cloud",(0),(0-255),(0-255)`,
			`"aliauth",(0),"<productkey>","<devicename>","<devicesecret>"`,
			`"ssl",("psk","ecc","ca")`,
		} {
			r.add("+ECMTCFG:" + s)
		}
		return done
	case formSet:
	default:
		return notAllowed
	}
	a := &args{s: c.args}
	item := a.str(16)
	if item == "ssl" { // the one item without a connection id
		return m.cfgSSL(a)
	}
	a.int(0, 0)
	if a.bad {
		m.stats.mistake(MistakeNoContext)
		return notAllowed
	}
	if !a.more() {
		return m.cfgRead(item, r)
	}
	next := m.mq.cfg
	if !next.take(item, a) || !a.ok() {
		return m.refuseLimit(a)
	}
	m.mq.cfg = next
	return done
}

// take reads the values of one item.
func (k *mqttConfig) take(item string, a *args) bool {
	switch item {
	case "keepalive":
		k.keepalive = a.int(0, 3600)
	case "session":
		k.session = a.int(0, 1)
	case "version":
		k.version = a.int(3, 4)
	case "will":
		k.will = mqttWill{flag: a.int(0, 1)}
		if k.will.flag == 1 || a.more() {
			k.will.qos, k.will.retain = a.int(0, 2), a.int(0, 1)
			k.will.topic, k.will.msg = a.str(maxTopic), a.str(maxWill)
		}
	case "timeout":
		k.timeout[0] = a.int(1, 60)
		if a.more() {
			k.timeout[1] = a.int(1, 10)
		}
		if a.more() {
			k.timeout[2] = a.int(0, 1)
		}
	case "dataformat":
		k.dataformat = [2]int{a.int(0, 1), a.int(0, 1)}
	case "echomode":
		k.echomode = a.int(0, 1)
	case "cloud":
		k.cloud = [2]int{a.int(0, 255), 1}
		if a.more() {
			k.cloud[1] = a.int(0, 255)
		}
	case "aliauth":
		k.aliauth = []string{a.str(32), a.str(32), a.str(64)}
		for n := 3; n < 12 && a.more(); n++ {
			k.aliauth = append(k.aliauth, a.str(64))
		}
	default:
		return false
	}
	return !a.bad
}

func (m *Module) cfgRead(item string, r *reply) outcome {
	k := &m.mq.cfg
	var v string
	switch item {
	case "keepalive":
		v = fmt.Sprint(k.keepalive)
	case "session":
		v = fmt.Sprint(k.session)
	case "version":
		v = fmt.Sprint(k.version)
	case "will":
		w := k.will
		v = fmt.Sprintf(`%d,%d,%d,"%s","%s"`, w.flag, w.qos, w.retain, w.topic, w.msg)
	case "timeout":
		v = fmt.Sprintf("%d,%d,%d", k.timeout[0], k.timeout[1], k.timeout[2])
	case "dataformat":
		v = fmt.Sprintf("%d,%d", k.dataformat[0], k.dataformat[1])
	case "echomode":
		v = fmt.Sprint(k.echomode)
	case "cloud":
		v = fmt.Sprintf("%d,%d", k.cloud[0], k.cloud[1])
	case "aliauth":
		v = `"` + strings.Join(k.aliauth, `","`) + `"`
	default:
		return notAllowed
	}
	r.add(fmt.Sprintf(`+ECMTCFG: "%s",%s`, item, v))
	return done
}
