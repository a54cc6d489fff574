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
	waiting map[string]waitingWill // by client identifier; guarded by mu
	some    chan struct{}          // capacity 1: there is something to wait for
}

type waitingWill struct {
	msg *holdfast.Message
	by  *author
}

// author is who has left a will that waits, as it was let in. nil is one who left
// before the process began, of whom no more is known.
type author struct {
	login  *Login
	rights Rights
}

func (c *conn) author() *author {
	a := &author{login: c.login.Load()}
	if r := c.rights.Load(); r != nil {
		a.rights = *r
	}
	return a
}

// mayStill reports whether Access lets the author publish to a topic now.
func (s *Server) mayStill(a *author, name string) bool {
	if a == nil {
		return true
	}
	rights, err := s.opts.Access.Review(a.login, a.rights)
	return err == nil && (rights == nil || rights.Publish(name))
}

func (w *wills) init() {
	w.waiting, w.some = make(map[string]waitingWill), make(chan struct{}, 1)
}

func (w *wills) add(clientID string, will waitingWill) {
	w.mu.Lock()
	w.waiting[clientID] = will
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
func (w *wills) all() map[string]waitingWill {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.waiting
	w.waiting = make(map[string]waitingWill)
	return m
}

// publishWill publishes the will of a client whose connection ended without
// DISCONNECT (MQTT 3.1.1, 3.1.2.5), or some time ago. The stored will goes in the same
// transaction as its publication; if that fails it is tried again until the
// client is back, or at the next start. One that its author may not publish any more
// is dropped.
func (s *Server) publishWill(clientID string, will *holdfast.Message, by *author) {
	m := *will
	m.Received = time.Now()
	if err := s.offerWill(clientID, waitingWill{&m, by}); err != nil {
		s.log.Warn("will refused; it is tried again", "client_id", clientID, "error", err)
	}
}

func (s *Server) offerWill(clientID string, will waitingWill) error {
	if !s.mayStill(will.by, will.msg.Topic) {
		s.log.Warn("will dropped: its client may not publish it any more", "client_id", clientID, "topic", will.msg.Topic)
		s.opts.Store.SetWill(clientID, nil, func(error) {})
		return nil
	}
	err := s.publish(publication{msg: will.msg, willOf: clientID}, func(err error) {
		if err != nil {
			s.log.Error("will not stored; it is tried again", "client_id", clientID, "error", err)
			s.wills.add(clientID, will)
		}
	})
	if err != nil {
		s.wills.add(clientID, will)
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
		for id, will := range s.wills.all() {
			s.offerWill(id, will)
		}
		s.mu.Unlock()
	}
}
