package modem

import (
	"context"
	"errors"
	"fmt"

	"holdfast/modem/at"
)

// flowing is a port whose RTS and CTS can be switched on and off.
type flowing interface{ SetFlowControl(on bool) error }

// forgetFlowControl is for a module that has restarted: it does not drive its RTS
// now, and would not hear a word.
func (m *Modem) forgetFlowControl(l *link) error {
	if !l.flow {
		return nil
	}
	l.flow = false
	if err := l.port.(flowing).SetFlowControl(false); err != nil {
		return fmt.Errorf("switching RTS/CTS off: %w", err)
	}
	return nil
}

// setFlowControl makes both ends of the line use RTS and CTS, the module first
// (AT+IFC, V.250 6.2.12): until then it does not drive its RTS, and a UART that
// waits for it sends nothing. Where the module cannot be heard any more with them,
// they are not wired, and both ends go on without.
func (m *Modem) setFlowControl(ctx context.Context, l *link) error {
	port, ok := l.port.(flowing)
	if !m.o.FlowControl || !ok {
		return nil
	}
	if _, err := m.ask(ctx, l.e, at.Command{Text: "AT+IFC=2,2"}); err != nil {
		if lacks(ctx, err) {
			m.log.Warn("the module does not take flow_control (AT+IFC=2,2); the line goes on without", "error", err)
			return nil
		}
		return err
	}
	if err := port.SetFlowControl(true); err != nil {
		return fmt.Errorf("switching RTS/CTS on: %w; set flow_control = false if the port has no such lines", err)
	}
	err := l.e.Probe(ctx)
	if !errors.Is(err, at.ErrUnsynced) {
		l.flow = true
		return err
	}
	m.log.Warn("the module is not heard with RTS and CTS: are both wired? The line goes on without; set flow_control = false if they are not")
	if err := port.SetFlowControl(false); err != nil {
		return fmt.Errorf("switching RTS/CTS off: %w", err)
	}
	if err := l.e.Probe(ctx); err != nil {
		return err
	}
	_, err = m.wish(ctx, l.e, at.Command{Text: "AT+IFC=0,0"})
	return err
}
