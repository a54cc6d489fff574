package modem

import (
	"context"
	"errors"
	"fmt"

	"holdfast/modem/at"
)

// detect finds out by asking what the firmware has: the same chip is sold with
// several. Whatever one bring-up finds holds for its link.
func (m *Modem) detect(ctx context.Context, l *link) error {
	var found firmware
	var err error
	if m.o.Interface != "" { // what else it has is not used
		l.firmware.Store(&found)
		return nil
	}
	if m.o.Mode != "mqtt" {
		if found.sockets, err = m.detectSockets(ctx, l); err != nil {
			return err
		}
	}
	m.learn(func(s *Status) {
		if s.Sockets = ""; found.sockets != nil {
			s.Sockets = found.sockets.name()
		}
	})
	if m.o.Mode == "socket" {
		if found.sockets == nil {
			return needsPerson{fmt.Errorf("%w; set mode = \"mqtt\", or use it as a network interface "+
				"(PPP or USB) and set interface in [[modem]]", errNoSocket)}
		}
	} else if found.mqtt, err = m.detectDialect(ctx, l); err != nil {
		var person needsPerson
		if !errors.As(err, &person) || found.sockets == nil {
			return err
		} // the sockets do
	}
	l.firmware.Store(&found)
	return nil
}

// detectSockets looks for TCP sockets; nil without. Firmware that has both kinds
// is rare; the one whose bytes cross the line as they are comes first.
func (m *Modem) detectSockets(ctx context.Context, l *link) (socketCommands, error) {
	for _, c := range []struct {
		probe, prefix string
		commands      socketCommands
	}{
		{"AT+QIOPEN=?", "+QIOPEN", &qiSockets{m: m, e: l.e}},
		{"AT+ECSOCR=?", "+ECSOCR", &ecsoSockets{m: m, e: l.e}},
	} {
		_, err := m.ask(ctx, l.e, at.Command{Text: c.probe, Prefixes: []string{c.prefix}})
		switch {
		case err == nil:
			return c.commands, nil
		case !lacks(ctx, err):
			return nil, err
		}
	}
	return nil, nil
}

// detectDialect finds the MQTT dialect. One that was configured is believed.
func (m *Modem) detectDialect(ctx context.Context, l *link) (mqttCommands, error) {
	simcom := newCMQTT(m, l.e)
	for _, d := range []struct {
		name, probe, prefix string
		commands            mqttCommands
	}{
		{"ecmt", "AT+ECMTCFG=?", "+ECMTCFG", &ecmt{m: m, e: l.e}},
		{"qmt", "AT+QMTOPEN=?", "+QMTOPEN", &qmt{m: m, e: l.e}},
		{"cmqtt", "AT+CMQTTCONNECT=?", "+CMQTTCONNECT", simcom},
		// Not every firmware has a test form for each of its commands.
		{"cmqtt", "AT+CMQTTACCQ=?", "+CMQTTACCQ", simcom},
		{"cmqtt", "AT+CMQTTSTART=?", "+CMQTTSTART", simcom},
		{"mqtt", "AT+MQTTCFG=?", "+MQTTCFG", nil},
		{"airm2m", "AT+MCONFIG=?", "+MCONFIG", nil},
	} {
		if m.o.Dialect == d.name {
			m.learn(func(s *Status) { s.Dialect = d.name })
			return d.commands, nil
		}
		if m.o.Dialect != "" && m.o.Dialect != "auto" {
			continue
		}
		_, err := m.ask(ctx, l.e, at.Command{Text: d.probe, Prefixes: []string{d.prefix}})
		switch {
		case err == nil && d.commands != nil:
			m.learn(func(s *Status) { s.Dialect = d.name })
			return d.commands, nil
		case err == nil:
			return nil, needsPerson{fmt.Errorf("the module speaks the MQTT commands %q, which are not supported; "+
				"use it as a network interface (PPP or USB) and set interface in [[modem]]", d.name)}
		case !lacks(ctx, err):
			return nil, err
		}
	}
	return nil, needsPerson{errors.New("the module has no MQTT commands that are known here; " +
		"use it as a network interface (PPP or USB) and set interface in [[modem]]")}
}
