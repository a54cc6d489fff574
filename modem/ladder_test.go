package modem

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// history is what was done to a module, and when.
type history struct {
	mu   sync.Mutex
	what []string
	when []time.Time
}

func (h *history) add(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.what, h.when = append(h.what, what), append(h.when, time.Now())
}

func (h *history) get() ([]string, []time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.what), slices.Clone(h.when)
}

// wired is a port whose lines are noted.
type wired struct {
	io.ReadWriteCloser
	h *history
}

func (w wired) SetLine(line string, on bool) error {
	w.h.add(fmt.Sprintf("%s %v", line, on))
	return nil
}

// climbing runs a modem for d, with every rung of the ladder, and returns what was
// done to it. It notes openings of the port too.
func climbing(t *testing.T, f *fake, o Options, d time.Duration) (steps []string, times []time.Time, st Status) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f.t = t
		h := &history{}
		for _, cmd := range []string{"AT+CFUN=0", "AT+ECRST"} {
			f.onFunc(cmd, func(string) string { h.add(cmd); return ok })
		}
		o.Name = "lte"
		open := o.Open
		if open == nil {
			open = f.open
		}
		o.Open = func(ctx context.Context) (io.ReadWriteCloser, error) {
			h.add("open")
			port, err := open(ctx)
			return wired{port, h}, err
		}
		o.PowerCycle = func(context.Context) error { h.add("power"); return nil }
		m, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		time.Sleep(d)
		st = m.Status()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		steps, times = h.get()
	})
	return steps, times, st
}

func TestEveryRungOfTheLadderIsTriedInItsOrder(t *testing.T) {
	f := registered(t)
	f.on("AT+CEREG?", "\r\n+CEREG: 2,2\r\n"+ok)
	steps, times, st := climbing(t, f, Options{ResetLine: "dtr", Timing: Timing{Registration: 10 * time.Second}}, 3*time.Hour)
	want := []string{
		"open", "open", "open", "open", "AT+CFUN=0", "open", "open", "AT+ECRST",
		"open", "open", "dtr false", "dtr true", "open", "open", "power", "open", "open", "power",
	}
	if len(steps) < len(want) || !slices.Equal(steps[:len(want)], want) {
		t.Fatalf("got %q", steps)
	}
	// The waits grow, and not beyond the greatest: a life is 10 s of looking for a
	// network, half a minute more with a reset.
	var last time.Time
	for i, what := range steps {
		if what != "open" {
			continue
		}
		if wait := times[i].Sub(last); !last.IsZero() && wait > 7*time.Minute {
			t.Errorf("it was left alone for %v", wait)
		}
		last = times[i]
	}
	opens := slices.DeleteFunc(slices.Clone(steps), func(s string) bool { return s != "open" })
	if n := len(opens); n < 25 || n > 60 { // three hours, 5 minutes apart
		t.Errorf("the port was opened %d times", n)
	}
	for i, what := range steps {
		if what == "dtr false" && times[i+1].Sub(times[i]) != time.Second {
			t.Errorf("the pulse took %v", times[i+1].Sub(times[i]))
		}
	}
	c := st.Counters
	if c.RadioResets != 1 || c.ModuleResets != 1 || c.LineResets != 1 || c.PowerCycles < 5 || c.Resets != 3+c.PowerCycles || st.LastReset.Value != "power" {
		t.Errorf("counted as %+v, the last %v", c, st.LastReset)
	}
	if st.Failures < 10 || st.RetryAt.IsZero() {
		t.Errorf("%d failures, again at %v", st.Failures, st.RetryAt)
	}
}

func TestASilentModuleIsResetByWhatNeedsNoCommand(t *testing.T) {
	f := registered(t)
	f.die()
	steps, _, _ := climbing(t, f, Options{ResetLine: "rts"}, time.Hour)
	steps = slices.DeleteFunc(steps, func(s string) bool { return s == "open" })
	if len(steps) < 4 || !slices.Equal(steps[:4], []string{"rts false", "rts true", "power", "power"}) {
		t.Errorf("got %q", steps)
	}
}

func TestAModuleThatHasVanishedIsGivenPowerAgain(t *testing.T) {
	f := registered(t)
	gone := func(context.Context) (io.ReadWriteCloser, error) {
		return nil, fmt.Errorf("no USB device is plugged in: %w", fs.ErrNotExist)
	}
	steps, times, st := climbing(t, f, Options{Open: gone}, 12*time.Hour)
	var cuts []time.Time
	for i, what := range steps {
		if what == "power" {
			cuts = append(cuts, times[i])
		} else if what != "open" {
			t.Errorf("a module that is not there got %s", what)
		}
	}
	// After a minute, two, four ... and then every hour.
	if n := len(cuts); n < 14 || n > 18 {
		t.Errorf("%d times in half a day", n)
	}
	if st.Counters.PowerCycles != uint64(len(cuts)) || !strings.Contains(st.Problem, "no USB device") {
		t.Errorf("%+v", st)
	}
}

