package modem

import "holdfast"

// The most received messages, and bytes of them, that may wait for receive.
const (
	inboxSize  = 4096
	inboxBytes = 1 << 20
)

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
