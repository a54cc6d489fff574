package bridge

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"holdfast"
)

// A bridge tells whether it is connected, in one word, as a retained message of
// QoS 1 under Options.StateTopic in the local broker and under
// Options.FarStateTopic in the far one.
//
// Locally it is told at the start (Offline), and whenever it has changed. In the
// far broker Online is published behind each login and Offline before an orderly
// end; whatever else ends the connection lets the far broker publish the will,
// which is Offline too. Over an Upstream without a will nothing is told there:
// Online would stand for ever.
//
// A will may come late: after one and a half keep-alives, if a connection ended
// without a word. Over another upstream with another client identifier Online is there
// before it, so it is told again when the will has had its time.
//
// What comes back of it from the far broker is dropped and counted as a loop.
const (
	Online  = "connected"
	Offline = "disconnected"
)

// announceRetry is the pause after the local broker could not take the state.
const announceRetry = 5 * time.Second

// willed is implemented by an Upstream that knows whether the far broker has a
// will of this connection.
type willed interface{ HasWill() bool }

// StateMessage is what is published under name; as a will, word is Offline.
func StateMessage(name, word string) *holdfast.Message {
	return &holdfast.Message{Topic: name, Payload: []byte(word), QoS: 1, Retain: true}
}

// announcer tells the local broker. Only the newest word counts; one is offered
// at a time, so that they cannot overtake one another.
type announcer struct {
	b    *Bridge
	wake chan struct{} // has a token when want has changed

	mu   sync.Mutex
	want string
}

// announce sets what the local broker is to be told.
func (b *Bridge) announce(word string) {
	a := b.announcer
	if a == nil {
		return
	}
	a.mu.Lock()
	a.want = word
	a.mu.Unlock()
	signal(a.wake)
}

// run tells what is wanted until ctx ends. The last thing it tells is Offline.
func (a *announcer) run(ctx context.Context) {
	told := ""
	for {
		a.mu.Lock()
		word := a.want
		a.mu.Unlock()
		var retry <-chan time.Time
		if word != told {
			if a.tell(ctx, word) {
				told = word
			} else {
				told = "" // it may have come, or come yet
				retry = time.After(announceRetry)
			}
		}
		select {
		case <-a.wake:
		case <-retry:
		case <-ctx.Done():
			if told != Offline {
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainGrace)
				a.tell(last, Offline)
				cancel()
			}
			return
		}
	}
}

// tell reports whether the local broker has taken the word, or never will.
func (a *announcer) tell(ctx context.Context, word string) bool {
	m := StateMessage(a.b.stateTopic, word)
	m.Origin, m.Received = a.b.origin, time.Now()
	done := make(chan error, 1)
	a.b.local.Publish(m, func(err error) { done <- err })
	select {
	case err := <-done:
		if errors.Is(err, holdfast.ErrRefused) || errors.Is(err, holdfast.ErrTooLarge) {
			a.b.log.Error("the local broker has refused the state of the bridge", slog.Any("error", err))
			return true
		}
		return err == nil
	case <-ctx.Done():
		return false
	}
}

// announce tells the far broker, without waiting. It is not one of the queue's
// messages: it takes no place in the window, and needs no acknowledgement.
func (c *connection) announce(word string, done func(error)) {
	if w, ok := c.up.(willed); c.b.farStateTopic == "" || !ok || !w.HasWill() {
		done(nil)
		return
	}
	c.up.Publish(StateMessage(c.b.farStateTopic, word), false, done)
}

// online tells the far broker that there is a connection.
func (c *connection) online() {
	c.announce(Online, func(err error) {
		if errors.Is(err, holdfast.ErrRefused) || errors.Is(err, holdfast.ErrTooLarge) {
			c.b.status.problem(err)
			c.b.log.Error("the far broker has refused the state of the bridge: permit it there, or write state_topic = \"\"",
				slog.String("topic", c.b.farStateTopic), slog.Any("error", err))
		}
	})
}

// mayHaveLeft notes that an earlier process may have left wills.
func (b *Bridge) mayHaveLeft() {
	b.wills = map[string]time.Time{}
	for _, u := range b.upstreams {
		b.wills[u.ClientID] = time.Now().Add(2 * u.keepAlive())
	}
}

// left notes when the will of a connection that has ended must have come: at once if
// it ended in order.
func (b *Bridge) left(c *connection) {
	u := b.upstreams[c.index]
	delete(b.wills, u.ClientID)
	if !c.parted {
		b.wills[u.ClientID] = time.Now().Add(2 * u.keepAlive())
	}
}

// keepAlive is the longest that the far broker may have been told.
func (u *UpstreamOption) keepAlive() time.Duration {
	switch {
	case u.Adaptive != nil:
		return maxAdaptive
	case u.KeepAlive > 0:
		return u.KeepAlive
	}
	return defaultKeepAlive
}

// lastWill is when the last will of another client identifier must have come; zero if
// there is none. With the same one the far broker has published it at the login
// [MQTT-3.1.4-3].
func (c *connection) lastWill() (last time.Time) {
	for id, at := range c.b.wills {
		if id != c.b.upstreams[c.index].ClientID && at.After(last) {
			last = at
		}
	}
	if !last.After(time.Now()) {
		return time.Time{}
	}
	return last
}

// farewell tells the far broker that the connection ends in order, because of why:
// it forgets the will with DISCONNECT [MQTT-3.14.4-3]. It reports whether that was
// acknowledged.
func (c *connection) farewell(why error) bool {
	word := Offline
	if errors.Is(why, errSpent) {
		word = OverPlan
	}
	done := make(chan error, 1)
	c.announce(word, func(err error) { done <- err })
	t := time.NewTimer(drainGrace)
	defer t.Stop()
	select {
	case err := <-done:
		return err == nil
	case <-t.C:
	case <-c.up.Done():
	}
	return false
}

// ownState reports whether a message from upstream, whose local topic would be
// local, is the state of this bridge or would overwrite that of one of this
// gateway: only a bridge itself knows it.
func (b *Bridge) ownState(remote, local string) bool {
	return remote == b.farStateTopic && remote != "" || local == b.stateTopic && local != "" ||
		b.stateSpace != "" && strings.HasPrefix(local, b.stateSpace)
}
