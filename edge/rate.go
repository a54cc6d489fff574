package edge

import (
	"net/netip"
	"sync"
	"time"
)

// pace holds a sequence of events to a rate, of which a second's worth may come at
// once. The zero value is ready. The owner locks.
type pace struct{ next time.Time }

// take returns how long the next event has to wait; with more than most it is not
// to happen, and does not count.
func (p *pace) take(now time.Time, rate int, most time.Duration) time.Duration {
	next := p.next
	if early := now.Add(-time.Second); next.Before(early) {
		next = early
	}
	next = next.Add(time.Second / time.Duration(rate))
	wait := max(0, next.Sub(now))
	if wait <= most {
		p.next = next
	}
	return wait
}

// arrivalAddresses is how many addresses are known at a time. With more, some are
// forgotten that have not connected for a second, or else any.
const arrivalAddresses = 1024

// arrivals holds the connections of each address to a rate.
type arrivals struct {
	mu    sync.Mutex
	paces map[netip.Prefix]*pace // guarded by mu
	swept time.Time              // guarded by mu
}

// take returns how long a connection from that address has to wait, at most a
// little more than most. Unix sockets have no address, and never wait.
func (a *arrivals) take(addr netip.Addr, rate int, most time.Duration) time.Duration {
	if rate <= 0 || !addr.IsValid() {
		return 0
	}
	key, now := neighbourhood(addr), time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.paces[key]
	if p == nil {
		if a.paces == nil {
			a.paces = make(map[netip.Prefix]*pace)
		}
		a.makeRoomLocked(now)
		p = new(pace)
		a.paces[key] = p
	}
	return p.take(now, rate, most)
}

func (a *arrivals) makeRoomLocked(now time.Time) {
	if len(a.paces) < arrivalAddresses {
		return
	}
	if now.Sub(a.swept) >= time.Second {
		a.swept = now
		for key, p := range a.paces {
			if now.Sub(p.next) >= time.Second {
				delete(a.paces, key)
			}
		}
	}
	for key := range a.paces {
		if len(a.paces) < arrivalAddresses {
			return
		}
		delete(a.paces, key)
	}
}

// pause waits, or ends with the connection. The reader calls it.
func (c *conn) pause(wait time.Duration) error {
	c.endBatch()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.closed:
		return c.reason()
	}
}

// holdToRate makes a client that publishes too fast wait before its next message
// is taken: it is read no further meanwhile, and nothing is lost.
func (c *conn) holdToRate() error {
	rate := c.srv.limits.MaxPublishRate
	if rate <= 0 {
		return nil
	}
	wait := c.publishing.take(time.Now(), rate, time.Hour)
	if wait == 0 {
		return nil
	}
	if c.srv.stats.heldPublishes.Add(1); !c.heldBefore {
		c.heldBefore = true
		c.srv.log.Warn("a client publishes faster than limits.max_publish_rate and is read more slowly", "client_id", c.clientID, "remote", c.remote, "limit", rate)
	}
	return c.pause(wait)
}
