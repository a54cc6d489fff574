package edge

import (
	"sync"
	"time"
)

// Connections that take a client identifier from one another this often, with
// no longer than rivalWithin between two, are two devices and not one that
// comes back from a lost link.
const (
	rivalTimes  = 3
	rivalWithin = time.Minute
	// rivalFirstWait is doubled with each connection more, up to Limits.RivalWait.
	rivalFirstWait = 250 * time.Millisecond
)

// rivals notices two devices that use one client identifier. Only the last
// identifier is kept: it is for a person, who mends one after the other.
type rivals struct {
	mu       sync.Mutex
	total    uint64
	clientID string
	times    int
	last     time.Time
}

// takenOver counts a connection that is ended for another with its identifier,
// and returns how many of the quarrel that makes; 0 if there is none.
func (r *rivals) takenOver(clientID string) (times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total++
	now := time.Now()
	if r.clientID != clientID || now.Sub(r.last) > rivalWithin {
		if r.times >= rivalTimes && now.Sub(r.last) <= rivalWithin {
			return 0 // a quarrel under way is not forgotten for a single reconnect
		}
		r.clientID, r.times = clientID, 0
	}
	r.times++
	r.last = now
	if r.times <= rivalTimes {
		return 0
	}
	return r.times - rivalTimes
}

// holdRival makes the newer connection of a quarrel wait, while the older one
// goes on: the quarrel costs both of them less, and the gateway too.
func (c *conn) holdRival(times int, other *conn) error {
	if times == 0 {
		return nil
	}
	c.srv.stats.rivalsHeld.Add(1)
	if times == 1 || times%20 == 0 {
		c.srv.log.Warn("connections end each other: do two devices have one client identifier? Give each its own",
			"client_id", c.clientID, "remote", c.remote, "other", other.remote)
	}
	timer := time.NewTimer(min(rivalFirstWait<<min(times-1, 10), c.srv.limits.RivalWait))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.closed:
		return c.reason()
	case <-c.srv.quit:
		return errShutdown
	}
}

// quarrel is the identifier that is fought for now; "" if none is.
func (r *rivals) quarrel() (total uint64, clientID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.times >= rivalTimes && time.Since(r.last) <= rivalWithin {
		return r.total, r.clientID
	}
	return r.total, ""
}
