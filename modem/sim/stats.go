package sim

import (
	"maps"
	"sync"
)

// Mistakes of a host that the module can see on the wire. Most work by luck on
// one firmware and lose data on the next.
const (
	MistakeOverlap      = "command written while another was in flight"
	MistakeEarlyPayload = "payload written before the prompt"
	MistakeNotAT        = "line without AT"
	MistakeControl      = "control byte in a command"
	MistakeTooEarly     = "publish before connect"
	MistakeNoID         = "message id 0 at a QoS above 0"
	MistakeReusedID     = "message id used again before its answer"
	MistakeWindow       = "more than 5 publishes without an answer"
	MistakeCredentials  = "connect without all three strings"
	MistakeNoContext    = "configuration without the connection id"
	MistakeOverflow     = "input overflowed and was discarded"
	MistakeLimit        = "parameter over its limit"
	MistakeBaud         = "bytes at a wrong baud rate"
)

// Stats is what the module has seen since it was made; reboots do not clear it.
type Stats struct {
	// Commands are the command lines that were executed.
	Commands int
	// URCs are the unsolicited lines that were written.
	URCs int
	// PublishQueued counts publishes that were answered with OK,
	// PublishSent those written to the socket, PublishAcked the results 0
	// that were reported, PublishLost what was answered with OK and then
	// vanished.
	PublishQueued, PublishSent, PublishAcked, PublishLost int
	// Received are the messages reported by +ECMTRECV.
	Received int
	// Connects are the CONNECT packets sent, Reconnects those among them that
	// the firmware sent by itself.
	Connects, Reconnects int
	// Reboots counts AT+ECRST, AT+CFUN=1,1 and Reboot.
	Reboots int

	// UARTIn and UARTOut are bytes on the line, seen from the module;
	// UARTDiscarded were for a host that did not read.
	UARTIn, UARTOut, UARTDiscarded int64
	// Up and Down are bytes over the air.
	Up, Down int64

	// Mistakes counts what the host did wrong, by the Mistake constants.
	Mistakes map[string]int
}

// stats guards Stats for the goroutines of the module and for Stats's callers.
type stats struct {
	mu sync.Mutex
	s  Stats
}

func (st *stats) init() { st.s.Mistakes = make(map[string]int) }

func (st *stats) count(f func(*Stats)) {
	st.mu.Lock()
	defer st.mu.Unlock()
	f(&st.s)
}

func (st *stats) mistake(what string) { st.count(func(s *Stats) { s.Mistakes[what]++ }) }

func (st *stats) addUART(in, out, discarded int) {
	st.count(func(s *Stats) {
		s.UARTIn += int64(in)
		s.UARTOut += int64(out)
		s.UARTDiscarded += int64(discarded)
	})
}

// Stats is a copy of the counters; it may be called after Close.
func (m *Module) Stats() Stats {
	m.stats.mu.Lock()
	defer m.stats.mu.Unlock()
	s := m.stats.s
	s.Mistakes = maps.Clone(s.Mistakes)
	return s
}
