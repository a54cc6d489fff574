// Package sim is an LTE CAT1 module without the hardware: an AT command
// interpreter behind a pseudo terminal, with the module's own MQTT client in the
// words of Eigencomm (ECMT), Quectel (QMT) or SIMCom (CMQTT), and with TCP sockets.
// Both talk to real servers over TCP. It stands
// where the UART and the module stand in a message's life.
//
// It does what the firmware does, not what its manual promises: every failure
// is +CME ERROR: 3, an OK may be followed by nothing, a seventh publish is
// lost without a word. What differs between firmware versions, or happens only
// now and then, is a Trap. It shares no code with the driver, so that a
// misreading of the dialect cannot hide in both.
package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Options are the properties of a module. The zero value is a module without a
// PIN, registered at once, on an unpaced line.
type Options struct {
	// Baud paces the line, both ways, at this many bits per second and ten
	// bits a byte. 0 is as fast as the machine goes.
	Baud int
	// Logger gets the commands' names and what happens to the module; never a
	// payload or a password. nil discards.
	Logger *slog.Logger

	// IMEI (15 digits), ICCID (19 or 20) and IMSI (up to 15) have defaults.
	IMEI, ICCID, IMSI string
	// PIN locks the SIM until AT+CPIN gives it. Three wrong ones ask for a PUK.
	PIN string
	// NoSIM is a module with an empty SIM holder.
	NoSIM bool

	// Dialect is that of the MQTT commands: DialectECMT (or ""), DialectQMT or
	// DialectCMQTT.
	Dialect string
	// Sockets are the commands for TCP sockets that the firmware has:
	// SocketsECSO (or ""), SocketsQI, or SocketsNone.
	Sockets string

	// Seed makes the random traps and the boot garbage repeatable.
	Seed int64
	// Traps are on from the start; see SetTraps.
	Traps Traps

	// RegisterAfter is the time from power-on, or from the return of the
	// radio, to registration in the network.
	RegisterAfter time.Duration
	// NoticeAfter is the time from the loss of the radio to the moment when
	// the module says so. Until then connects hang instead of being refused.
	NoticeAfter time.Duration
	// BootTime is how long a reboot takes, 200 ms if 0.
	BootTime time.Duration
	// ConnectTimeout bounds a TCP connect of the module, 30 s if 0.
	ConnectTimeout time.Duration
	// ReconnectAfter is the firmware's pause before it connects again by
	// itself, 100 ms if 0.
	ReconnectAfter time.Duration
	// KeepAliveUnit is the length of one keep-alive second, for tests that
	// cannot wait for four lost PINGRESPs; 1 s if 0. The broker is told the
	// real number.
	KeepAliveUnit time.Duration
	// LateBy is how late the LateOK trap answers, 12 s if 0: longer than any
	// guard timer of the firmware.
	LateBy time.Duration

	// Heard is called with every piece of output that was written to the line: the
	// transcript of what the host could hear. It must not block or keep b. May be nil.
	Heard func(b []byte)

	// Dial makes the module's TCP connections; nil is a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

func (o *Options) fill() {
	str := func(p *string, def string) {
		if *p == "" {
			*p = def
		}
	}
	dur := func(p *time.Duration, def time.Duration) {
		if *p <= 0 {
			*p = def
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	str(&o.Dialect, DialectECMT)
	str(&o.Sockets, SocketsECSO)
	str(&o.IMEI, "860000000000017")
	str(&o.ICCID, "89860000000000000018")
	str(&o.IMSI, "001010000000017")
	dur(&o.BootTime, 200*time.Millisecond)
	dur(&o.ConnectTimeout, 30*time.Second)
	dur(&o.ReconnectAfter, 100*time.Millisecond)
	dur(&o.KeepAliveUnit, time.Second)
	dur(&o.LateBy, 12*time.Second)
}

// Module is one powered module. Its methods may be called from any goroutine.
type Module struct {
	opt    Options
	log    *slog.Logger
	uart   *uart
	air    *air
	stats  stats
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	in     chan chunk
	// acts are control calls and what the module's tasks report; the engine
	// goroutine runs them one by one, so that nothing below needs a lock.
	acts chan func()

	// Only accessed from the engine goroutine.
	traps  Traps
	rng    *rand.Rand
	sched  schedule
	line   lineState
	set    settings
	sim    simCard
	radio  radio
	mq     *mqttContext
	refuse byte
	signal int // in dBm; 0 is an ordinary one
	socks  sockets
	simcom cmqttState
	// gdcnt is what had been sent and received when the data counter was 0.
	gdcnt [2]int64
}

// errClosed is what a control call on a closed module would report, were there
// anyone to tell: they return nothing and do nothing then.
var errClosed = errors.New("sim: module is closed")

// New powers a module on and opens its pseudo terminal in raw mode. It has
// booted already: nothing is on the line until the host speaks, except what a
// later registration announces. Close must be called.
func New(o Options) (*Module, error) {
	o.fill()
	switch o.Dialect {
	case DialectECMT, DialectQMT, DialectCMQTT:
	default:
		return nil, fmt.Errorf("sim: there is no dialect %q; ecmt, qmt and cmqtt there are", o.Dialect)
	}
	switch o.Sockets {
	case SocketsECSO, SocketsQI, SocketsNone:
	default:
		return nil, fmt.Errorf("sim: there are no sockets %q; ecso, qi and none there are", o.Sockets)
	}
	if o.Baud < 0 {
		return nil, fmt.Errorf("sim: a baud rate of %d is impossible; give 0 for an unpaced line", o.Baud)
	}
	u, err := openUART(o.Baud)
	if err != nil {
		return nil, err
	}
	m := assemble(o, u)
	m.spawn(m.run)
	m.spawn(func() { m.uart.read(m.ctx, m.in, &m.stats) })
	m.spawn(func() { m.uart.write(m.ctx, &m.stats, o.Heard) })
	return m, nil
}

// assemble makes a module that does not run yet.
func assemble(o Options, u *uart) *Module {
	ctx, cancel := context.WithCancel(context.Background())
	m := &Module{
		opt: o, log: o.Logger, uart: u, air: newAir(),
		ctx: ctx, cancel: cancel,
		in: make(chan chunk), acts: make(chan func(), 16),
		traps: o.Traps,
		rng:   rand.New(rand.NewPCG(uint64(o.Seed), 0x9e3779b97f4a7c15)),
		mq:    newContext(ctx),
		radio: radio{link: true},
	}
	m.socks.reset()
	m.stats.init()
	m.sched.init()
	m.set.reset()
	m.sim.insert(&m.opt)
	m.line.fresh = true
	m.updateRadio(true)
	return m
}

// Path is the terminal to give to the host as its serial port.
func (m *Module) Path() string { return m.uart.path }

// Close cuts the power and removes the terminal. It returns when the last
// goroutine of the module has ended; a second call does nothing.
func (m *Module) Close() error {
	m.cancel()
	err := m.uart.close()
	m.air.closeAll()
	m.wg.Wait()
	m.air.closeAll()
	return err
}

// SetTraps replaces all traps. The command that is executing keeps the old.
func (m *Module) SetTraps(t Traps) { _ = m.do(func() { m.traps = t }) }

// Refuse makes the module report this CONNACK return code from now on, as if
// the broker had given it (MQTT 3.1.1, 3.2.2.3); the broker sees no CONNECT.
// 0 is whatever the broker says.
func (m *Module) Refuse(code byte) { _ = m.do(func() { m.refuse = code }) }

// Reboot cuts the power for a moment, in the middle of whatever is going on.
func (m *Module) Reboot() { _ = m.do(m.reboot) }

// run is the engine: it owns the state of the module.
func (m *Module) run() {
	defer m.dropSockets()
	defer m.dropSession()
	for {
		select {
		case <-m.ctx.Done():
			return
		case c := <-m.in:
			m.receive(c)
		case f := <-m.acts:
			f()
		case <-m.sched.timer.C:
			m.sched.fire()
		}
	}
}

// do runs f on the engine goroutine and waits for it.
func (m *Module) do(f func()) error {
	done := make(chan struct{})
	if !m.post(func() { f(); close(done) }) {
		return errClosed
	}
	select {
	case <-done:
		return nil
	case <-m.ctx.Done():
		return errClosed
	}
}

// post hands f to the engine. It must not be called from the engine goroutine,
// which would wait for itself; that one uses after(0, f).
func (m *Module) post(f func()) bool {
	select {
	case m.acts <- f:
		return true
	case <-m.ctx.Done():
		return false
	}
}

// after runs f on the engine goroutine in d, unless the module reboots before.
// Only called from the engine goroutine.
func (m *Module) after(d time.Duration, f func()) { m.sched.add(d, f) }

// spawn starts a goroutine that Close waits for.
func (m *Module) spawn(f func()) {
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		f()
	}()
}
