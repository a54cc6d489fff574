package edge

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"holdfast/edge/packet"
)

// The bounds of logins with a password that is not known yet. Looking at one
// takes some megabytes and, on a small board, a good part of a second, so it is
// done for one at a time, and whoever guesses must not keep the others out.
const (
	// loginsWaiting is how many logins wait at a time, and loginsOfAddress how
	// many of one address: more are told that the server is busy. All devices of a
	// site may be in one network of IPv6, which has more as long as none is wrong.
	loginsWaiting   = 64
	loginsOfAddress = 8
	loginsOfNetwork = 32
	// After a wrong password the next login of the same address waits, twice as
	// long each time; it is forgotten after loginForget without one.
	loginFirstWait = 250 * time.Millisecond
	loginMostWait  = 4 * time.Second
	loginForget    = time.Minute
	// loginPatience is the longest that a login may wait for its address: one
	// that would have to wait longer is told so at once.
	loginPatience = 10 * time.Second
	// loginAddresses is how many addresses are remembered. With more, those that
	// may log in first are forgotten.
	loginAddresses = 1024
)

// errLoginStopped is never seen: the connection has ended with a reason of its own.
var errLoginStopped = errors.New("stopped while logging in")

// logins holds back those who guess.
type logins struct {
	turn chan struct{} // capacity 1: whoever has put something in may look

	mu      sync.Mutex
	waiting int                          // guarded by mu
	guests  map[netip.Prefix]*loginGuest // guarded by mu
}

// loginGuest is one address that logs in, or has failed to.
type loginGuest struct {
	waiting int           // logins that are under way
	next    time.Time     // when the next one may be looked at
	wait    time.Duration // how much later the one after that; 0: nothing was wrong
}

func (l *logins) init() {
	l.turn, l.guests = make(chan struct{}, 1), make(map[netip.Prefix]*loginGuest)
}

// try calls look when it is the turn of a login from that address; right is its
// answer. An error means that look was not called.
func (l *logins) try(addr netip.Addr, stop <-chan struct{}, look func() bool) (right bool, err error) {
	key := neighbourhood(addr)
	wait, err := l.enter(key)
	if err != nil {
		return false, err
	}
	defer func() { l.leave(key, err == nil && !right) }()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-stop:
			return false, errLoginStopped
		}
	}
	select {
	case l.turn <- struct{}{}:
	case <-stop:
		return false, errLoginStopped
	}
	defer func() { <-l.turn }()
	return look(), nil
}

// enter returns how long a login has to wait, or refuses it. Each has a time of
// its own, so that many at once are no faster than one after the other.
func (l *logins) enter(key netip.Prefix) (wait time.Duration, err error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.guests[key]
	switch {
	case l.waiting >= loginsWaiting:
		return 0, &Refusal{packet.ServerBusy, fmt.Sprintf("%d clients are logging in already; it has to try again", l.waiting)}
	case g == nil:
		l.makeRoomLocked(now)
		g = &loginGuest{next: now}
		l.guests[key] = g
	case g.waiting == 0 && now.Sub(g.next) > loginForget:
		*g = loginGuest{next: now}
	}
	most := loginsOfAddress
	if key.Addr().Is6() {
		most = loginsOfNetwork
	}
	switch wait = max(0, g.next.Sub(now)); {
	case wait > loginPatience, g.wait > 0 && g.waiting >= loginsOfAddress:
		return 0, &Refusal{packet.ServerBusy, "too many wrong passwords came from its address, whose logins have to wait: find the device that has a wrong one"}
	case g.waiting >= most:
		return 0, &Refusal{packet.ServerBusy, fmt.Sprintf("%d clients of its address or network are logging in already; it has to try again", g.waiting)}
	}
	l.waiting++
	g.waiting++
	g.next = now.Add(wait + g.wait)
	return wait, nil
}

func (l *logins) leave(key netip.Prefix, wrong bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.guests[key]
	l.waiting--
	g.waiting--
	if wrong {
		g.wait = min(max(2*g.wait, loginFirstWait), loginMostWait)
		if next := time.Now().Add(g.wait); next.After(g.next) {
			g.next = next
		}
	} else if g.wait == 0 && g.waiting == 0 {
		delete(l.guests, key) // nothing is to be remembered
	}
}

// makeRoomLocked forgets the address that may log in soonest, if there are too
// many. There always is one that has no login under way.
func (l *logins) makeRoomLocked(now time.Time) {
	if len(l.guests) < loginAddresses {
		return
	}
	var soonest netip.Prefix
	found := false
	for key, g := range l.guests {
		if g.waiting > 0 {
			continue
		}
		if now.Sub(g.next) > loginForget {
			delete(l.guests, key)
		} else if !found || g.next.Before(l.guests[soonest].next) {
			soonest, found = key, true
		}
	}
	if len(l.guests) >= loginAddresses {
		delete(l.guests, soonest)
	}
}

// neighbourhood is an address, or the network of an IPv6 address, of which one
// machine has as many as it likes.
func neighbourhood(addr netip.Addr) netip.Prefix {
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // the zero Prefix for the zero address
	return p
}
