package modem

import (
	"strconv"
	"time"

	"holdfast/modem/at"
)

// State is where the modem is on its way up.
type State string

// The states, from down to up.
const (
	StateDown        State = "down"        // no port, or the module does not answer
	StateStarting    State = "starting"    // it answers; SIM and identity are read
	StateRegistering State = "registering" // it looks for a network
	StateReady       State = "ready"       // it is registered
	StateConnected   State = "connected"   // it has an MQTT connection
)

// Fact is something that the module has said, and when. The zero value is not
// known.
type Fact struct {
	Value string    `json:"value,omitempty"`
	At    time.Time `json:"at,omitzero"`
}

// Known reports whether the module has said it at all.
func (f Fact) Known() bool { return !f.At.IsZero() }

// Age is how old the fact is.
func (f Fact) Age(now time.Time) time.Duration { return now.Sub(f.At) }

// Signal is a signal strength (3GPP TS 27.007 8.5).
type Signal struct {
	CSQ int       `json:"csq"` // 0 to 31; 99 is not known
	DBm int       `json:"dbm"` // -113 to -51; 0 if not known
	At  time.Time `json:"at,omitzero"`
	// RSRP (dBm, -140 to -44) and RSRQ (dB, -19.5 to -3) are those of LTE
	// (8.69); 0 if the module does not tell.
	RSRP float64 `json:"rsrp,omitempty"`
	RSRQ float64 `json:"rsrq,omitempty"`
}

// Counters only grow.
type Counters struct {
	Opens         uint64 `json:"opens"`         // times the port was opened
	Resets        uint64 `json:"resets"`        // all of the next four
	RadioResets   uint64 `json:"radio_resets"`  // AT+CFUN=0 and 1
	ModuleResets  uint64 `json:"module_resets"` // AT+ECRST, or AT+CFUN=1,1
	LineResets    uint64 `json:"line_resets"`   // pulses on DTR or RTS
	PowerCycles   uint64 `json:"power_cycles"`  // runs of power_command
	Reboots       uint64 `json:"reboots"`       // boot messages of the module
	Timeouts      uint64 `json:"timeouts"`      // commands without an answer in time
	AckTimeouts   uint64 `json:"acktimeouts"`   // publishes without an acknowledgement in time
	Connects      uint64 `json:"connects"`      // MQTT connections made
	Refused       uint64 `json:"refused"`       // logins that a broker refused
	Lost          uint64 `json:"lost"`          // connections that ended by themselves
	PublishedMsgs uint64 `json:"published"`
	PayloadOut    uint64 `json:"payload_out"` // bytes of topic and payload
	PayloadIn     uint64 `json:"payload_in"`
	ReceivedMsgs  uint64 `json:"received"`
	Unreadable    uint64 `json:"unreadable"` // messages from the broker that could not be parsed
	Discarded     uint64 `json:"discarded"`  // messages from the broker that nobody took in time
	BytesIn       uint64 `json:"uart_in"`
	BytesOut      uint64 `json:"uart_out"`
}

// Status is what is known of a modem. Each fact has its own age.
type Status struct {
	Name   string `json:"name"`
	Port   string `json:"port"`
	Device string `json:"device,omitempty"` // what Port was found to be, if it is named by USB
	Baud   int    `json:"baud"`
	// Interface is the board's network interface that the module gives, and
	// Connections how many live over it.
	Interface   string    `json:"interface,omitempty"`
	Connections int       `json:"connections,omitempty"`
	State       State     `json:"state"`
	Since       time.Time `json:"since"`
	Problem     string    `json:"problem,omitempty"` // why it is not ready, and what to try
	// Failures are the lives that failed since the module was good, RetryAt when
	// the next begins, LastReset the last step of the ladder.
	Failures  int       `json:"failures"`
	RetryAt   time.Time `json:"retry_at,omitzero"`
	LastReset Fact      `json:"last_reset"`

	Dialect string `json:"dialect,omitempty"`
	Sockets string `json:"sockets,omitempty"` // the commands for TCP sockets: qi, ecso

	Model        Fact   `json:"model"`
	Firmware     Fact   `json:"firmware"`
	IMEI         Fact   `json:"imei"`
	ICCID        Fact   `json:"iccid"`
	IMSI         Fact   `json:"imsi"`
	SIM          Fact   `json:"sim"`
	Registration Fact   `json:"registration"`
	Operator     Fact   `json:"operator"`
	IP           Fact   `json:"ip"`
	Signal       Signal `json:"signal"`
	// Clock is the time that the network has told.
	Clock Clock `json:"clock"`

	Counters Counters `json:"counters"`
	Traffic  Traffic  `json:"traffic"`
}

// Status is a snapshot.
func (m *Modem) Status() Status {
	traffic := m.meter.traffic()
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Traffic = traffic
	if m.link != nil {
		s.Counters.add(m.link.e.Stats())
	}
	if m.problem != nil && !m.up {
		s.Problem = m.problem.Error()
	}
	return s
}

func (c *Counters) add(s at.Stats) {
	c.Timeouts += s.Timeouts
	c.BytesIn += s.BytesIn
	c.BytesOut += s.BytesOut
}

// learn changes the status under the lock.
func (m *Modem) learn(change func(s *Status)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.status)
}

func (m *Modem) setState(st State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setStateLocked(st)
}

func (m *Modem) setStateLocked(st State) {
	if m.status.State != st {
		m.status.State = st
		m.status.Since = time.Now()
	}
}

func fact(v string) Fact { return Fact{Value: v, At: time.Now()} }

// signal makes a Signal from the first argument of +CSQ.
func signal(csq string) (Signal, bool) {
	n, err := strconv.Atoi(csq)
	if err != nil || n < 0 {
		return Signal{}, false
	}
	s := Signal{CSQ: n, At: time.Now()}
	if n <= 31 {
		s.DBm = 2*n - 113
	} else {
		s.CSQ = 99
	}
	return s, true
}

// lte takes what LTE tells from the arguments of +CESQ: rxlev, ber, rscp, ecno,
// rsrq, rsrp (3GPP TS 27.007 8.69); 255 is not known.
func (s *Signal) lte(cesq []string) {
	if len(cesq) < 6 {
		return
	}
	if n, err := strconv.Atoi(cesq[4]); err == nil && n >= 0 && n <= 34 {
		s.RSRQ = -19.5 + float64(n)/2 - 0.5
		if n == 0 {
			s.RSRQ = -19.5
		}
	}
	if n, err := strconv.Atoi(cesq[5]); err == nil && n >= 0 && n <= 97 {
		s.RSRP = -141 + float64(n)
		if n == 0 {
			s.RSRP = -140
		}
	}
}
