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

// takenOver counts a connection that was ended for another with its identifier.
func (r *rivals) takenOver(clientID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total++
	now := time.Now()
	if r.clientID != clientID || now.Sub(r.last) > rivalWithin {
		if r.times >= rivalTimes && now.Sub(r.last) <= rivalWithin {
			return // a quarrel under way is not forgotten for a single reconnect
		}
		r.clientID, r.times = clientID, 0
	}
	r.times++
	r.last = now
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
