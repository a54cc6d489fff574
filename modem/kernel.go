package modem

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// A module that gives the board a network interface (PPP, or a USB network card)
// carries connections by that. Its AT port is for the signal, the SIM and recovery
// alone: a connection does not wait for it, and while one lives the module is not
// reset, whatever the AT port says.

// dialKernel opens a connection over the interface.
func (m *Modem) dialKernel(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := m.o.Dial(ctx, network, address)
	m.judge(err)
	if errors.Is(err, syscall.ENODEV) {
		return nil, fmt.Errorf("modem %s: there is no interface %s now; is pppd running, or the module's USB network switched on? (ip link): %w",
			m.o.Name, m.o.Interface, err)
	}
	if err != nil {
		return nil, fmt.Errorf("modem %s: %w", m.o.Name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.carried++
	m.status.Connections = m.carried
	return &kernelConn{Conn: c, m: m}, nil
}

// judge tells from an attempt over the interface what it says of the module. Names
// are looked up by whatever way the board has, and a far side that refuses was
// reached.
func (m *Modem) judge(err error) {
	if l := m.judged(err); l != nil {
		m.endLink(l, fmt.Errorf("%w: %w", errInterface, err))
	}
}

// judged returns the link of a module that is to be reset: at 3 failures, and again
// after twice as many each time.
func (m *Modem) judged(err error) *link {
	m.mu.Lock()
	defer m.mu.Unlock()
	var dns *net.DNSError
	switch {
	case err == nil, errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		m.proved = true
		m.opens = 0
		return nil
	case errors.As(err, &dns), errors.Is(err, context.Canceled), errors.Is(err, syscall.EPERM), m.carried > 0:
		return nil
	}
	m.opens++
	third := m.opens / 3
	if m.opens%3 != 0 || third&(third-1) != 0 {
		return nil
	}
	return m.link
}

// errInterface: opening the port again is of no use.
var errInterface = fmt.Errorf("%w: nothing gets through its network interface", errStuck)

// carries reports whether a connection over the interface lives.
func (m *Modem) carries() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.carried > 0
}

// kernelConn is counted until it is closed.
type kernelConn struct {
	net.Conn
	m    *Modem
	once sync.Once
}

func (c *kernelConn) Close() error {
	c.once.Do(func() {
		c.m.mu.Lock()
		defer c.m.mu.Unlock()
		c.m.carried--
		c.m.status.Connections = c.m.carried
	})
	return c.Conn.Close()
}
