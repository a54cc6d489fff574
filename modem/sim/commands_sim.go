package sim

// simCard is the SIM: 3GPP TS 27.007 8.3.
type simCard struct {
	absent bool
	locked bool
	tries  int // wrong PINs left, kept by the card; below 0 it asks for the PUK
}

const pinTries = 3

func (s *simCard) insert(o *Options) {
	s.absent, s.locked = o.NoSIM, o.PIN != ""
	if s.tries == 0 {
		s.tries = pinTries
	}
}

// fault is the code for what keeps the SIM from being used, 0 for nothing.
func (s *simCard) fault() int {
	switch {
	case s.absent:
		return cmeNoSIM
	case s.tries < 0:
		return cmePUKRequired
	case s.locked:
		return cmePINRequired
	}
	return 0
}

func (m *Module) cpin(c call, r *reply) outcome {
	fault := m.sim.fault()
	switch c.form {
	case formRead:
		switch fault {
		case cmeNoSIM:
			return outcome{code: fault}
		case cmePUKRequired:
			r.add("+CPIN: SIM PUK")
		case cmePINRequired:
			r.add("+CPIN: SIM PIN")
		default:
			r.add("+CPIN: READY")
		}
	case formSet:
		return m.enterPIN(c.args, fault)
	case formTest:
	default:
		return badParam
	}
	return done
}

// enterPIN counts the wrong ones: a driver that tries the same PIN again and
// again locks the card of a gateway that nobody is near.
func (m *Module) enterPIN(list string, fault int) outcome {
	a := args{s: list}
	pin, _ := a.next()
	switch {
	case !a.ok() || pin == "":
		return badParam
	case fault == 0: // 8.3: no PIN is asked for
		return notAllowed
	case fault != cmePINRequired:
		return outcome{code: fault}
	case pin != m.opt.PIN:
		if m.sim.tries--; m.sim.tries == 0 {
			m.sim.tries = -1
			return outcome{code: cmePUKRequired}
		}
		return outcome{code: cmeBadPassword}
	}
	m.sim.locked, m.sim.tries = false, pinTries
	return outcome{then: func() {
		m.urc("+CPIN: READY")
		m.updateRadio(false)
	}}
}

// cimi: 3GPP TS 27.007 5.6.
func (m *Module) cimi(c call, r *reply) outcome { return m.ofSIM(c, r, m.opt.IMSI) }

func (m *Module) iccid(c call, r *reply) outcome {
	if c.form == formRead {
		c.form = formExec
	}
	return m.ofSIM(c, r, c.name+": "+m.opt.ICCID)
}

func (m *Module) ofSIM(c call, r *reply, line string) outcome {
	if c.form == formTest {
		return done
	}
	fault := m.sim.fault()
	if c.name != "+CIMI" && fault != cmeNoSIM {
		fault = 0 // the card's own number is readable without a PIN
	}
	switch {
	case c.form != formExec:
		return badParam
	case fault != 0:
		return outcome{code: fault}
	}
	r.add(line)
	return done
}
