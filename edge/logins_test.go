package edge

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/edge/packet"
)

var (
	guesser  = netip.MustParseAddr("192.0.2.1")
	neighbor = netip.MustParseAddr("192.0.2.2")
)

func wrong() bool { return false }

func TestWrongPasswordsSlowTheirAddressAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logins
		l.init()
		took := func(addr netip.Addr, look func() bool) time.Duration {
			begun := time.Now()
			if _, err := l.try(addr, nil, look); err != nil {
				t.Fatal(err)
			}
			return time.Since(begun)
		}
		want := []time.Duration{0, 250e6, 500e6, 1e9, 2e9, 4e9, 4e9}
		for i, w := range want {
			if got := took(guesser, wrong); got != w {
				t.Errorf("guess %d waited %v, want %v", i, got, w)
			}
			if got := took(neighbor, func() bool { return true }); got != 0 {
				t.Errorf("a neighbor waited %v", got)
			}
		}
		if len(l.guests) != 1 {
			t.Errorf("%d addresses are remembered", len(l.guests))
		}
		time.Sleep(4*time.Second + loginForget + time.Second)
		if got := took(guesser, wrong); got != 0 {
			t.Errorf("after a minute of peace it waited %v", got)
		}
	})
}

func TestManyGuessesAtOnceAreNoFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logins
		l.init()
		for range 3 {
			l.try(guesser, nil, wrong)
		}
		begun := time.Now()
		var looked, refused atomic.Int32
		for range 50 {
			go func() {
				_, err := l.try(guesser, nil, func() bool { looked.Add(1); return false })
				var r *Refusal
				if errors.As(err, &r) && r.Code == packet.ServerBusy {
					refused.Add(1)
				}
			}()
			synctest.Wait()
		}
		time.Sleep(loginPatience)
		synctest.Wait()
		if n := looked.Load(); n < 1 || n > loginsOfAddress || n+refused.Load() != 50 {
			t.Errorf("%d were looked at, %d refused within %v", n, refused.Load(), time.Since(begun))
		}
	})
}

func TestAllDevicesOfASiteInOneNetworkOfIPv6LogIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logins
		l.init()
		var done atomic.Int32
		for i := range loginsOfNetwork + 8 {
			addr := netip.AddrFrom16([16]byte{0: 0xFD, 15: byte(i)})
			look := func() bool { time.Sleep(100 * time.Millisecond); return true }
			go func() {
				for {
					_, err := l.try(addr, nil, look)
					if err == nil {
						done.Add(1)
						return
					}
					time.Sleep(time.Second) // as devices do that are told to try again
				}
			}()
		}
		time.Sleep(100*time.Millisecond*loginsOfNetwork + time.Millisecond)
		if n := done.Load(); n < loginsOfNetwork {
			t.Errorf("%d devices of %d that were not too many", n, loginsOfNetwork)
		}
		time.Sleep(5 * time.Second)
		if n := done.Load(); n != loginsOfNetwork+8 {
			t.Errorf("%d devices have logged in", n)
		}
	})
}

func TestPasswordsAreLookedAtOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logins
		l.init()
		var at, most, done, refused atomic.Int32
		for i := range 2 * loginsWaiting {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			go func() {
				_, err := l.try(addr, nil, func() bool {
					most.Store(max(most.Load(), at.Add(1)))
					time.Sleep(time.Second)
					at.Add(-1)
					return true
				})
				if err != nil {
					refused.Add(1)
				} else {
					done.Add(1)
				}
			}()
			synctest.Wait()
		}
		time.Sleep(loginsWaiting * time.Second)
		synctest.Wait()
		if most.Load() != 1 || done.Load() != loginsWaiting || refused.Load() != loginsWaiting {
			t.Errorf("%d at a time, %d done, %d refused", most.Load(), done.Load(), refused.Load())
		}
		if len(l.guests) != 0 || l.waiting != 0 {
			t.Errorf("%d addresses are remembered, %d wait", len(l.guests), l.waiting)
		}
	})
}

func TestALoginEndsWithItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logins
		l.init()
		l.try(guesser, nil, wrong)
		stop := make(chan struct{})
		ended := make(chan error, 1)
		go func() {
			_, err := l.try(guesser, stop, wrong)
			ended <- err
		}()
		synctest.Wait()
		close(stop)
		if err := <-ended; !errors.Is(err, errLoginStopped) {
			t.Error(err)
		}
		l.turn <- struct{}{}
		if _, err := l.try(neighbor, stop, wrong); !errors.Is(err, errLoginStopped) {
			t.Error(err)
		}
		if l.waiting != 0 {
			t.Errorf("%d wait", l.waiting)
		}
	})
}

func TestTheTableOfAddressesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logins
		l.init()
		for i := range loginAddresses + 100 {
			if _, err := l.try(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), nil, wrong); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(l.guests); n > loginAddresses {
			t.Errorf("%d addresses are remembered", n)
		}
		for i := range 20 { // one machine of IPv6, with an address for each guess
			l.try(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)), nil, wrong)
		}
		if g := l.guests[neighbourhood(netip.MustParseAddr("2001:db8::1"))]; g == nil || g.wait != loginMostWait {
			t.Errorf("%+v", g)
		}
	})
}

func TestAKnownPasswordIsNotHeldUpByGuesses(t *testing.T) {
	t.Parallel()
	u := newUsers(t, AnonymousNever, everywhere("pump"))
	l := Login{Username: "pump", Password: []byte("password"), Remote: "192.0.2.1:1"}
	if _, err := u.Connect(&l, nil); err != nil {
		t.Fatal(err)
	}
	u.logins.turn <- struct{}{} // somebody guesses, and for ever
	if _, err := u.Connect(&l, nil); err != nil {
		t.Error(err)
	}
	// It stays known over a change of other things, and not over one of its own.
	change := everywhere("pump")
	change.Publish = nil
	u.Set(AnonymousNever, []User{change})
	if _, err := u.Connect(&l, nil); err != nil {
		t.Error(err)
	}
	change.Password = otherHash
	u.Set(AnonymousNever, []User{change})
	stop := make(chan struct{})
	close(stop)
	if _, err := u.Connect(&l, stop); !errors.Is(err, errLoginStopped) {
		t.Errorf("the old password is believed: %v", err)
	}
}
