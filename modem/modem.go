// Package modem drives an LTE CAT1 module on a serial port with AT commands. It
// carries MQTT through the module's own client, or any protocol over TCP through
// a socket of the module.
//
//	Run          supervisor: opens the port, brings the module up, watches, recovers
//	  at.Engine    one per opened port; its dispatch goroutine calls Modem.urc
//	Connect      waits until the module is registered, then opens one Session
//	  Session      publishes, subscribes, receives; ends with the module's epoch
//	DialContext  the same for a TCP connection: a net.Conn
//
// An epoch is the time in which what the module knows of a connection can be
// trusted. A reboot, a lost link, a reconnect that the firmware made by itself
// or a closed data connection end it; every publish that waits for its
// acknowledgement is then of unknown fate.
package modem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/modem/at"
)

// Options of a modem. Name, and Port or Open, must be given.
type Options struct {
	// Name is the modem's name in logs and errors.
	Name string
	// Port is the device, like /dev/ttyS0, or a USB device wherever it is plugged
	// in: usb:VID:PID[:SERIAL[:INTERFACE]], all but SERIAL in hex, a colon in
	// SERIAL as %3A. Baud is its rate, 115200 if 0.
	// A module that does not answer at it is looked for at the usual ones.
	// BaudSwitch, if not 0, is the rate that the line is raised to by AT+IPR,
	// which the module keeps. FlowControl uses RTS and CTS.
	Port        string
	Baud        int
	BaudSwitch  int
	FlowControl bool
	// Interface is the network interface that the module gives to this board, as
	// in "ppp0" or "usb0", and Dial opens a connection over it; "" if the module
	// carries MQTT itself. Mode must not be "mqtt" with it.
	Interface string
	Dial      func(ctx context.Context, network, address string) (net.Conn, error)
	// APN, APNUser, APNPassword: what the SIM's contract says; an empty APN
	// leaves the module's setting alone. APNAuth is "chap", "pap", or "auto"
	// (or ""): CHAP, and PAP if the module does not take that.
	APN, APNUser, APNPassword, APNAuth string
	// PIN of the SIM. It is entered only if the SIM asks for it, and a PIN
	// that this SIM has refused is never entered again.
	PIN string
	// MemoryFile is where that is remembered over restarts, and what was carried in
	// which month; without one it is remembered until the end of the process.
	MemoryFile string
	// Now is the clock that months go by, and whether it is to be trusted; nil is
	// the board's. It may ask for the Status.
	Now func() (t time.Time, trusted bool)
	// Dialect of the module's MQTT commands: "auto" (or ""), "ecmt", "qmt"
	// or "cmqtt".
	Dialect string
	// Mode is how MQTT is to be carried: "mqtt" needs a dialect, "socket" the
	// commands for sockets, "auto" (or "") one of the two.
	Mode   string
	Logger *slog.Logger
	// Open opens the wire; nil opens Port. Close of what it returns must
	// unblock its Read and Write.
	Open func(ctx context.Context) (io.ReadWriteCloser, error)
	// PowerCycle, if not nil, is the last step of recovery: it cuts the
	// module's power and gives it back.
	PowerCycle func(ctx context.Context) error
	// ResetLine is the line of the port that the module's reset or power key is
	// wired to, "dtr" or "rts"; "" for none. It is let go for a second, after the
	// module's own reset was of no use.
	ResetLine string
	// ResetTurn, if not nil, is a token of one that all modems of a gateway share:
	// who resets its module holds it until the module is up or has failed again, so
	// that there is always one that is left alone.
	ResetTurn chan struct{}

	Timing Timing
}

// Timing are the waits. Zero values mean the defaults, which come from what
// the firmwares need.
type Timing struct {
	Command      time.Duration // final result of a command: 10 s
	Radio        time.Duration // CFUN, CGATT: 40 s
	Operator     time.Duration // COPS?: 180 s
	Open         time.Duration // result of opening the connection: 75 s
	Connect      time.Duration // result of the login: 60 s
	SecondResult time.Duration // a second login result after a failed one: 3 s
	SelfRepair   time.Duration // the firmware's own reconnect: 10 s
	Ack          time.Duration // acknowledgement of a publish: 60 s
	Subscribe    time.Duration // acknowledgement of a subscription: 30 s
	Close        time.Duration // all of Session.Close: 10 s
	SIM          time.Duration // until the SIM is ready: 30 s
	Registration time.Duration // until registered: 180 s
	RegPoll      time.Duration // between questions for it: 2 s
	Poll         time.Duration // between questions for the signal: 60 s
	Reset        time.Duration // until the module answers after a reset: 30 s
	Pulse        time.Duration // how long the reset line is let go: 1 s
	HoldOff      time.Duration // first wait after a failure: 2 s, doubling
	HoldOffMax   time.Duration // 5 min
	SyncWait     time.Duration // one AT: 1 s
	Idle         time.Duration // silence that ends a drain: 200 ms
	Gap          time.Duration // silence that ends an open payload: 50 ms
}