// Of two modules that fail at the same time one is left alone until the other is
// up again, or has failed once more.
func TestTheTurnToResetLastsUntilTheModuleIsUp(t *testing.T) {
	f := registered(t)
	f.on("AT+CEREG?", "\r\n+CEREG: 2,2\r\n"+ok)
	synctest.Test(t, func(t *testing.T) {
		f.t = t
		turn := make(chan struct{}, 1)
		turn <- struct{}{}
		m, err := New(Options{Name: "lte", Open: f.open, ResetTurn: turn})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		for m.Status().Counters.Resets == 0 {
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute) // it looks for a network, for three
		if len(turn) != 0 {
			t.Error("the turn was given back before the module was up")
		}
		f.on("AT+CEREG?", "\r\n+CEREG: 2,1\r\n"+ok)
		up(t, m)
		synctest.Wait()
		if len(turn) != 1 {
			t.Error("the turn was not given back")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}

// hangingUp is a port that says io.EOF when its other end is gone, as a tty does.
type hangingUp struct{ net.Conn }

func (p hangingUp) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if err != nil {
		err = fmt.Errorf("the port was unplugged or hung up (%w)", io.EOF)
	}
	return n, err
}

// A module on USB leaves the bus when it is reset, and its port with it. That is no
// reason to reset it once more when it is back.
func TestAModuleThatLeavesItsPortWhenItIsResetIsNotResetAgain(t *testing.T) {
	f := registered(t)
	f.wrap = func(host net.Conn) io.ReadWriteCloser { return hangingUp{host} }
	bad := true
	f.onFunc("AT+CEREG?", func(string) string {
		if bad {
			return "\r\n+CEREG: 2,2\r\n" + ok
		}
		return "\r\n+CEREG: 2,1\r\n" + ok
	})
	f.onFunc("AT+CFUN=1", func(cmd string) string {
		if cmd == "AT+CFUN=1,1" {
			bad = false
			f.mu.Lock()
			defer f.mu.Unlock()
			f.conn.Close()
			return ""
		}
		return ok
	})
	f.on("AT+ECRST", "\r\nERROR\r\n")
	withModem(t, f, Options{Timing: Timing{Registration: 10 * time.Second}}, func(t *testing.T, m *Modem) {
		time.Sleep(2 * time.Hour)
		st := m.Status()
		if c := st.Counters; c.RadioResets != 1 || c.ModuleResets != 1 || st.State != StateReady {
			t.Errorf("%d resets of the radio, %d of the module; it is %s: %s", c.RadioResets, c.ModuleResets, st.State, st.Problem)
		}
	})
}

// What only a person can mend stops the ladder where it is.
func TestAfterAResetWhatNeedsAPersonIsNoReasonForAnother(t *testing.T) {
	f := registered(t)
	f.on("AT+CEREG?", "\r\n+CEREG: 2,2\r\n"+ok)
	f.onFunc("AT+CFUN=0", func(string) string {
		f.on("AT+CPIN?", "\r\n+CPIN: SIM PUK\r\n"+ok)
		return ok
	})
	withModem(t, f, Options{Timing: Timing{Registration: 10 * time.Second}}, func(t *testing.T, m *Modem) {
		time.Sleep(6 * time.Hour)
		if st := m.Status(); st.Counters.Resets != 1 {
			t.Errorf("%d resets; it is %s: %s", st.Counters.Resets, st.State, st.Problem)
		}
	})
}

// A module on USB is away for a while when it is reset. That is part of the reset, but
// one that does not come back must not keep the turn.
func TestTheTurnToResetLastsWhileTheModuleIsOffTheBus(t *testing.T) {
	f := registered(t)
	f.wrap = func(host net.Conn) io.ReadWriteCloser { return hangingUp{host} }
	f.on("AT+CEREG?", "\r\n+CEREG: 2,2\r\n"+ok)
	var back atomic.Bool
	back.Store(true)
	for _, reset := range []string{"AT+CFUN=0", "AT+ECRST"} {
		f.onFunc(reset, func(string) string {
			back.Store(false)
			f.on("AT+CEREG?", "\r\n+CEREG: 2,1\r\n"+ok)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.conn.Close()
			return ""
		})
	}
	synctest.Test(t, func(t *testing.T) {
		f.t = t
		turn := make(chan struct{}, 1)
		turn <- struct{}{}
		m, err := New(Options{Name: "lte", ResetTurn: turn, Open: func(ctx context.Context) (io.ReadWriteCloser, error) {
			if !back.Load() {
				return nil, fs.ErrNotExist
			}
			return f.open(ctx)
		}, Timing: Timing{Registration: 10 * time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		for range 2 {
			for before := m.Status().Counters.Resets; m.Status().Counters.Resets == before; {
				time.Sleep(time.Second)
			}
			time.Sleep(20 * time.Second)
			if len(turn) != 0 {
				t.Error("the turn was given back while the module was off the bus")
			}
			if n := m.Status().Counters.Resets; n == 1 {
				back.Store(true)
				up(t, m)
				synctest.Wait()
				if len(turn) != 1 {
					t.Error("the turn was not given back when it was up")
				}
				f.on("AT+CEREG?", "\r\n+CEREG: 2,2\r\n"+ok)
				f.say("\r\nRDY\r\n")
			}
		}
		time.Sleep(2 * time.Minute)
		if len(turn) != 1 {
			t.Error("a module that does not come back keeps the turn")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}
