package sim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// cfun: 3GPP TS 27.007 8.2. 1 is full function, 0 and 4 are without radio; a
// second parameter of 1 resets the module.
func (m *Module) cfun(c call, r *reply) outcome {
	switch c.form {
	case formRead:
		r.add("+CFUN: " + strconv.Itoa(m.functionality()))
		return done
	case formTest:
		r.add("+CFUN: (0,1,4),(0,1)")
		return done
	case formExec:
		return badParam
	}
	a := args{s: c.args}
	fun, reset := a.int(0, 4), 0
	if a.more() {
		reset = a.int(0, 1)
	}
	switch {
	case !a.ok() || fun == 2 || fun == 3:
		return badParam
	case reset == 1:
		return outcome{then: func() { m.after(rebootAfter, m.reboot) }}
	}
	return outcome{then: func() {
		m.radio.fun, m.radio.off = fun, fun != 1
		if fun == 1 && m.sim.fault() == 0 {
			m.urc("+CPIN: READY")
		}
		m.updateRadio(false)
	}}
}

func (m *Module) functionality() int {
	if !m.radio.off {
		return 1
	}
	return m.radio.fun
}

// cereg: 3GPP TS 27.007 10.1.22.
func (m *Module) cereg(c call, r *reply) outcome {
	if c.form == formRead {
		r.add(fmt.Sprintf("+CEREG: %d,%s", m.set.cereg, m.ceregState()))
		return done
	}
	return setInt(c, r, &m.set.cereg, 2)
}

func (m *Module) ceregState() string {
	s := strconv.Itoa(m.radio.stat)
	if m.set.cereg == 2 && m.radio.stat == registeredHome {
		s += fmt.Sprintf(`,"%s","%s",%s`, cellTAC, cellID, accessLTE)
	}
	return s
}

// csq: 3GPP TS 27.007 8.5; 99 is not known.
func (m *Module) csq(c call, r *reply) outcome {
	switch {
	case c.form == formTest:
		r.add("+CSQ: (0-31,99),(0-7,99)")
	case c.form != formExec:
		return badParam
	case !m.radio.link || m.radio.off:
		r.add("+CSQ: 99,99")
	case m.signal != 0:
		r.add(fmt.Sprintf("+CSQ: %d,0", (m.signal-minSignal)/2))
	default:
		r.add(fmt.Sprintf("+CSQ: %d,0", 20+m.radio.gen%5))
	}
	return done
}

// cesq: 3GPP TS 27.007 8.69; 255 (99 for the first) is not known. The RSRQ is
// -10 dB, the RSRP -95 dBm.
func (m *Module) cesq(c call, r *reply) outcome {
	switch {
	case c.form == formTest:
		r.add("+CESQ: (0-63,99),(0-7,99),(0-96,255),(0-49,255),(0-34,255),(0-97,255)")
	case c.form != formExec:
		return badParam
	case !m.radio.link || m.radio.off:
		r.add("+CESQ: 99,99,255,255,255,255")
	case m.signal != 0: // a resource element has a part of it
		r.add(fmt.Sprintf("+CESQ: 99,99,255,255,20,%d", max(0, m.signal-24+141)))
	default:
		r.add("+CESQ: 99,99,255,255,20,46")
	}
	return done
}

// cops: 3GPP TS 27.007 7.3. The operator is only there when registered.
func (m *Module) cops(c call, r *reply) outcome {
	switch {
	case c.form == formTest:
		r.add(`+COPS: (1,"Holdfast Mobile","HOLDFAST","00101",7),,(0-4),(0-2)`)
	case c.form == formSet:
	case c.form != formRead:
		return badParam
	case m.radio.stat != registeredHome:
		r.add("+COPS: 0")
	default:
		r.add(`+COPS: 0,0,"Holdfast Mobile",7`)
	}
	return done
}

// cgatt: 3GPP TS 27.007 10.1.9.
func (m *Module) cgatt(c call, r *reply) outcome {
	if c.form == formRead {
		r.add("+CGATT: " + bit(m.radio.pdn))
	} else if c.form == formSet && c.args != "0" && c.args != "1" {
		return badParam
	}
	return done
}

// cgact: 3GPP TS 27.007 10.1.10.
func (m *Module) cgact(c call, r *reply) outcome {
	if c.form == formRead {
		r.add("+CGACT: 1," + bit(m.radio.pdn))
	}
	return done
}

// cgpaddr: 3GPP TS 27.007 10.1.14. Without a connection there is no address.
func (m *Module) cgpaddr(c call, r *reply) outcome {
	if c.form == formTest {
		r.add("+CGPADDR: (1)")
		return done
	}
	if m.radio.pdn {
		r.add(`+CGPADDR: 1,"` + ipAddress + `"`)
	} else {
		r.add("+CGPADDR: 1")
	}
	return done
}

// cgdcont: 3GPP TS 27.007 10.1.1. Any access point name is good here.
func (m *Module) cgdcont(c call, r *reply) outcome {
	switch c.form {
	case formRead:
		for _, cid := range slices.Sorted(maps.Keys(m.set.pdp)) {
			r.add(fmt.Sprintf("+CGDCONT: %d,%s", cid, m.set.pdp[cid]))
		}
	case formTest:
		for _, t := range []string{"IP", "IPV6", "IPV4V6"} {
			r.add(`+CGDCONT: (1-15),"` + t + `",,,(0),(0)`)
		}
	case formSet:
		return m.setPDP(c.args)
	default:
		return badParam
	}
	return done
}

func (m *Module) setPDP(list string) outcome {
	a := args{s: list}
	cid := a.int(1, 15)
	if a.ok() {
		delete(m.set.pdp, cid) // a context number alone undefines it
		return done
	}
	kind, apn := a.str(6), ""
	if a.more() {
		apn = a.str(100)
	}
	if a.bad || kind != "IP" && kind != "IPV6" && kind != "IPV4V6" {
		return badParam
	}
	m.set.pdp[cid] = fmt.Sprintf("%q,%q", kind, apn)
	return done
}

// cgauth: 3GPP TS 27.007 10.1.31. The password is not read back.
func (m *Module) cgauth(c call, r *reply) outcome {
	switch c.form {
	case formRead:
		for _, cid := range slices.Sorted(maps.Keys(m.set.auth)) {
			r.add(fmt.Sprintf("+CGAUTH: %d,1", cid))
		}
	case formTest:
		r.add("+CGAUTH: (1-15),(0-2),64,64")
	case formSet:
		a := args{s: c.args}
		cid, kind := a.int(1, 15), a.int(0, 2)
		for a.more() {
			a.str(64)
		}
		if !a.ok() {
			return badParam
		}
		delete(m.set.auth, cid)
		if kind > 0 {
			m.set.auth[cid] = true
		}
	default:
		return badParam
	}
	return done
}

func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