func (t *Timing) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&t.Command, 10*time.Second)
	set(&t.Radio, 40*time.Second)
	set(&t.Operator, 180*time.Second)
	set(&t.Open, 75*time.Second)
	set(&t.Connect, 60*time.Second)
	set(&t.SecondResult, 3*time.Second)
	set(&t.SelfRepair, 10*time.Second)
	set(&t.Ack, 60*time.Second)
	set(&t.Subscribe, 30*time.Second)
	set(&t.Close, 10*time.Second)
	set(&t.SIM, 30*time.Second)
	set(&t.Registration, 180*time.Second)
	set(&t.RegPoll, 2*time.Second)
	set(&t.Poll, time.Minute)
	set(&t.Reset, 30*time.Second)
	set(&t.Pulse, time.Second)
	set(&t.HoldOff, 2*time.Second)
	set(&t.HoldOffMax, 5*time.Minute)
	set(&t.SyncWait, time.Second)
	set(&t.Idle, 200*time.Millisecond)
	set(&t.Gap, 50*time.Millisecond)
}

// Modem is one module. Its methods may be called by any goroutine.
type Modem struct {
	o   Options
	log *slog.Logger

	// connecting is a token of one: there is one MQTT connection at a time.
	// dialing is another, for the opening of sockets.
	connecting, dialing chan struct{}
	socketsRunning      sync.WaitGroup

	memory *memory
	meter  *meter

	// Owned by the goroutine of Run.
	baud      int           // at which the module was found, or is looked for first
	authSet   bool          // user and password were given to the module
	failures  int           // lives that failed since the module proved itself
	resets    int           // resets since then; how far up the ladder
	stepped   bool          // the module was reset in this life
	turn      bool          // it is this modem's turn to reset: ResetTurn was taken
	resetAt   time.Time     // when the last reset was done
	waits     int           // lives that ended, of any cause, since then
	pin       pins          // what is known of the PIN
	cutAt     time.Time     // when a module that is not there is given power again
	cutWait   time.Duration // the wait before that
	noCounter bool          // the firmware has no AT+QGDCNT
	iface     int           // the interface of the USB device that was used last

	complaint  string // the failure that was logged last, and when
	complained time.Time

	tree serialTree // where ports are looked for

	mu      sync.Mutex
	running bool
	link    *link           // the life under way; nil without a port
	up      bool            // link is registered and may be used
	problem error           // why it is not up
	changed chan struct{}   // closed and replaced when up, link or status changes
	session *Session        // the connection under way; nil if none
	conns   map[int]*socket // open sockets, by their number in the module
	acks    bool            // the module acknowledges what is sent through sockets
	echoed  bool            // the module has passed on the answer to a test of its connection
	status  Status
	proved  bool // a connection was made since the last look of Run
	wedges  int  // openings without a result, one after the other
	kept    leftovers
	opens   int // what connections that failed, one after the other, count: see blame
	enough  int // how much of it asks for the next reset
	carried int // connections over the interface that live
	ids     packetIDs
}

// link is one life of the AT engine.
type link struct {
	e    *at.Engine
	port io.ReadWriteCloser // without its trace; the engine owns it
	// firmware is what the last bring-up has found, nil before the first one. A
	// module that restarts is asked anew while others still read.
	firmware atomic.Pointer[firmware]
	// ending has the first reason why the life, or the bring-up that it is
	// built on, must end.
	ending chan error
	// Only Run's goroutine.
	reset    bool // the ladder's step was done in this life
	searched bool // the rate was looked for
	flow     bool // RTS and CTS are in use
}

// firmware has the commands of a module, which stay as they were found.
type firmware struct {
	sockets socketCommands // nil without
	mqtt    mqttCommands   // of its own MQTT client, nil without
}

func (l *link) sockets() socketCommands {
	if f := l.firmware.Load(); f != nil {
		return f.sockets
	}
	return nil
}

