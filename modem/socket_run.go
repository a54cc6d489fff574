package modem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"holdfast/modem/at"
)

// run is the goroutine that moves the bytes, until Close or the end of the
// connection.
func (s *socket) run(ctx context.Context) {
	defer close(s.ended)
	poll := time.NewTimer(socketPoll)
	defer poll.Stop()
	refused := 0
	for {
		worked, err := s.step(ctx, &refused)
		switch {
		case err != nil:
			s.fail(err)
		case worked:
			continue
		}
		if s.over() {
			break
		}
		wait := socketPoll
		if refused > 0 {
			wait = s.m.o.Timing.SyncWait / 5 // the module has no room; it says nothing when it has
		}
		poll.Reset(wait)
		select {
		case <-s.wake:
		case <-poll.C:
			s.mu.Lock()
			s.readable = s.readable || s.err == nil && !s.closed
			s.mu.Unlock()
		case <-s.e.Done():
			s.fail(s.e.Err())
		}
	}
	s.m.socketEnded(s)
}

// over reports whether there is nothing more to do, and when.
func (s *socket) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil && (s.closed || s.err != io.EOF) || s.closed && len(s.out) == 0
}

// step sends one piece and takes one piece, and reports whether it did anything.
func (s *socket) step(ctx context.Context, refused *int) (worked bool, err error) {
	waits := s.m.acksSockets()
	s.mu.Lock()
	silent := s.forgetUnackedLocked()
	n := min(len(s.out), s.commands.chunk())
	if len(s.unacked) >= socketWindow && waits || s.eof && s.closed {
		n = 0
	}
	p := append([]byte(nil), s.out[:n]...)
	room := socketBuffer - len(s.in)
	take := s.readable && room >= socketBuffer/4 && !s.closed && (!s.pushes || s.eof)
	if n == s.commands.chunk() && time.Since(s.lastRead) < readEvery {
		take = false
	}
	if s.eof && s.closed {
		s.out = nil // nobody is there to take it
	}
	s.mu.Unlock()
	if silent {
		s.m.setAcksSockets(false)
	}
	if n > 0 {
		sent, err := s.commands.send(ctx, s, p)
		switch {
		case at.IsRejection(err):
			if *refused++; *refused > socketRetries {
				return false, fmt.Errorf("the module does not take bytes for the connection any more (%w)", err)
			}
		case err != nil:
			return false, fmt.Errorf("nobody knows what the module has taken: %w", err)
		default:
			*refused = 0
			s.mu.Lock()
			s.out = s.out[sent:]
			if len(s.out) == 0 {
				s.out = nil
			}
			s.changedLocked()
			s.mu.Unlock()
			s.m.learn(func(st *Status) { st.Counters.PayloadOut += uint64(sent) })
			s.m.meter.sent(sent)
			worked = sent > 0
		}
	}
	if !take {
		return worked, nil
	}
	s.mu.Lock()
	s.lastRead = time.Now()
	s.readable = false // an announcement from here on is of new bytes
	s.mu.Unlock()
	got, more, err := s.commands.receive(ctx, s, room)
	if at.IsRejection(err) { // it is closed, if not by what was said then by this
		s.end()
		return worked, nil
	}
	if err != nil {
		return worked, fmt.Errorf("nobody knows what the module has given: %w", err)
	}
	s.m.arrived(len(got))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in = append(s.in, got...)
	s.readable = s.readable || more
	if len(got) == 0 && !s.readable && s.eof && s.err == nil {
		s.err = io.EOF // all that it had was taken
	}
	if len(got) > 0 || s.err != nil {
		s.changedLocked()
	}
	return worked || len(got) > 0 || more, nil
}

const (
	// socketWindow is the most sends without an acknowledgement.
	socketWindow = 4
	// socketAckWait is how long one is waited for. Its line may have been lost; that
	// the bytes have arrived is for TCP to see to.
	socketAckWait = socketPoll
)

// forgetUnackedLocked gives up the acknowledgements that are overdue: their lines were
// lost. It reports whether none comes any more, so that none is to be waited for.
func (s *socket) forgetUnackedLocked() (silent bool) {
	overdue := func(_ int, at time.Time) bool { return time.Since(at) >= socketAckWait }
	had := len(s.unacked)
	maps.DeleteFunc(s.unacked, overdue)
	if len(s.unacked) == had || !overdue(0, s.lastAck) {
		return false
	}
	clear(s.unacked)
	return true
}

func (s *socket) changedLocked() {
	close(s.change)
	s.change = make(chan struct{})
}

func (s *socket) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// fail ends the connection for err.
func (s *socket) fail(err error) {
	s.mu.Lock()
	if s.err == nil || s.err == io.EOF && s.closed {
		s.err = fmt.Errorf("the connection through modem %s is lost: %w", s.m.o.Name, err)
	}
	s.changedLocked()
	s.mu.Unlock()
	s.wakeUp()
}

// end says that the far side has closed; what the module still has is taken
// first.
func (s *socket) end() {
	s.mu.Lock()
	if s.eof && s.err == nil && !s.readable {
		s.err = io.EOF
		s.changedLocked()
	}
	s.readable = s.readable || !s.eof
	s.eof = true
	s.mu.Unlock()
	s.wakeUp()
}

// event takes what the module has said of this socket.
func (s *socket) event(ev socketEvent) {
	if ev.failed {
		s.fail(errors.New("the module could not send"))
		return
	}
	s.m.arrived(len(ev.pushed))
	s.mu.Lock()
	if ev.acked != 0 {
		delete(s.unacked, ev.acked)
		s.lastAck = time.Now()
	}
	s.readable = s.readable || ev.readable
	if len(ev.pushed) > 0 {
		s.pushes = true
		if s.in = append(s.in, ev.pushed...); len(s.in) > pushedMost && s.err == nil {
			s.err = errors.New("the module pushes more than is read")
		}
		s.changedLocked()
	}
	s.mu.Unlock()
	if ev.closed {
		s.end()
	}
	s.wakeUp()
}
