package bridge

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/edge/packet"
)

// nat is the way to a far broker in a bubble of time. It forgets a connection on
// which nothing has crossed for its time-out: what comes then is dropped, without a
// word, for ever.
type nat struct {
	wg sync.WaitGroup

	mu      sync.Mutex
	timeout time.Duration // 0: it never forgets
	closes  bool          // it is a proxy, which closes in order what was idle for so long
	dials   int
	pings   int
	conns   []net.Conn
}

func (n *nat) set(timeout time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.timeout = timeout
}

// take returns what was counted since it was called last.
func (n *nat) take() (dials, pings int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	dials, pings = n.dials, n.pings
	n.dials, n.pings = 0, 0
	return dials, pings
}

// cut loses what is on every connection, without a word.
func (n *nat) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.Close()
	}
	n.conns = nil
}

func (n *nat) dial(context.Context, string, string) (net.Conn, error) {
	ours, inside := net.Pipe()
	n.mu.Lock()
	n.dials++
	n.conns = append(n.conns, inside)
	n.mu.Unlock()
	n.wg.Go(func() { n.serve(inside) })
	return ours, nil
}

// serve is the NAT and the broker behind it.
func (n *nat) serve(c net.Conn) {
	defer c.Close()
	r, last, dead := bufio.NewReader(c), time.Now(), false
	for {
		n.mu.Lock()
		closes, timeout := n.closes, n.timeout
		n.mu.Unlock()
		var idle *time.Timer
		if closes {
			idle = time.AfterFunc(timeout, func() { c.Close() })
		}
		var head [5]byte
		size, h := 0, packet.Header{}
		for i := 0; size == 0; i++ {
			b, err := r.ReadByte()
			if err != nil {
				return
			}
			head[i] = b
			if h, size, err = packet.ReadHeaderVersion(head[:i+1], packet.V311); err != nil {
				return
			}
		}
		body := make([]byte, h.Remaining)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		if idle != nil {
			idle.Stop()
		}
		n.mu.Lock()
		dead = dead || n.timeout > 0 && time.Since(last) > n.timeout
		var answer []byte
		switch h.Type {
		case packet.CONNECT:
			answer = []byte{0x20, 2, 0, 0}
		case packet.PINGREQ:
			n.pings++
			answer = []byte{0xd0, 0}
		}
		n.mu.Unlock()
		if last = time.Now(); dead || answer == nil {
			continue
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// adaptive runs an idle bridge behind a NAT, for what a test does with it.
func adaptive(t *testing.T, n *nat, file string, during func(a *Adaptive)) {
	t.Helper()
	a := NewAdaptive(file, nil)
	w := start(t, &fakeBroker{}, func(o *Options) {
		o.Upstreams[0].Connect = MQTT3Connect(ClientOptions{URL: "tcp://far", ClientID: "gw", Adaptive: a, Dial: n.dial})
		o.AckTimeout = 24 * time.Hour
	})
	during(a)
	w.stop()
	n.wg.Wait()
}

// TestAnAdaptiveKeepAliveFindsWhatTheCarrierLetsLive and keeps to it at the cost of
// few connections.
func TestAnAdaptiveKeepAliveFindsWhatTheCarrierLetsLive(t *testing.T) {
	t.Parallel()
	for _, limit := range []time.Duration{45 * time.Second, 4 * time.Minute, 10 * time.Minute, 29 * time.Minute, 0} {
		t.Run(limit.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := &nat{timeout: limit}
				adaptive(t, n, "", func(a *Adaptive) {
					time.Sleep(24 * time.Hour)
					dials, pings := n.take()
					good := a.interval()
					t.Logf("NAT of %v: after a day %v, by %d connections and %d pings", limit, good, dials, pings)
					if dials > 10 {
						t.Errorf("%d connections on the first day", dials)
					}
					days := 30
					if limit == 45*time.Second {
						days = 5 // of very many pings
					}
					time.Sleep(time.Duration(days) * 24 * time.Hour)
					dials, pings = n.take()
					most := limit
					if limit == 0 || limit > maxAdaptive {
						most = maxAdaptive
					}
					t.Logf("in %d days: %d connections, %d pings; now %v", days, dials, pings, a.interval())
					if dials > 15 {
						t.Errorf("%d connections in %d days", dials, days)
					}
					if best := int(time.Duration(days) * 24 * time.Hour / most); pings > best*3/2 {
						t.Errorf("%d pings in %d days, %d would do", pings, days, best)
					}
				})
			})
		})
	}
}

