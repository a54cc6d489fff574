package edge

import (
	"sync"
	"time"

	"holdfast"
)

// willRetry is how often a will that was refused is offered again.
const willRetry = 200 * time.Millisecond

// wills are those that nobody would take when their client was lost: a queue
// was full, or too much waited for the disk. They are on disk meanwhile.
type wills struct {
	mu      sync.Mutex
	waiting map[string]*holdfast.Message // by client identifier; guarded by mu
	some    chan struct{}                // capacity 1: there is something to wait for
}

func (w *wills) init() {
	w.waiting, w.some = make(map[string]*holdfast.Message), make(chan struct{}, 1)
}

func (w *wills) add(clientID string, m *holdfast.Message) {
	w.mu.Lock()
	w.waiting[clientID] = m
	w.mu.Unlock()
	select {
	case w.some <- struct{}{}:
	default:
	}
}

// take removes the will of a client and tells whether there was one.
func (w *wills) take(clientID string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.waiting[clientID]
	delete(w.waiting, clientID)
	return ok
}

// all empties w.
func (w *wills) all() map[string]*holdfast.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.waiting
	w.waiting = make(map[string]*holdfast.Message)
	return m
}

// publishWill publishes the will of a client whose connection ended without
// DISCONNECT (MQTT 3.1.1, 3.1.2.5), or some time ago. The stored will goes in the same
// transaction as its publication; if that fails it is tried again until the
// client is back, or at the next start.
func (s *Server) publishWill(clientID string, will *holdfast.Message) {
	m := *will
	m.Received = time.Now()
	if err := s.offerWill(clientID, &m); err != nil {
		s.log.Warn("will refused; it is tried again", "client_id", clientID, "error", err)
	}
}

func (s *Server) offerWill(clientID string, m *holdfast.Message) error {
	err := s.publish(publication{msg: m, willOf: clientID}, func(err error) {
		if err != nil {
			s.log.Error("will not stored; it is tried again", "client_id", clientID, "error", err)
			s.wills.add(clientID, m)
		}
	})
	if err != nil {
		s.wills.add(clientID, m)
	}
	return err
}

// retryWills offers refused wills again until Shutdown. It does so under mu: a
// client that comes back finds its will published, or takes it away (attach).
func (s *Server) retryWills() {
	for {
		select {
		case <-s.quit:
			return
		case <-s.wills.some:
		}
		select {
		case <-s.quit:
			return
		case <-time.After(willRetry):
		}
		s.mu.Lock()
		for id, m := range s.wills.all() {
			s.offerWill(id, m)
		}
		s.mu.Unlock()
	}
}