func (l *link) mqtt() mqttCommands {
	if f := l.firmware.Load(); f != nil {
		return f.mqtt
	}
	return nil
}

func (l *link) end(err error) {
	select {
	case l.ending <- err:
	default:
	}
}

// New checks o and makes a modem that does nothing until Run.
func New(o Options) (*Modem, error) {
	if o.Name == "" {
		return nil, errors.New("a modem needs a name")
	}
	if o.Port == "" && o.Open == nil {
		return nil, fmt.Errorf("modem %q: no port; set port = \"/dev/ttyS0\" or whatever the module is connected to", o.Name)
	}
	if _, _, err := parseUSBPort(o.Port); err != nil {
		return nil, fmt.Errorf("modem %q: port %q: %w", o.Name, o.Port, err)
	}
	switch o.Dialect {
	case "", "auto", "ecmt", "qmt", "cmqtt":
	default:
		return nil, fmt.Errorf("modem %q: there is no dialect %q; use \"auto\", \"ecmt\", \"qmt\" or \"cmqtt\"", o.Name, o.Dialect)
	}
	switch o.Mode {
	case "", "auto", "mqtt", "socket":
	default:
		return nil, fmt.Errorf("modem %q: there is no mode %q; use \"auto\", \"mqtt\" or \"socket\"", o.Name, o.Mode)
	}
	if o.Interface != "" && (o.Dial == nil || o.Mode == "mqtt") {
		return nil, fmt.Errorf("modem %q: an interface needs Dial, and no mode = \"mqtt\"", o.Name)
	}
	switch o.ResetLine {
	case "", lineDTR, lineRTS:
	default:
		return nil, fmt.Errorf("modem %q: there is no reset_line %q; use \"dtr\", \"rts\" or \"\"", o.Name, o.ResetLine)
	}
	switch o.APNAuth {
	case "", "auto", "pap", "chap":
	default:
		return nil, fmt.Errorf("modem %q: there is no apn_auth %q; use \"auto\", \"chap\" or \"pap\"", o.Name, o.APNAuth)
	}
	for what, s := range map[string]string{"apn": o.APN, "apn_user": o.APNUser, "apn_password": o.APNPassword} {
		if why := unquotable(s); why != "" {
			return nil, fmt.Errorf("modem %q: %s has %s, which an AT command cannot carry", o.Name, what, why)
		}
	}
	if o.PIN != "" && !isPIN(o.PIN) {
		return nil, fmt.Errorf("modem %q: the pin must have 4 to 8 digits", o.Name)
	}
	if o.Baud == 0 {
		o.Baud = 115200
	}
	if o.Now == nil {
		o.Now = func() (time.Time, bool) { return time.Now(), true }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Timing.defaults()
	m := &Modem{
		o:          o,
		log:        o.Logger.With("modem", o.Name),
		connecting: make(chan struct{}, 1),
		dialing:    make(chan struct{}, 1),
		conns:      make(map[int]*socket),
		changed:    make(chan struct{}),
		tree:       thisMachine(),
		problem:    errors.New("the modem was not started"),
		status:     Status{Name: o.Name, Port: o.Port, Interface: o.Interface, State: StateDown, Since: time.Now()},
	}
	m.memory = recall(o.MemoryFile, m.log)
	m.meter = newMeter(m.memory.traffic())
	m.baud = m.memory.baud(o.Baud)
	m.status.Baud = m.baud
	m.connecting <- struct{}{}
	m.dialing <- struct{}{}
	return m, nil
}

// changedLocked wakes everyone who waits for a change.
func (m *Modem) changedLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// waitUp waits until the module is registered. The error says why it is not.
func (m *Modem) waitUp(ctx context.Context) (*link, error) {
	for {
		m.mu.Lock()
		l, up, changed := m.link, m.up, m.changed
		m.mu.Unlock()
		if up {
			return l, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			m.mu.Lock()
			problem := m.problem
			m.mu.Unlock()
			if problem == nil {
				problem = errors.New("it has just become ready")
			}
			return nil, fmt.Errorf("modem %s is not ready: %w (%w)", m.o.Name, problem, ctx.Err())
		}
	}
}

// unquotable says what in s cannot stand in a quoted string of an AT command;
// "" if nothing.
func unquotable(s string) string {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"':
			return "a quotation mark"
		case c < ' ' || c == 0x7f:
			return fmt.Sprintf("a control character (0x%02x)", c)
		}
	}
	return ""
}

func isPIN(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) >= 4 && len(s) <= 8
}