// A proxy or a balancer closes what is idle, in order, each time.
func TestAnAdaptiveKeepAliveFindsWhatAProxyLetsLive(t *testing.T) {
	t.Parallel()
	for _, limit := range []time.Duration{90 * time.Second, 5 * time.Minute, 20 * time.Minute} {
		t.Run(limit.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := &nat{timeout: limit, closes: true}
				adaptive(t, n, "", func(a *Adaptive) {
					time.Sleep(24 * time.Hour)
					dials, _ := n.take()
					t.Logf("proxy of %v: %d connections on the first day, now %v", limit, dials, a.interval())
					if dials > 15 {
						t.Errorf("%d connections on the first day", dials)
					}
					time.Sleep(10 * 24 * time.Hour)
					if dials, _ = n.take(); dials > 10 {
						t.Errorf("%d connections in the next ten days", dials)
					}
					n.set(limit * 2 / 3)
					n.cut()
					time.Sleep(24 * time.Hour)
					if dials, _ = n.take(); dials > 15 {
						t.Errorf("%d connections on the day on which it was made shorter", dials)
					}
				})
			})
		})
	}
}

func TestAnAdaptiveKeepAliveFollowsACarrierThatChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &nat{timeout: 20 * time.Minute}
		adaptive(t, n, "", func(a *Adaptive) {
			time.Sleep(48 * time.Hour)
			n.set(90 * time.Second)
			time.Sleep(12 * time.Hour)
			if d := a.interval(); d > 90*time.Second {
				t.Errorf("12 hours after the NAT has become shorter it is %v", d)
			}
			n.take()
			time.Sleep(12 * time.Hour)
			if dials, _ := n.take(); dials > 2 {
				t.Errorf("%d connections in the next 12 hours", dials)
			}
			n.set(0)
			time.Sleep(20 * 24 * time.Hour)
			if d := a.interval(); d < maxAdaptive {
				t.Errorf("20 days after the NAT was gone it is %v", d)
			}
		})
	})
}

// A link that dies of something else, once, is not taken for a NAT for long.
func TestALinkThatIsLostByChanceCostsADayAtMost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := NewAdaptive("", nil)
		a.survived(20 * time.Minute)
		a.died(25 * time.Minute)
		if d := a.interval(); d != 20*time.Minute {
			t.Errorf("behind the death it is %v", d)
		}
		n := &nat{}
		b := start(t, &fakeBroker{}, func(o *Options) {
			o.Upstreams[0].Connect = MQTT3Connect(ClientOptions{URL: "tcp://far", ClientID: "gw", Adaptive: a, Dial: n.dial})
		})
		time.Sleep(26 * time.Hour)
		if d := a.interval(); d != maxAdaptive {
			t.Errorf("a day later it is %v", d)
		}
		// What ends by itself teaches nothing.
		n.cut()
		time.Sleep(10 * time.Minute)
		if d := a.interval(); d != maxAdaptive {
			t.Errorf("behind an orderly end it is %v", d)
		}
		b.stop()
		n.wg.Wait()
	})
}

func TestWhatWasLearnedIsKeptOverARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "keepalive", "cloud.json")
		n := &nat{timeout: 5 * time.Minute}
		var learned time.Duration
		adaptive(t, n, file, func(a *Adaptive) {
			time.Sleep(20 * time.Hour)
			learned = a.interval()
		})
		n.take()
		adaptive(t, n, file, func(a *Adaptive) {
			if d := a.interval(); d != learned || d < 3*time.Minute {
				t.Errorf("%v behind the restart, %v before", d, learned)
			}
			time.Sleep(3 * time.Hour)
			if dials, _ := n.take(); dials != 1 {
				t.Errorf("%d connections", dials)
			}
		})
		if err := os.WriteFile(file, []byte(`{"good_ns":1}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if d := NewAdaptive(file, slog.New(slog.DiscardHandler)).interval(); d != startAdaptive*3/2 {
			t.Errorf("of a file that cannot be: %v", d)
		}
	})
}

func TestOnlyASilentEndTeaches(t *testing.T) {
	for err, want := range map[error]bool{
		errNoPing: true, syscall.ETIMEDOUT: true, os.ErrDeadlineExceeded: true, syscall.ECONNRESET: true,
		io.EOF: false, errLinkClosed: false, errNotMQTT: false, context.Canceled: false, nil: false,
	} {
		if got := diedSilently(errors.Join(err)); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}

func FuzzAdaptive(f *testing.F) {
	f.Add([]byte(`{"good_ns":60000000000,"bad_ns":90000000000,"forget":"2026-11-22T00:00:00Z","days":1}`), int64(time.Minute), int64(2*time.Minute))
	f.Fuzz(func(t *testing.T, raw []byte, survived, died int64) {
		r, err := parseAdaptive(raw)
		if err != nil {
			return
		}
		a := NewAdaptive("", nil)
		a.known = r
		for range 5 {
			a.died(time.Duration(died))
			a.survived(time.Duration(survived))
			a.rest = time.Time{}
			if d, most := a.interval(), a.longest(); d < minAdaptive || d > maxAdaptive || most > maxAdaptive || most < minAdaptive {
				t.Fatalf("interval %v, at most %v, of %+v", d, most, a.known)
			}
			kept, err := json.Marshal(a.known)
			if err != nil {
				return // a year that JSON does not have
			}
			if _, err := parseAdaptive(kept); err != nil {
				t.Fatal(err)
			}
		}
	})
}
