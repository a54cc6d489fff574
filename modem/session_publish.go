package modem

import (
	"errors"
	"fmt"
	"time"

	"holdfast"
)

// window is the most publishes that may be unacknowledged. ECMT firmware has a
// queue of six, answers OK to a seventh, and may lose it without a word; others
// are said to have room for five.
const window = 4

// publish is one message on its way.
type publish struct {
	seq   uint64
	id    uint16
	msg   *holdfast.Message
	done  func(error)
	timer *time.Timer // of the acknowledgement; nil until the module took it
	slot  bool        // it has one of the session's slots
}

// Window is the most publishes that may wait for their acknowledgement.
func (s *Session) Window() int { return s.mqtt.window() }

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

func (s *Session) ackTimeout(p *publish) {
	if !s.alive(p) {
		return
	}
	s.m.learn(func(st *Status) { st.Counters.AckTimeouts++ })
	s.fail(fmt.Errorf("the broker did not acknowledge a publish within %v: %w", s.m.o.Timing.Ack, holdfast.ErrUnknown))
}

func unknown(err error) error {
	if errors.Is(err, holdfast.ErrUnknown) {
		return err
	}
	return fmt.Errorf("%w: %w", holdfast.ErrUnknown, err)
}
