package sim

import "time"

// rebootAfter lets the OK of a reset command leave first.
const rebootAfter = 30 * time.Millisecond

// boots is the number of reboots so far: an epoch.
func (m *Module) boots() (n int) {
	m.stats.count(func(s *Stats) { n = s.Reboots })
	return n
}

// reboot cuts the power, whatever is going on: replies end in the middle of a
// byte, connections vanish, every setting but the speed is as from the factory.
func (m *Module) reboot() {
	m.log.Info("reboot")
	m.stats.count(func(s *Stats) { s.Reboots++ })
	m.sched.clear()
	m.dropSession()
	m.dropSockets()
	m.simcom = cmqttState{}
	m.mq = newContext(m.ctx)
	m.uart.cut()
	m.stats.count(func(s *Stats) { m.gdcnt = [2]int64{s.Up, s.Down} })
	m.line = lineState{off: true, fresh: true}
	m.set.reset()
	m.sim.insert(&m.opt)
	gen := m.radio.gen
	m.radio = radio{link: m.radio.link, gen: gen + 1}
	m.air.set(false)

	m.after(m.opt.BootTime/2, func() {
		// The ROM loader speaks at a speed of its own before the firmware does.
		m.emit(append([]byte("^boot.rom"), m.noise(24)...))
		m.line.off = false
		m.urc("RDY")
	})
	m.after(m.opt.BootTime, func() {
		if m.snaps(m.traps.DoubleRDY) {
			m.urc("RDY")
		}
		m.urc("^MODE: 17,17")
		if m.sim.fault() == 0 {
			m.urc("+CPIN: READY")
		}
		m.updateRadio(false)
	})
}
