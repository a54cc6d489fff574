package sim

import (
	"sync"
	"time"
)

// Registration states (3GPP TS 27.007 7.2).
const (
	notSearching   = 0
	registeredHome = 1
	searching      = 2
)

// The cell and the address that the network gives.
const (
	cellTAC   = "1A2B"
	cellID    = "0123ABCD"
	accessLTE = "7"
	ipAddress = "10.20.30.40"
)

// radio is what the module knows of the network.
type radio struct {
	link  bool // there is a network to be heard; SetLink
	off   bool // AT+CFUN=0 or 4
	fun   int  // as AT+CFUN? says it; 0 stands for full function
	stat  int
	pdn   bool // the packet data connection stands
	timed bool // the network has told the time
	gen   int  // counts changes, so that a late timer knows it is stale
}

// SetLink takes the radio away or brings it back. Without it no byte passes:
// open TCP connections freeze (or break, with the trap OutageBreaks), new ones
// hang until the module has noticed, and are refused after that.
func (m *Module) SetLink(up bool) {
	_ = m.do(func() {
		if m.radio.link == up {
			return
		}
		m.radio.link = up
		m.log.Info("radio", "up", up)
		if !up && m.snaps(m.traps.DeadNAT) {
			m.air.forget()
		}
		m.updateRadio(false)
	})
}

// updateRadio moves the registration to where it belongs. quiet is for a
// module that has registered before anyone listens.
func (m *Module) updateRadio(quiet bool) {
	r := &m.radio
	r.gen++
	gen := r.gen
	later := func(d time.Duration, f func()) {
		if d <= 0 {
			f()
			return
		}
		m.after(d, func() {
			if r.gen == gen {
				f()
			}
		})
	}
	wanted := r.link && !r.off && m.sim.fault() == 0
	m.air.set(wanted && r.stat == registeredHome)
	switch {
	case wanted && r.stat == registeredHome:
	case wanted:
		m.setStat(searching, quiet)
		later(m.opt.RegisterAfter, func() { m.registered(quiet && m.opt.RegisterAfter <= 0) })
	case r.off:
		m.deregistered(notSearching)
	case !r.link:
		later(m.opt.NoticeAfter, func() { m.deregistered(searching) })
	default: // no usable SIM
		m.deregistered(notSearching)
	}
}

func (m *Module) registered(quiet bool) {
	m.radio.timed, m.radio.pdn = true, true
	m.air.set(true)
	m.setStat(registeredHome, quiet)
	if !quiet {
		m.urc("+CGEV: ME PDN ACT 1")
		m.urc("+NITZ: " + m.clock())
	}
}

func (m *Module) deregistered(stat int) {
	lost := m.radio.pdn
	m.radio.pdn = false
	m.setStat(stat, !lost)
	if !lost {
		return
	}
	m.urc("+CGEV: NW PDN DEACT 1")
	// Switching the radio off takes the network interface away, and every
	// socket with it; losing the cell does so on some firmware.
	if m.radio.off || m.snaps(m.traps.OutageBreaks) {
		m.breakSession()
	}
}

func (m *Module) setStat(stat int, quiet bool) {
	if m.radio.stat == stat {
		return
	}
	m.radio.stat = stat
	if m.set.cereg > 0 && !quiet {
		m.urc(m.ceregURC())
	}
}

// ceregURC has the state first; a reply has the mode before it.
func (m *Module) ceregURC() string { return "+CEREG: " + m.ceregState() }

// air is what all TCP connections of the module go through. Its goroutines
// wait here while there is no radio.
type air struct {
	mu      sync.Mutex
	up      bool
	changed chan struct{} // closed at the next change
	conns   map[*airConn]struct{}
}

func newAir() *air {
	return &air{changed: make(chan struct{}), conns: make(map[*airConn]struct{})}
}

func (a *air) set(up bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.up == up {
		return
	}
	a.up = up
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *air) state() (up bool, changed <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.up, a.changed
}

// forget makes the operator's NAT forget all connections.
func (a *air) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.conns {
		c.forgotten.Do(func() { close(c.dead) })
	}
}

// closeAll closes what a connect has made after its module was gone.
func (a *air) closeAll() {
	a.mu.Lock()
	var l []*airConn
	for c := range a.conns {
		l = append(l, c)
	}
	a.mu.Unlock()
	for _, c := range l {
		c.Close()
	}
}
