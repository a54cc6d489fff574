package edge

import (
	"errors"
	"net"
	"time"
)

// acceptLoop runs until ln is closed. Errors that pass by themselves (no more
// descriptors, a connection reset before it was accepted) are waited out.
func (s *Server) acceptLoop(ln net.Listener) error {
	delay := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if err != nil {
			select {
			case <-s.quit:
				return nil
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.Warn("accept failed, trying again", "address", ln.Addr().String(), "error", err, "delay", delay)
			select {
			case <-s.quit:
				return nil
			case <-time.After(delay):
			}
			continue
		}
		delay = 0
		s.admit(nc)
	}
}

// admit starts the goroutines of a connection, or closes it if there are too
// many, or too many in a short time of one address: a client that is refused before CONNECT tries again later.
func (s *Server) admit(nc net.Conn) {
	delay := s.arrivals.take(addressOf(nc.RemoteAddr().String()), s.limits.MaxConnectRate, s.limits.ConnectTimeout)
	if delay > s.limits.ConnectTimeout {
		nc.Close()
		if s.stats.refusedConnections.Add(1)%100 == 1 {
			s.log.Warn("connection refused: too many come from its address; see limits.max_connect_rate, or find who connects so often",
				"remote", nc.RemoteAddr().String(), "limit", s.limits.MaxConnectRate)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		nc.Close()
		return
	}
	if len(s.conns) >= s.limits.MaxConnections {
		nc.Close()
		if s.stats.refusedConnections.Add(1)%100 == 1 {
			s.log.Warn("connection refused: too many clients; raise limits.max_connections or find who connects so often",
				"remote", nc.RemoteAddr().String(), "limit", s.limits.MaxConnections)
		}
		return
	}
	c := newConn(s, nc)
	c.delay = delay
	s.conns[c] = struct{}{}
	s.stats.connections.Add(1)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		c.serve()
	}()
}
