package modem

import (
	"context"
	"errors"
	"fmt"

	"holdfast/modem/at"
)

// rates are those that modules are found at, the likely ones first: what
// modules come with, what AT+IPR was used for, what old boards ran.
var rates = []int{115200, 921600, 460800, 9600, 230400, 57600, 38400, 19200}

// rated is a port whose rate can be changed while it is open.
type rated interface{ SetBaud(baud int) error }

// searchBaud looks for the rate at which the module answers AT, once in a life
// of the port: a module keeps the rate of AT+IPR without power, and one that
// was set by another program is as good as dead otherwise. Without success the
// port is left at the rate that it had.
func (m *Modem) searchBaud(ctx context.Context, l *link) (found bool, err error) {
	port, ok := l.port.(rated)
	if !ok || l.searched || m.failures%4 != 0 { // it was looked for in the life before
		return false, nil
	}
	l.searched = true
	at0 := m.baud
	for _, rate := range rates {
		if rate == at0 {
			continue
		}
		if err := port.SetBaud(rate); err != nil {
			continue // this UART cannot
		}
		err := l.e.Probe(ctx)
		if err == nil {
			m.log.Warn("the module was found at another rate than baud says", "baud", at0, "found", rate)
			m.setBaud(rate)
			return true, nil
		}
		if !errors.Is(err, at.ErrUnsynced) {
			return false, err
		}
	}
	if err := port.SetBaud(at0); err != nil {
		return false, fmt.Errorf("going back to %d baud: %w", at0, err)
	}
	return false, nil
}

// setBaud notes the rate that the module runs at, also for the next start.
func (m *Modem) setBaud(rate int) {
	m.baud = rate
	m.learn(func(s *Status) { s.Baud = rate })
	if err := m.memory.keepBaud(m.o.Baud, rate); err != nil {
		m.log.Debug("the rate could not be written down", "error", err)
	}
}

// switchBaud raises the rate of the line by AT+IPR (V.250 6.2.10) to the one of
// the options, and makes sure that the module answers at it. A module that does
// not is looked for at the rate that it had.
func (m *Modem) switchBaud(ctx context.Context, l *link) error {
	want := m.o.BaudSwitch
	port, ok := l.port.(rated)
	if want == 0 || want == m.baud || !ok {
		return nil
	}
	had := m.baud
	_, err := l.e.Do(ctx, at.Command{Text: fmt.Sprintf("AT+IPR=%d", want)})
	if at.IsRejection(err) {
		m.log.Warn("the module does not take baud_switch; the line stays as it is", "baud", had, "error", err)
		return nil
	}
	if err != nil && !errors.Is(err, at.ErrTimeout) {
		return err
	}
	// The OK is sent at the old rate, and the new one holds from there on.
	if !sleep(ctx, m.o.Timing.Idle) {
		return ctx.Err()
	}
	for _, rate := range []int{want, had} {
		if err := port.SetBaud(rate); err != nil {
			m.log.Warn("the port does not run at this rate", "baud", rate, "error", err)
			continue
		}
		for range 3 {
			err := l.e.Probe(ctx)
			if err == nil {
				m.setBaud(rate)
				if rate != want {
					m.log.Warn("the module does not answer at baud_switch; the line stays as it was", "baud", rate)
				}
				return nil
			}
			if !errors.Is(err, at.ErrUnsynced) {
				return err
			}
		}
	}
	return fmt.Errorf("%w at %d baud after it was switched from %d; take baud_switch out", errSilent, want, had)
}
