package modem

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"holdfast/modem/at"
)

// urc takes every line that no command and no waiter has claimed. It runs on
// the dispatch goroutine of the engine.
func (m *Modem) urc(l at.Line) {
	m.mu.Lock()
	s, link, up := m.session, m.link, m.up
	m.mu.Unlock()
	if l.Lost > 0 {
		m.endSession(s, fmt.Errorf("%d results of the module were lost, since they came too fast", l.Lost))
	}
	if isBoot(l.Text) {
		m.rebooted(link)
		return
	}
	if m.socketURC(link, l) {
		return
	}
	args := func() []string { return at.Args(l.Text) }
	switch at.Name(l.Text) {
	case "+CEREG":
		m.registration(args())
	case "+NITZ":
		m.setClock(l.Text)
	case "+CGEV":
		// 3GPP TS 27.007 10.1.19: a PDN or PDP deactivation or a detach, by
		// the network or by the module itself.
		if strings.Contains(l.Text, "DEACT") || strings.Contains(l.Text, "DETACH") {
			m.endSession(s, errors.New("the network closed the data connection"))
		}
	case "+QIURC":
		// Quectel's word for it; not all of its firmware has the other.
		if a := args(); len(a) == 2 && a[0] == "pdpdeact" && a[1] == strconv.Itoa(qiContext) {
			m.endSession(s, errors.New("the network closed the data connection"))
		}
	case "+CPIN":
		if a := args(); len(a) > 0 && strings.HasPrefix(a[0], "NOT ") {
			m.learn(func(st *Status) { st.SIM = fact(a[0]) })
			m.endSession(s, errors.New("the SIM is gone ("+a[0]+"); check that it sits right"))
			if link != nil && up { // bring-up looks at the SIM again; while it runs, its own CFUN=0 says this
				m.endLink(link, errRebooted)
			}
		}
	default:
		if link != nil && link.mqtt() != nil && link.mqtt().urc(s, l) {
			return
		}
		m.log.Debug("unsolicited result", "name", at.Name(l.Text), "bytes", len(l.Text), "cut", l.Cut)
	}
}

// isBoot reports whether the line is said by a module that starts.
func isBoot(line string) bool {
	return line == "RDY" || strings.HasPrefix(line, "^boot.rom") || strings.HasPrefix(line, "RDY^")
}

func (m *Modem) rebooted(l *link) {
	m.mu.Lock()
	m.status.Counters.Reboots++
	s := m.session
	m.mu.Unlock()
	if l != nil {
		m.endLink(l, errRebooted)
	}
	m.endSession(s, errRebooted)
}

// endLink asks Run to end the life. No connection is made in it from here on.
func (m *Modem) endLink(l *link, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.end(err)
	if m.link == l && m.up {
		m.up = false
		m.problem = err
		m.setStateLocked(StateStarting)
		m.changedLocked()
	}
}

// endSession ends what is open through the module: its epoch is over.
func (m *Modem) endSession(s *Session, err error) {
	if s != nil {
		s.fail(err)
	}
	m.endSockets(err)
}

func (m *Modem) registration(args []string) {
	if len(args) == 0 {
		return
	}
	stat, err := strconv.Atoi(args[0])
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Registration = fact(registrationWords(stat))
	m.changedLocked()
}
