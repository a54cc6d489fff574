package modem

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"
)

// openNamed opens the port of the options. One that is named by what is plugged
// in is looked for at each opening: it may have another number now. Where the
// device has several ports, the one that answers AT is taken; if none does (the
// module is still starting), the one that did last, or the first.
func (m *Modem) openNamed(ctx context.Context) (io.ReadWriteCloser, error) {
	u, named, err := parseUSBPort(m.o.Port)
	if err != nil {
		return nil, err
	}
	if !named {
		return m.openDevice(m.o.Port)
	}
	found, err := u.find(m.tree.named())
	if err != nil {
		return nil, err
	}
	if len(found) == 1 {
		return m.openFound(found[0])
	}
	var errs []error
	for i, p := range found {
		if p.Interface == m.iface {
			found[0], found[i] = found[i], found[0]
		}
	}
	for _, p := range found {
		port, err := openSerial(p.Name, m.baud)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		answers := port.answers(m.o.Timing.SyncWait)
		port.Close()
		if answers {
			return m.openFound(p)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if len(errs) == len(found) {
		return nil, errors.Join(errs...)
	}
	return m.openFound(found[0])
}

func (m *Modem) openFound(p PortInfo) (io.ReadWriteCloser, error) {
	port, err := m.openDevice(p.Name)
	if err != nil {
		return nil, err
	}
	m.iface = p.Interface
	if m.Status().Device != p.Name {
		m.log.Info("the module's port was found", "port", m.o.Port, "device", p.Name)
	}
	m.learn(func(s *Status) { s.Device = p.Name })
	return port, nil
}

func (m *Modem) openDevice(name string) (io.ReadWriteCloser, error) {
	port, err := openSerial(name, m.baud)
	if err != nil {
		return nil, err // not port: a nil *serialPort is no nil interface
	}
	return port, nil
}

// answers reports whether the port answers AT within wait.
func (p *serialPort) answers(wait time.Duration) bool {
	if p.file.SetDeadline(time.Now().Add(wait)) != nil {
		return false
	}
	defer p.file.SetDeadline(time.Time{})
	if _, err := p.file.Write([]byte("AT\r")); err != nil {
		return false
	}
	var heard []byte
	buf := make([]byte, 256)
	for len(heard) < 4096 {
		n, err := p.file.Read(buf)
		heard = append(heard, buf[:n]...)
		if bytes.Contains(heard, []byte("\r\nOK\r\n")) || bytes.Contains(heard, []byte("\r\nERROR\r\n")) {
			return true
		}
		if err != nil {
			return false
		}
	}
	return false
}
