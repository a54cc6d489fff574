package sim

import (
	"context"
	"net"
	"strconv"
)

// The commands for TCP sockets that a firmware can have.
const (
	SocketsECSO = "ecso" // Eigencomm: AT+ECSOCR and so on, bytes in hex
	SocketsQI   = "qi"   // Quectel's: AT+QIOPEN and so on, bytes as they are
	SocketsNone = "none"
)

const (
	// maxSockets is how many there are.
	maxSockets = 10
	// socketRoom is what a socket keeps of what has come, in bytes. When it is
	// full, the far side's TCP waits.
	socketRoom = 8 << 10
	// socketSends is how many sends wait for the air.
	socketSends = 8
)

// sockets are those of the module. Only accessed from the engine goroutine.
type sockets struct {
	all  map[int]*tcpSocket
	mode int // of +ECSONMI
}

func (s *sockets) reset() { *s = sockets{all: make(map[int]*tcpSocket), mode: 1} }

// tcpSocket is one socket. What is not marked is only accessed from the engine
// goroutine.
type tcpSocket struct {
	id     int
	ctx    context.Context // ends with the socket
	cancel context.CancelFunc
	air    *airConn // nil until it is connected
	rx     []byte
	told   bool // that there is something in rx
	ended  bool // the far side has closed it
	sends  chan send
	last   chan struct{} // closed when no send will follow
	queued int           // sends that the air has not taken
	more   chan struct{} // capacity 1: rx has room
}

type send struct {
	b    []byte
	done func(err error)
}

func (m *Module) newSocket(id int) *tcpSocket {
	s := &tcpSocket{id: id, sends: make(chan send, socketSends), last: make(chan struct{}), more: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(m.ctx)
	m.socks.all[id] = s
	return s
}

// freeSocket is the lowest number that is not in use, -1 if there is none.
func (m *Module) freeSocket() int {
	for id := range maxSockets {
		if m.socks.all[id] == nil {
			return id
		}
	}
	return -1
}

// connectSocket dials, and tells then on the engine goroutine, unless the socket
// is gone by that time.
func (m *Module) connectSocket(s *tcpSocket, host string, port int, then func(err error)) {
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	m.spawn(func() {
		ctx, cancel := context.WithTimeout(s.ctx, m.opt.ConnectTimeout)
		defer cancel()
		a, err := m.dial(ctx, addr)
		posted := m.post(func() {
			switch {
			case m.socks.all[s.id] != s:
				if a != nil {
					a.Close()
				}
				return
			case err == nil:
				s.air = a
				m.stats.count(func(st *Stats) { st.Connects++ })
				m.spawn(func() { s.sendTask(m) })
				m.spawn(func() { s.receiveTask(m) })
			}
			then(err)
		})
		if !posted && a != nil {
			a.Close()
		}
	})
}

// sendTask is the only one that writes, so that what was taken goes in its order,
// and the connection is closed behind the last of it.
func (s *tcpSocket) sendTask(m *Module) {
	defer s.cancel()
	defer s.air.Close()
	write := func(j send) bool {
		_, err := s.air.Write(j.b)
		m.post(func() {
			if m.socks.all[s.id] == s {
				s.queued--
				j.done(err)
			}
		})
		return err == nil
	}
	for {
		select {
		case j := <-s.sends:
			write(j)
		case <-s.last:
			for {
				select {
				case j := <-s.sends:
					if !write(j) {
						return
					}
					continue
				default:
				}
				s.air.drain(m.opt.ConnectTimeout)
				return
			}
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *tcpSocket) receiveTask(m *Module) {
	buf := make([]byte, 1460)
	for {
		n, err := s.air.Read(buf)
		b := append([]byte(nil), buf[:n]...)
		room := true
		m.post(func() {
			if m.socks.all[s.id] != s {
				return
			}
			if len(b) > 0 {
				m.arrived(s, b)
			}
			if err != nil {
				m.socketClosed(s)
			}
			if room = len(s.rx) < socketRoom; room {
				signal(s.more)
			}
		})
		if err != nil {
			return
		}
		select {
		case <-s.more:
		case <-s.ctx.Done():
			return
		}
	}
}

// arrived takes bytes of the far side.
func (m *Module) arrived(s *tcpSocket, b []byte) {
	s.rx = append(s.rx, b...)
	m.notify(s)
}

func (m *Module) socketClosed(s *tcpSocket) {
	if s.ended {
		return
	}
	s.ended = true
	m.notifyClosed(s)
}

// takeRx takes up to n bytes that have come.
func (s *tcpSocket) takeRx(n int) []byte {
	n = min(n, len(s.rx))
	b := s.rx[:n:n]
	s.rx = s.rx[n:]
	if len(s.rx) < socketRoom {
		signal(s.more)
	}
	return b
}

// closeSocket closes when all that was taken is sent.
func (m *Module) closeSocket(s *tcpSocket) {
	delete(m.socks.all, s.id)
	close(s.last)
	if s.air == nil {
		s.cancel()
	}
}

// dropSockets is what a loss of power does to all of them.
func (m *Module) dropSockets() {
	for _, s := range m.socks.all {
		s.cancel()
		if s.air != nil {
			s.air.Close()
		}
	}
	m.socks.reset()
}

// breakSockets is for a radio that takes its sockets away.
func (m *Module) breakSockets() {
	for _, s := range m.socks.all {
		if s.air != nil {
			s.air.Close()
		}
		m.socketClosed(s)
	}
}
