package bridge

import (
	"context"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SocketMeter counts what the connections of a Dialer carry, both ways, as the
// kernel tells of each (TCP_INFO, tcp(7)): segments with their headers, what is
// sent again, and bare acknowledgements. It is for a link whose interface carries
// other things too. It is safe for concurrent use.
type SocketMeter struct {
	life string // of this process

	mu    sync.Mutex
	ended uint64 // of connections that are closed, and of attempts
	live  map[*meteredConn]struct{}
}

const (
	// attemptBytes is for what is not seen of an attempt: looking up the name, the
	// segments behind Close, or those of an attempt in vain.
	attemptBytes = 500
	// segmentHeader is IPv4 and TCP with time stamps; IPv6 has 20 more.
	segmentHeader = 52
)

// NewSocketMeter begins at 0.
func NewSocketMeter() *SocketMeter {
	return &SocketMeter{life: "process " + strconv.FormatInt(time.Now().UnixNano(), 36), live: map[*meteredConn]struct{}{}}
}

// Dialer is d, counted. What d returns must be a TCP connection of the kernel;
// another one counts as its attempt alone.
func (m *SocketMeter) Dialer(d Dialer) Dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		m.mu.Lock()
		m.ended += attemptBytes
		m.mu.Unlock()
		c, err := d(ctx, network, address)
		if err != nil {
			return nil, err
		}
		mc := &meteredConn{Conn: c, m: m, header: segmentHeader}
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok && a.IP.To4() == nil {
			mc.header += 20
		}
		m.mu.Lock()
		m.live[mc] = struct{}{}
		m.mu.Unlock()
		return mc, nil
	}
}

// Count is PlanOptions.Count.
func (m *SocketMeter) Count() Counted {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := m.ended
	for c := range m.live {
		sum += c.carried()
	}
	return Counted{Parts: map[string]uint64{m.life: sum}, First: sum}
}

// meteredConn is counted until it is closed.
type meteredConn struct {
	net.Conn
	m      *SocketMeter
	header uint64
	last   uint64 // of carried; guarded by m.mu
}

// carried is what has crossed the link.
func (c *meteredConn) carried() uint64 {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return c.last
	}
	_ = raw.Control(func(fd uintptr) { // closed already: it stays at the last
		if i, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			segments := uint64(i.Segs_out) + uint64(i.Segs_in)
			c.last = max(c.last, max(i.Bytes_sent, i.Bytes_acked)+i.Bytes_received+segments*c.header)
		}
	})
	return c.last
}

func (c *meteredConn) Close() error {
	c.m.mu.Lock()
	if _, live := c.m.live[c]; live {
		c.m.ended += c.carried()
		delete(c.m.live, c)
	}
	c.m.mu.Unlock()
	return c.Conn.Close()
}
