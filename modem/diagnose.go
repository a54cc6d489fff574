package modem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"holdfast/modem/at"
)

// Check is what was found in one layer between the board and the network.
type Check struct {
	Layer string
	Took  time.Duration
	Found string // what is there, in words
	Err   error  // why it does not work and what to try; nil if it does
}

// weakSignal is the strength in dBm below which a connection comes and goes.
const weakSignal = -105

// Diagnose brings the module up once, in place of Run, and tells of each layer:
// port, AT, SIM, signal, registration, data. It ends at the first that does not
// work, since nothing above it can. If all do, then is called, and may connect and
// dial until it returns. Diagnose resets nothing and tries nothing twice.
func (m *Modem) Diagnose(ctx context.Context, report func(Check), then func(ctx context.Context)) error {
	m.mu.Lock()
	if m.running {
		m.mu.Unlock()
		return fmt.Errorf("modem %s is running already", m.o.Name)
	}
	m.running = true
	m.mu.Unlock()

	var l *link
	layer := func(name string, look func() (string, error)) error {
		begun := time.Now()
		found, err := look()
		report(Check{Layer: name, Took: time.Since(begun), Found: found, Err: err})
		return err
	}
	if err := layer("port", func() (string, error) {
		port, err := m.openPort(ctx)
		if err != nil {
			return "", err
		}
		l = m.begin(ctx, port)
		return fmt.Sprintf("%s at %d baud", m.wire(), m.baud), nil
	}); err != nil {
		return err
	}
	defer m.closeLink(l)
	for _, c := range []struct {
		name string
		look func() (string, error)
	}{
		{"at", func() (string, error) { return m.lookAT(ctx, l) }},
		{"sim", func() (string, error) {
			err := m.unlock(ctx, l.e)
			return m.Status().ICCID.Value, err
		}},
		{"signal", func() (string, error) { return m.lookSignal(ctx, l.e) }},
		{"registration", func() (string, error) {
			err := m.setAPN(ctx, l.e)
			if err == nil {
				err = m.register(ctx, l.e)
			}
			return m.Status().Registration.Value, err
		}},
		{"data", func() (string, error) { return m.lookData(ctx, l.e) }},
	} {
		if err := layer(c.name, c.look); err != nil {
			return err
		}
	}
	m.ready(l)
	if then != nil {
		then(ctx)
	}
	m.down(errors.New("the diagnosis is over"))
	return nil
}

func (m *Modem) lookAT(ctx context.Context, l *link) (string, error) {
	if err := m.answer(ctx, l); err != nil {
		return "", err
	}
	if err := m.setUp(ctx, l.e); err != nil {
		return "", err
	}
	if err := m.identify(ctx, l.e); err != nil {
		return "", err
	}
	if err := m.detect(ctx, l); err != nil {
		return "", err
	}
	if l.sockets() == nil && m.o.Interface == "" { // mode does not want them; for a comparison they are good
		sockets, err := m.detectSockets(ctx, l)
		if err != nil {
			return "", err
		}
		l.firmware.Store(&firmware{sockets: sockets, mqtt: l.mqtt()})
	}
	s := m.Status()
	found := fmt.Sprintf("%s, firmware %s, IMEI %s, at %d baud", s.Model.Value, s.Firmware.Value, s.IMEI.Value, s.Baud)
	if s.Dialect != "" {
		found += ", MQTT commands " + s.Dialect
	}
	if s.Sockets != "" {
		found += ", sockets " + s.Sockets
	}
	return found, nil
}

// lookSignal waits for a moment: after the radio was switched on it is not known.
func (m *Modem) lookSignal(ctx context.Context, e *at.Engine) (string, error) {
	end := time.Now().Add(m.o.Timing.SIM / 2)
	for {
		if err := m.askSignal(ctx, e); err != nil {
			return "", err
		}
		s := m.Status().Signal
		switch {
		case s.DBm < weakSignal:
			return fmt.Sprintf("%d dBm", s.DBm), fmt.Errorf("the signal is too weak (%d dBm; %d is the least for a steady connection); "+
				"check the antenna and its plug, or move it to a window or outside", s.DBm, weakSignal)
		case s.DBm != 0:
			found := fmt.Sprintf("%d dBm", s.DBm)
			if s.RSRP != 0 {
				found += fmt.Sprintf(", RSRP %g dBm, RSRQ %g dB", s.RSRP, s.RSRQ)
			}
			return found, nil
		case time.Now().After(end):
			return "none", errors.New("the module hears no network at all; check that the antenna is plugged into the right socket, " +
				"and that the operator has LTE here")
		}
		if !sleep(ctx, m.o.Timing.RegPoll) {
			return "", ctx.Err()
		}
	}
}

func (m *Modem) lookData(ctx context.Context, e *at.Engine) (string, error) {
	if err := m.attach(ctx, e); err != nil {
		return "", err
	}
	s := m.Status()
	if ip := s.IP.Value; ip == "" || ip == "0.0.0.0" {
		return "", errors.New("the network gave no address; check apn, apn_user and apn_password in [[modem]], " +
			"and that the SIM has data left")
	}
	return fmt.Sprintf("address %s, operator %s", s.IP.Value, s.Operator.Value), nil
}

// Ask sends one AT command and returns what the module says to it, line by line.
// It opens the port for it, in place of Run. The lines are as they came: they may
// have secrets in them.
func (m *Modem) Ask(ctx context.Context, text string) (lines []string, err error) {
	port, err := m.openPort(ctx)
	if err != nil {
		return nil, err
	}
	l := m.begin(ctx, port)
	defer m.closeLink(l)
	if err := m.answer(ctx, l); err != nil {
		return nil, err
	}
	r, err := l.e.Do(ctx, at.Command{
		Text: text, Bare: true, Timeout: m.o.Timing.Operator,
		Prefixes: []string{responseName(text)},
	})
	return append(r.Lines, r.Final), err
}

// responseName is the name that the answer to a command begins with.
func responseName(text string) string {
	name := text
	if len(name) > 2 {
		name = name[2:]
	}
	for i, c := range name {
		if c == '=' || c == '?' {
			return name[:i]
		}
	}
	return name
}
