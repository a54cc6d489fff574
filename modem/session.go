package modem

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/modem/at"
)

// Session is one MQTT connection inside the module. It is never reused: after
// Done is closed, Connect makes a new one.
//
// Downlink is at-most-once: the module acknowledges a message to the broker
// before the host has seen it, so the ack function of a received message is nil,
// and again is never true.
//
// Publishes carry no DUP flag, since the firmware does not resend, and a
// message whose acknowledgement did not come is of unknown fate.
type Session struct {
	m       *Modem
	e       *at.Engine
	mqtt    mqttCommands
	login   Login
	receive func(msg *holdfast.Message, again bool, ack func())
	log     *slog.Logger

	ctx    context.Context // ends with the session: for waits
	cancel context.CancelFunc
	// cmd ends when Close has no more time: a command under way is let run
	// out, since breaking it off costs a resync.
	cmd    context.Context
	giveUp context.CancelFunc
	outbox chan *publish
	inbox  chan *holdfast.Message
	early  []*holdfast.Message // came before; only deliver
	slots  chan struct{}       // one for each publish that the module has
	willed bool                // the far broker has a will of this connection
	done   chan struct{}
	ending chan struct{} // closed when nothing more is to be received
	wg     sync.WaitGroup
	closed sync.Once

	waiting atomic.Int64 // bytes in inbox

	live bool // it was made; guarded by m.mu

	mu       sync.Mutex // may be taken with m.mu held, never the other way round
	err      error
	inflight map[uint16]*publish
	seq      uint64
	subs     int
	rejected int       // publishes rejected one after the other
	heard    time.Time // when the broker was last heard
}

func newSession(m *Modem, e *at.Engine, commands mqttCommands, l Login, receive func(*holdfast.Message, bool, func())) *Session {
	ctx, cancel := context.WithCancel(context.Background())
	cmd, giveUp := context.WithCancel(context.Background())
	return &Session{
		m: m, e: e, mqtt: commands, login: l, receive: receive, log: m.log,
		ctx: ctx, cancel: cancel, cmd: cmd, giveUp: giveUp,
		outbox:   make(chan *publish, commands.window()+1),
		slots:    make(chan struct{}, commands.window()),
		inbox:    make(chan *holdfast.Message, inboxSize),
		done:     make(chan struct{}),
		ending:   make(chan struct{}),
		inflight: make(map[uint16]*publish),
	}
}

// start starts the goroutines; Close awaits them.
func (s *Session) start() {
	s.wg.Go(s.send)
	s.wg.Go(s.deliver)
}

// HasWill reports whether the far broker has a will of this connection.
func (s *Session) HasWill() bool { return s.willed }

// Done is closed when the connection is lost or closed.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is why the session ended; nil while it lives.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// fail ends the session for err, once: every publish under way is settled as
// unknown, in the order in which they were made.
func (s *Session) fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	var open []*publish
	for _, p := range s.inflight {
		open = append(open, p)
		if p.timer != nil {
			p.timer.Stop()
		}
	}
	clear(s.inflight)
	s.mu.Unlock()
	s.cancel()
	s.m.sessionEnded(s, err, open)
	close(s.done)
	slices.SortFunc(open, func(a, b *publish) int { return cmp.Compare(a.seq, b.seq) })
	for _, p := range open {
		p.done(unknown(err))
	}
}

// Close ends the connection, also inside the module, and waits for the
// session's goroutines; receive is not called any more after it. It takes no longer than Timing.Close, if receive comes
// back. It must not be called from receive or from a done.
func (s *Session) Close() error {
	s.closed.Do(func() {
		s.fail(holdfast.ErrClosed)
		ctx, cancel := context.WithTimeout(context.Background(), s.m.o.Timing.Close)
		defer cancel()
		defer context.AfterFunc(ctx, s.giveUp)()
		s.m.leave(ctx, s)
		s.stop()
	})
	return nil
}

// stop waits for the goroutines of a session that has ended.
func (s *Session) stop() {
	close(s.ending)
	s.wg.Wait()
	s.giveUp()
}

// sessionEnded counts, and keeps the identifiers of unfinished QoS 2 messages
// out of use.
func (m *Modem) sessionEnded(s *Session, err error, open []*publish) {
	for _, p := range open {
		if p.msg.QoS == 2 && !s.login.CleanSession {
			m.ids.avoid(p.id)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.live && m.status.State == StateConnected {
		m.setStateLocked(StateReady)
	}
	if s.live && !errors.Is(err, holdfast.ErrClosed) {
		m.status.Counters.Lost++
	}
	m.log.Info("modem connection ended", "error", err, "unsettled", len(open))
}

// leave disconnects the module, unless another connection has taken its place.
func (m *Modem) leave(ctx context.Context, s *Session) {
	select {
	case <-m.connecting:
		defer func() { m.connecting <- struct{}{} }()
	case <-ctx.Done():
		return
	}
	m.mu.Lock()
	mine := m.session == s
	m.mu.Unlock()
	if !mine {
		return
	}
	s.mqtt.leave(ctx) // s takes what comes meanwhile
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session = nil
}

// Subscribe asks for a filter. With ecmt, nil means only that the broker has
// answered: the firmware does not say what.
func (s *Session) Subscribe(ctx context.Context, filter string, qos byte) error {
	switch why := unquotable(filter); {
	case filter == "" || len(filter) > maxTopic:
		return fmt.Errorf("the filter has %d bytes, and this module takes 1 to %d: %w", len(filter), maxTopic, holdfast.ErrRefused)
	case why != "":
		return fmt.Errorf("the filter has %s, which an AT command cannot carry: %w", why, holdfast.ErrRefused)
	case qos > 2:
		return fmt.Errorf("QoS %d does not exist: %w", qos, holdfast.ErrRefused)
	}
	s.mu.Lock()
	if err := s.err; err != nil {
		s.mu.Unlock()
		return fmt.Errorf("subscribing to %s: %w", filter, err)
	}
	id := s.takeIDLocked()
	s.mu.Unlock()
	return s.mqtt.subscribe(ctx, s, id, filter, qos)
}
