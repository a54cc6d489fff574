package modem

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// Read is net.Conn's.
func (s *socket) Read(p []byte) (int, error) {
	for {
		passed, anew := s.readBy.watch()
		select {
		case <-passed:
			if !s.isClosed() {
				return 0, s.opError("read", os.ErrDeadlineExceeded)
			}
		default:
		}
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return 0, s.opError("read", net.ErrClosed)
		case len(p) == 0:
			s.mu.Unlock()
			return 0, nil
		case len(s.in) > 0:
			n := copy(p, s.in)
			if s.in = s.in[n:]; len(s.in) == 0 {
				s.in = nil
			}
			s.mu.Unlock()
			s.wakeUp()
			return n, nil
		case s.err != nil:
			err := s.err
			s.mu.Unlock()
			if err == io.EOF {
				return 0, io.EOF
			}
			return 0, s.opError("read", err)
		}
		change := s.change
		s.mu.Unlock()
		select {
		case <-change:
		case <-passed:
		case <-anew:
		}
	}
}

// Write is net.Conn's: it returns when all of p is in the buffer that is sent
// from, which is not yet the far side.
func (s *socket) Write(p []byte) (n int, err error) {
	for {
		passed, anew := s.writeBy.watch()
		select {
		case <-passed:
			if !s.isClosed() {
				return n, s.opError("write", os.ErrDeadlineExceeded)
			}
		default:
		}
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return n, s.opError("write", net.ErrClosed)
		case s.err != nil || s.eof:
			err := s.err
			s.mu.Unlock()
			if err == nil || err == io.EOF {
				err = errors.New("the far side has closed the connection")
			}
			return n, s.opError("write", err)
		}
		if room := min(socketBuffer-len(s.out), len(p)-n); room > 0 {
			s.out = append(s.out, p[n:n+room]...)
			n += room
			s.wakeUp()
		}
		change := s.change
		s.mu.Unlock()
		if n == len(p) {
			return n, nil
		}
		select {
		case <-change:
		case <-passed:
		case <-anew:
		}
	}
}

// Close sends what is left, for Timing.Close at most, and closes the socket in
// the module. It must not be called from Options.URC of the engine.
func (s *socket) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.ended
		return s.opError("close", net.ErrClosed)
	}
	s.closed = true
	s.changedLocked()
	s.mu.Unlock()
	s.readBy.stop()
	s.writeBy.stop()
	s.wakeUp()
	t := time.AfterFunc(s.m.o.Timing.Close, func() {
		s.fail(errors.New("it took too long to send what was left"))
		s.cancel()
	})
	defer t.Stop()
	<-s.ended
	return nil
}

func (s *socket) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *socket) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.remote, Err: err}
}

// LocalAddr names the modem: the address of the socket is the operator's.
func (s *socket) LocalAddr() net.Addr { return socketAddr{"modem " + s.m.o.Name} }

// RemoteAddr is the address that was dialled.
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// SetDeadline is net.Conn's.
func (s *socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline is net.Conn's.
func (s *socket) SetReadDeadline(t time.Time) error {
	if s.isClosed() {
		return s.opError("set", net.ErrClosed)
	}
	s.readBy.set(t)
	return nil
}

// SetWriteDeadline is net.Conn's.
func (s *socket) SetWriteDeadline(t time.Time) error {
	if s.isClosed() {
		return s.opError("set", net.ErrClosed)
	}
	s.writeBy.set(t)
	return nil
}

var _ net.Conn = (*socket)(nil)
