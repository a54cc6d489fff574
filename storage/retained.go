package storage

import (
	"strconv"
	"time"

	"holdfast"
)

// retainLocked stores m as the retained message of its topic, or removes that
// of the topic if the payload is empty (MQTT 5, 3.3.1.3).
func (s *Store) retainLocked(m *holdfast.Message) {
	if (s.o.Sync == Spill || s.failed != nil) && m.QoS == 0 {
		s.retainLaterLocked(m)
		return
	}
	s.forgetRetainedLocked(m.Topic)
	s.addLocked(op{key: hashedKey(keyRetained, m.Topic), value: retainedValue(m, s.age.now())})
}

// retainedValue is the row of a retained message that came at that age of the
// store; nil removes the row.
func retainedValue(m *holdfast.Message, at int64) []byte {
	if len(m.Payload) == 0 {
		return nil
	}
	note := ""
	if m.Properties != nil && m.Properties.HasExpiry {
		note = strconv.FormatInt(at, 10)
	}
	return encodeMessage(m, "", note)
}

// Retained returns every stored retained message, in no order. One that cannot
// be read is logged and left out. Received of one that expires is the time of
// this process from which its Message Expiry Interval counts: the clock of the
// board may have been set since.
func (s *Store) Retained() ([]*holdfast.Message, error) {
	var list []*holdfast.Message
	s.mu.Lock()
	age, now := s.age.now(), time.Now()
	s.mu.Unlock()
	err := s.messages(keyRetained, func(m *holdfast.Message, _, note string) {
		if then, err := strconv.ParseInt(note, 10, 64); err == nil {
			m.Received = now.Add(-time.Duration(max(0, age-then)) * time.Millisecond)
		}
		list = append(list, m)
	})
	return list, err
}

// ForgetRetained removes the retained messages of these topics, which have
// expired: nobody is told, and nothing waits for it.
func (s *Store) ForgetRetained(topics ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.smallLocked(0) != nil {
		return // they are found again at the next start
	}
	for _, t := range topics {
		s.forgetRetainedLocked(t)
		s.addLocked(op{key: hashedKey(keyRetained, t)})
	}
	s.lazyLocked()
}

// Wills returns the stored wills by client identifier. One that cannot be read
// is logged and left out.
func (s *Store) Wills() (map[string]*holdfast.Will, error) {
	wills := map[string]*holdfast.Will{}
	err := s.messages(keyWill, func(m *holdfast.Message, clientID, note string) {
		delay, _ := strconv.ParseUint(note, 10, 32)
		wills[clientID] = &holdfast.Will{Msg: m, Delay: uint32(delay)}
	})
	return wills, err
}

func (s *Store) messages(kind byte, each func(m *holdfast.Message, name, note string)) error {
	prefix := []byte{kind}
	return s.read(func(eng engine) error {
		return eng.scan(prefix, prefix, false, func(_, v []byte) bool {
			m, name, note, err := decodeMessage(append([]byte(nil), v...))
			if err != nil {
				s.unreadable(string(kind), err)
				return true
			}
			each(m, name, note)
			return true
		})
	})
}

// unreadable counts a row that is damaged.
func (s *Store) unreadable(what string, err error) {
	s.mu.Lock()
	s.stats.Unreadable++
	s.mu.Unlock()
	s.o.Logger.Error("storage: a row cannot be read and is left out", "kind", what, "error", err)
}

// SetWill stores the will of a client, or removes it if will is nil. It does
// not wait for the disk; done is called exactly once, with nil when it is there.
func (s *Store) SetWill(clientID string, will *holdfast.Will, done func(error)) {
	o := op{key: hashedKey(keyWill, clientID)}
	if will != nil {
		if n := messageBound(will.Msg) + len(clientID); n > MaxMessage {
			done(tooLarge(n))
			return
		}
		note := ""
		if will.Delay > 0 {
			note = strconv.FormatUint(uint64(will.Delay), 10)
		}
		o.value = encodeMessage(will.Msg, clientID, note)
	}
	s.mu.Lock()
	if err := s.smallLocked(o.size()); err != nil {
		s.mu.Unlock()
		done(err)
		return
	}
	s.addLocked(o)
	s.waitLocked(done, o.size())
	s.mu.Unlock()
}

// smallLocked admits what is not a publication: it may use twice the bound, so
// that a full store still takes what ends sessions.
func (s *Store) smallLocked(n int) error {
	if err := s.refusalLocked(); err != nil {
		return err
	}
	if s.disk.level >= spaceShort {
		return errSpace
	}
	if s.pending > 0 && s.pending+n > 2*s.o.MaxPending {
		return errPending
	}
	return nil
}
