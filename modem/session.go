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

// window is the most publishes that may be unacknowledged. ECMT firmware has a
// queue of six, answers OK to a seventh, and may lose it without a word; others
// are said to have room for five.
const window = 4

// The most received messages, and bytes of them, that may wait for receive.
const (
	inboxSize  = 4096
	inboxBytes = 1 << 20
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

// publish is one message on its way.
type publish struct {
	seq   uint64
	id    uint16
	msg   *holdfast.Message
	done  func(error)
	timer *time.Timer // of the acknowledgement; nil until the module took it
	slot  bool        // it has one of the session's slots
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

// Window is the most publishes that may wait for their acknowledgement.
func (s *Session) Window() int { return s.mqtt.window() }

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

// Publish sends msg and returns without waiting. done is called exactly once:
// with nil when the broker has acknowledged it (PUBACK, PUBCOMP; for QoS 0 when
// it was written to the module's socket), with an error that wraps
// holdfast.ErrRefused or holdfast.ErrTooLarge if the module can never carry it,
// with one that wraps holdfast.ErrFull if more than Window and one are under way, and
// with one that wraps holdfast.ErrUnknown when nobody can say. The one beside the
// window is for the state of the bridge; it waits here until the module has room.
func (s *Session) Publish(msg *holdfast.Message, again bool, done func(error)) {
	if err := s.mqtt.carriable(msg); err != nil {
		done(err)
		return
	}
	s.mu.Lock()
	err := s.err
	switch {
	case err != nil:
		err = fmt.Errorf("the connection has ended: %w", err)
	case len(s.inflight) > s.Window():
		err = fmt.Errorf("%d publishes are under way, which is all that the module can hold: %w", s.Window(), holdfast.ErrFull)
	}
	if err != nil {
		s.mu.Unlock()
		done(err)
		return
	}
	s.seq++
	p := &publish{seq: s.seq, id: s.takeIDLocked(), msg: msg, done: done}
	s.inflight[p.id] = p
	s.outbox <- p // has room: it holds no more than inflight
	s.mu.Unlock()
}

// Carries says why the module can never carry msg, with an error that wraps
// holdfast.ErrRefused or holdfast.ErrTooLarge; nil if it can. It does not block.
func (s *Session) Carries(msg *holdfast.Message) error { return s.mqtt.carriable(msg) }

// takeIDLocked is a packet identifier that is not in use.
func (s *Session) takeIDLocked() uint16 {
	return s.m.ids.take(func(id uint16) bool { _, ok := s.inflight[id]; return ok })
}

// settle ends one publish. It does nothing if that has happened.
func (s *Session) settle(p *publish, err error) {
	s.mu.Lock()
	if s.inflight[p.id] != p {
		s.mu.Unlock()
		return
	}
	delete(s.inflight, p.id)
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.slot {
		<-s.slots
	}
	if err == nil && p.msg.QoS > 0 {
		s.heard = time.Now()
	}
	s.mu.Unlock()
	if err == nil {
		s.m.learn(func(st *Status) {
			st.Counters.PublishedMsgs++
			st.Counters.PayloadOut += uint64(len(p.msg.Topic) + len(p.msg.Payload))
		})
	}
	p.done(err)
}

// alive reports whether p still waits for its end.
func (s *Session) alive(p *publish) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inflight[p.id] == p
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

func unknown(err error) error {
	if errors.Is(err, holdfast.ErrUnknown) {
		return err
	}
	return fmt.Errorf("%w: %w", holdfast.ErrUnknown, err)
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

// deliver hands received messages on, one at a time. It does so until Close,
// also when the session has ended before: the module has acknowledged them, so
// the broker will not send them again.
func (s *Session) deliver() {
	for _, msg := range s.early {
		s.receive(msg, false, nil)
	}
	s.early = nil
	for {
		select {
		case msg := <-s.inbox:
			s.handOn(msg)
			continue
		case <-s.ending:
		}
		for {
			select {
			case msg := <-s.inbox:
				s.handOn(msg)
			default:
				return
			}
		}
	}
}

func (s *Session) handOn(msg *holdfast.Message) {
	s.waiting.Add(-inboxShare(msg))
	s.receive(msg, false, nil)
}

// inboxShare is what a message takes of inboxBytes.
func inboxShare(msg *holdfast.Message) int64 { return int64(len(msg.Topic) + len(msg.Payload)) }

// take puts a received message into the inbox, if it has room and is open. It is called
// on the dispatch goroutine only.
func (s *Session) take(msg *holdfast.Message) bool {
	select {
	case <-s.ending:
		return false
	default:
	}
	if s.waiting.Load()+inboxShare(msg) > inboxBytes {
		return false
	}
	s.waiting.Add(inboxShare(msg))
	select {
	case s.inbox <- msg:
		return true
	default:
		s.waiting.Add(-inboxShare(msg))
		return false
	}
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

// send is the goroutine that hands publishes to the module, in order.
func (s *Session) send() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case p := <-s.outbox:
			if s.awaitSlot(p) {
				s.mqtt.hand(s, p)
			}
		}
	}
}

// awaitSlot waits until the module has room for p. It reports false if p was settled, or
// the session has ended.
func (s *Session) awaitSlot(p *publish) bool {
	select {
	case s.slots <- struct{}{}:
	case <-s.ctx.Done():
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.slot = s.inflight[p.id] == p
	if !p.slot {
		<-s.slots
	}
	return p.slot
}

// handed notes that the module has taken p: its acknowledgement is timed from
// here, since no firmware says that none came.
func (s *Session) handed(p *publish) {
	// A fixed header of two bytes or three, the topic with its length, an identifier.
	s.m.meter.published(6+len(p.msg.Topic)+len(p.msg.Payload), p.msg.QoS)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejected = 0
	if s.inflight[p.id] == p {
		p.timer = time.AfterFunc(s.m.o.Timing.Ack, func() { s.ackTimeout(p) })
	}
}

// rejectedTwice gives up on a message that the module rejects although it is
// connected. When it does that with one after the other, it is the connection.
func (s *Session) rejectedTwice(p *publish, err error) {
	s.mu.Lock()
	s.rejected++
	n := s.rejected
	s.mu.Unlock()
	if n >= 3 {
		s.fail(fmt.Errorf("the module rejects every publish (%w)", err))
		return
	}
	s.settle(p, fmt.Errorf("the module rejects this message (%w): %w", err, holdfast.ErrRefused))
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

func (s *Session) ackTimeout(p *publish) {
	if !s.alive(p) {
		return
	}
	s.m.learn(func(st *Status) { st.Counters.AckTimeouts++ })
	s.fail(fmt.Errorf("the broker did not acknowledge a publish within %v: %w", s.m.o.Timing.Ack, holdfast.ErrUnknown))
}
