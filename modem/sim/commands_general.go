package sim

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The module's names, which dialect detection reads.
const (
	manufacturer = "EIGENCOMM"
	model        = "EC618"
	revision     = "EC618_CAT1_SIM_V1.0"
)

// localZone is the operator's time zone in quarters of an hour: not 0, so that
// a host that ignores the zone of +CCLK shows.
const localZone = 8

// settings are those of the command line; a reboot resets all but the speed.
type settings struct {
	echo  bool
	cmee  int
	cereg int
	plain map[string]string
	pdp   map[int]string // +CGDCONT, by cid, as it was given
	auth  map[int]bool   // +CGAUTH, by cid
}

func (s *settings) reset() {
	*s = settings{
		echo:  true,
		plain: make(map[string]string),
		pdp:   map[int]string{1: `"IP","cmnet"`},
		auth:  make(map[int]bool),
	}
}

func (m *Module) ate(c call, _ *reply) outcome {
	switch c.args {
	case "", "0":
		m.set.echo = false
	case "1":
		m.set.echo = true
	default:
		return badParam
	}
	return done
}

func (m *Module) ati(c call, r *reply) outcome {
	r.add(manufacturer)
	r.add(model)
	r.add("Revision: " + revision)
	return done
}

// atz is ATZ and AT&F: the command line's settings as after a boot. The MQTT
// context and the radio do not change (V.250 6.1.1, 6.1.2).
func (m *Module) atz(call, *reply) outcome {
	pdp, auth := m.set.pdp, m.set.auth
	m.set.reset()
	m.set.pdp, m.set.auth = pdp, auth
	return done
}

func (m *Module) cgmi(c call, r *reply) outcome { return info(c, r, manufacturer) }
func (m *Module) cgmm(c call, r *reply) outcome { return info(c, r, model) }
func (m *Module) cgmr(c call, r *reply) outcome { return info(c, r, revision) }

func info(c call, r *reply, s string) outcome {
	switch c.form {
	case formExec:
		r.add(s)
	case formTest:
	default:
		return badParam
	}
	return done
}

// cgsn: 3GPP TS 27.007 5.4.
func (m *Module) cgsn(c call, r *reply) outcome {
	switch {
	case c.form == formExec, c.form == formSet && c.args == "0":
		r.add(m.opt.IMEI)
	case c.form == formSet && c.args == "1":
		r.add(`+CGSN: "` + m.opt.IMEI + `"`)
	case c.form == formTest:
		r.add("+CGSN: (0,1)")
	default:
		return badParam
	}
	return done
}

// cmee: 3GPP TS 27.007 9.1.
func (m *Module) cmee(c call, r *reply) outcome {
	return setInt(c, r, &m.set.cmee, 2)
}

// setInt is a setting of 0 to limit.
func setInt(c call, r *reply, v *int, limit int) outcome {
	switch c.form {
	case formRead:
		r.add(c.name + ": " + strconv.Itoa(*v))
	case formTest:
		r.add(fmt.Sprintf("%s: (0-%d)", c.name, limit))
	case formSet:
		a := args{s: c.args}
		n := a.int(0, limit)
		if !a.ok() {
			return badParam
		}
		*v = n
	default:
		return badParam
	}
	return done
}

var baudRates = map[int]uint32{
	0: 0, 9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400, 57600: unix.B57600,
	115200: unix.B115200, 230400: unix.B230400, 460800: unix.B460800, 921600: unix.B921600,
}

// ipr: the new speed holds after its own OK, and survives a reboot (V.250
// 6.2.10). On an unpaced line it is only remembered.
func (m *Module) ipr(c call, r *reply) outcome {
	switch c.form {
	case formRead:
		r.add("+IPR: " + strconv.FormatInt(m.uart.rate.Load(), 10))
	case formTest:
		r.add("+IPR: (0,9600,19200,38400,57600,115200,230400,460800,921600)")
	case formSet:
		a := args{s: c.args}
		n := a.int(0, 921600)
		if _, ok := baudRates[n]; !ok || !a.ok() {
			return badParam
		}
		return outcome{then: func() { m.uart.setBaud(n) }}
	default:
		return badParam
	}
	return done
}

// wrongBaud reports whether the host has set another speed than the module's,
// and that matters.
func (m *Module) wrongBaud() bool {
	if m.traps.BaudMatters <= 0 {
		return false
	}
	want := baudRates[int(m.uart.rate.Load())]
	return want != 0 && m.uart.hostBaud() != want && m.snaps(m.traps.BaudMatters)
}

func (m *Module) ecrst(c call, _ *reply) outcome {
	if c.form != formExec {
		return badParam
	}
	// The OK leaves before the power does.
	return outcome{then: func() { m.after(rebootAfter, m.reboot) }}
}

// cclk: 3GPP TS 27.007 8.15: local time and its zone in quarters of an hour.
// Before the first registration the clock stands at its epoch.
func (m *Module) cclk(c call, r *reply) outcome {
	switch c.form {
	case formRead:
		r.add(`+CCLK: "` + m.clock() + `"`)
	case formSet, formTest:
	default:
		return badParam
	}
	return done
}

func (m *Module) clock() string {
	if !m.radio.timed {
		return "70/01/01,00:00:00+00"
	}
	t := time.Now().UTC().Add(localZone * 15 * time.Minute)
	return t.Format("06/01/02,15:04:05") + fmt.Sprintf("%+03d", localZone)
}
