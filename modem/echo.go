package modem

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"holdfast"
	"holdfast/modem/at"
)

// The firmware says "connected" for as long as it has not noticed otherwise, which
// takes several times the keep alive, and with some for ever; nothing on the host
// can look at the TCP connection. So when the broker has said nothing for a whole
// keep alive, it is asked for something that costs no more than a ping, changes
// nothing, and needs no rights: to end a subscription that was never made.
// Only a module that has passed an answer on before is believed when there is none:
// a firmware may swallow it.

// echoFilter is that of the subscription.
const echoFilter = "holdfast/echo"

var (
	// errNoEcho: the firmware has no such command, or does not send it.
	errNoEcho = errors.New("the module's firmware cannot test its connection")
	// errHalfOpen: there was no answer.
	errHalfOpen = errors.New("the broker does not answer any more, although the module takes the connection for good")
)

// note remembers that the broker has just been heard.
func (s *Session) note() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = time.Now()
}

// testLink asks for a sign of life whenever there was none for a keep alive, until
// the session ends. While publishes are under way their own timers do that.
func (s *Session) testLink() {
	every := time.Duration(keepAliveSeconds(s.login)) * time.Second
	for {
		s.mu.Lock()
		wait := every - time.Since(s.heard)
		if len(s.inflight) > 0 {
			wait = max(wait, every/4)
		}
		s.mu.Unlock()
		if wait > 0 {
			if !sleep(s.ctx, wait) {
				return
			}
			continue
		}
		s.mu.Lock()
		id := s.takeIDLocked()
		s.mu.Unlock()
		asked := time.Now()
		switch err := s.mqtt.echo(s.ctx, s, id); {
		case err == nil:
			s.note()
			s.m.mu.Lock()
			s.m.echoed = true
			s.m.mu.Unlock()
		case s.ctx.Err() != nil:
			return
		case errors.Is(err, errNoEcho):
			s.log.Info("a connection that is half open will be noticed late", "error", err)
			return
		case errors.Is(err, at.ErrTimeout) && s.heardSince(asked):
			// The broker is there; it had something else to say.
		case errors.Is(err, at.ErrTimeout) && !s.m.hasEchoed():
			s.log.Info("the module has never passed on an answer to a test of its connection; one that is half open will be noticed late", "error", err)
			return
		default:
			s.m.learn(func(st *Status) { st.Counters.AckTimeouts++ })
			s.fail(fmt.Errorf("%w (%w)", errHalfOpen, err))
			return
		}
	}
}

func (s *Session) heardSince(t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard.After(t)
}

// hasEchoed reports whether the module has passed on an answer.
func (m *Modem) hasEchoed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.echoed
}

// ask runs a command whose result is a URC, and returns its arguments. It waits for the result as for the acknowledgement of a
// publish. A module that refuses the command while it is connected has none.
func (s *Session) ask(ctx context.Context, c at.Command, result func(at.Line) bool, state func(context.Context) (connected bool, err error)) ([]string, error) {
	w := s.e.Expect(result)
	defer w.Stop()
	if _, err := s.e.Do(s.cmd, c); err != nil { // let run out: see Session.cmd
		if !at.IsRejection(err) {
			return nil, err
		}
		if connected, stateErr := state(s.cmd); stateErr == nil && !connected {
			return nil, fmt.Errorf("the module is not connected: %w", err)
		}
		return nil, fmt.Errorf("%w: %w", errNoEcho, err)
	}
	l, err := s.wait(ctx, w, s.m.o.Timing.Ack)
	if err != nil {
		return nil, err
	}
	return at.Args(l.Text), nil
}

// echo: the result is 0 or 1 for an answer, 2 if it could not be sent.
func (c *ecmt) echo(ctx context.Context, s *Session, id uint16) error {
	connected := func(ctx context.Context) (bool, error) {
		state, err := c.m.ecmtState(ctx, c.e)
		return state == ecmtConnected || state == ecmtUnknown, err
	}
	a, err := s.ask(ctx, at.Command{Text: fmt.Sprintf(`AT+ECMTUNS=0,%d,"%s"`, id, echoFilter)}, isLine("+ECMTUNS", "0", strconv.Itoa(int(id))), connected)
	if err == nil && len(a) >= 3 && a[2] == "2" {
		err = fmt.Errorf("the module could not send: %w", holdfast.ErrUnknown)
	}
	return err
}

// echo: the result is 0 for an answer, 2 for none. 1 says that it is sent again, for
// there was none yet, and another result follows.
func (c *qmt) echo(ctx context.Context, s *Session, id uint16) error {
	connected := func(ctx context.Context) (bool, error) {
		state, err := c.state(ctx)
		return state == qmtConnected, err
	}
	mine, again := isLine("+QMTUNS", "0", strconv.Itoa(int(id))), isLine("+QMTUNS", "0", strconv.Itoa(int(id)), "1")
	result := func(l at.Line) bool { return mine(l) && !again(l) }
	a, err := s.ask(ctx, at.Command{Text: fmt.Sprintf(`AT+QMTUNS=0,%d,"%s"`, id, echoFilter)}, result, connected)
	if err == nil && len(a) >= 3 && a[2] == "2" {
		err = fmt.Errorf("the module could not send: %w", holdfast.ErrUnknown)
	}
	return err
}

// echo: the firmware may know by itself that there is nothing to end. That is no
// answer of the broker, and no sign of a lost connection.
func (c *cmqtt) echo(ctx context.Context, s *Session, _ uint16) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.finish()
	connected := func(context.Context) (bool, error) { return true, nil } // it says so by itself
	a, err := s.ask(ctx, at.Command{
		Text: fmt.Sprintf("AT+CMQTTUNSUB=0,%d,0", len(echoFilter)), Payload: []byte(echoFilter),
	}, isLine("+CMQTTUNSUB", "0"), connected)
	if err != nil || len(a) < 2 || a[len(a)-1] == "0" {
		return err
	}
	code := a[len(a)-1]
	err = fmt.Errorf("the module could not send: %s", cmqttWords(code))
	if !slices.Contains([]string{"11", "17", "26"}, code) {
		err = fmt.Errorf("%w: %w", errNoEcho, err)
	}
	return err
}
