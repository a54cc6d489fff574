package modem_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast"
	"holdfast/modem"
	"holdfast/modem/sim"
)

// quickly are timings for a simulated module on a fast machine.
var quickly = modem.Timing{
	Command: 2 * time.Second, Radio: 2 * time.Second, Open: 2 * time.Second, Connect: 2 * time.Second,
	SecondResult: 300 * time.Millisecond, SelfRepair: 500 * time.Millisecond, Ack: time.Second,
	Subscribe: time.Second, Close: 3 * time.Second, Registration: 3 * time.Second, RegPoll: 50 * time.Millisecond,
	Poll: 200 * time.Millisecond, Reset: 3 * time.Second, HoldOff: 50 * time.Millisecond, HoldOffMax: time.Second,
	SyncWait: 200 * time.Millisecond, Idle: 30 * time.Millisecond, Gap: 30 * time.Millisecond,
}

// patiently are timings with which a machine that is busy with something else breaks
// nothing off.
func patiently() modem.Timing {
	t := quickly
	t.SyncWait, t.Command, t.Open, t.Connect, t.Ack, t.Subscribe = 30*time.Second, 30*time.Second, 30*time.Second, 30*time.Second, 30*time.Second, 30*time.Second
	t.Gap = 300 * time.Millisecond
	return t
}

// TestMain lets more tests run at once than there are processors: those with a
// module mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "8")
	m.Run()
}

// site is a broker, a simulated module, and a modem that runs on its pty.
type site struct {
	t      *testing.T
	broker *broker
	module *sim.Module
	modem  *modem.Modem
}

// build runs a site until the end of the test, and then looks for goroutines
// that were left.
func build(t *testing.T, so sim.Options, mo modem.Options) *site {
	t.Helper()
	t.Parallel()
	mine := label()
	module, err := sim.New(so)
	if err != nil {
		t.Skipf("no simulated module here: %v", err)
	}
	b := newBroker(t)
	mo.Name, mo.Port = "lte", module.Path()
	if mo.Timing == (modem.Timing{}) {
		mo.Timing = quickly
	}
	m, err := modem.New(mo)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run does not end")
		}
		module.Close()
		b.close()
		until(t, "the goroutines ended", func() bool { return labelled(mine) <= 1 })
	})
	return &site{t: t, broker: b, module: module, modem: m}
}

var labels atomic.Int64

// label marks this goroutine and all that it will start, for labelled.
func label() string {
	name := fmt.Sprintf("site-%d", labels.Add(1))
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("site", name)))
	return name
}

// labelled counts the goroutines of a label, the one that set it among them.
func labelled(name string) (n int) {
	var all strings.Builder
	pprof.Lookup("goroutine").WriteTo(&all, 1)
	alike := 0 // goroutines, in the line before that of their labels
	for line := range strings.Lines(all.String()) {
		if count, _, ok := strings.Cut(line, " @ "); ok {
			alike, _ = strconv.Atoi(count)
		} else if strings.HasPrefix(line, "# labels:") && strings.Contains(line, `"`+name+`"`) {
			n += alike
		}
	}
	return n
}

// until waits for a condition that nothing announces.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("not in 20 s: %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *site) login() modem.Login {
	return modem.Login{Host: "127.0.0.1", Port: s.broker.port, ClientID: "gw1", Username: "u", Password: "p",
		KeepAlive: 30 * time.Second, CleanSession: true}
}

// connect tries until there is a connection.
func (s *site) connect(receive func(*holdfast.Message, bool, func())) *modem.Session {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		c, err := s.modem.Connect(ctx, s.login(), receive)
		if err == nil {
			return c
		}
		if ctx.Err() != nil {
			s.t.Fatalf("no connection: %v", err)
		}
	}
}

func ignore(*holdfast.Message, bool, func()) {}

// publish sends one message and waits for its end.
func publish(c *modem.Session, payload string, qos byte) error {
	end := make(chan error, 1)
	c.Publish(&holdfast.Message{Topic: "up/x", Payload: []byte(payload), QoS: qos}, false, func(err error) { end <- err })
	return <-end
}

func TestSimMessagesGoUpAndCommandsComeDown(t *testing.T) {
	s := build(t, sim.Options{}, modem.Options{Timing: patiently()})
	down := make(chan *holdfast.Message, 10)
	c := s.connect(func(msg *holdfast.Message, again bool, ack func()) { down <- msg })
	defer c.Close()
	for qos := range byte(3) {
		payload := fmt.Sprintf(`{"t":21.5,"q":%d}`, qos)
		if err := publish(c, payload, qos); err != nil {
			t.Fatalf("QoS %d: %v", qos, err)
		}
		until(t, "the broker has it", func() bool { return s.broker.received(payload) == 1 })
	}
	if err := c.Subscribe(t.Context(), "cmd/#", 1); err != nil {
		t.Fatal(err)
	}
	for _, payload := range []string{"on", "{\r\n\"a\":\r\nOK\r\n}", `{"x":"y, z"}`} {
		s.broker.send("cmd/1", payload)
		select {
		case msg := <-down:
			if msg.Topic != "cmd/1" || string(msg.Payload) != payload {
				t.Errorf("got %q on %s", msg.Payload, msg.Topic)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q did not come", payload)
		}
	}
	if err := publish(c, strings.Repeat("x", 1024), 1); err != nil {
		t.Error(err)
	}
	if err := publish(c, "", 1); err != nil {
		t.Errorf("an empty payload: %v", err)
	}
	until(t, "the broker has the empty one", func() bool { return s.broker.received("") == 1 })
	if err := publish(c, "still", 1); err != nil {
		t.Error(err)
	}
	st := s.modem.Status()
	if st.State != modem.StateConnected || !st.IMEI.Known() || !st.ICCID.Known() || st.Signal.DBm == 0 {
		t.Errorf("status %+v", st)
	}
	if n := s.module.Stats().Mistakes; len(n) != 0 {
		t.Errorf("the module met mistakes of the host: %v", n)
	}
}

func TestSimARebootInMidPublishLeavesItUnknown(t *testing.T) {
	s := build(t, sim.Options{}, modem.Options{})
	c := s.connect(ignore)
	s.broker.setMute(true)
	end := make(chan error, 4)
	for i := range 4 {
		c.Publish(&holdfast.Message{Topic: "up", Payload: fmt.Appendf(nil, "%d", i), QoS: 1}, false, func(err error) { end <- err })
	}
	s.module.Reboot()
	for range 4 {
		select {
		case err := <-end:
			if !errors.Is(err, holdfast.ErrUnknown) {
				t.Errorf("got %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a publish has no end")
		}
	}
	<-c.Done()
	c.Close()
	s.broker.setMute(false)
	c = s.connect(ignore)
	defer c.Close()
	if err := publish(c, "after", 1); err != nil {
		t.Error(err)
	}
}

func TestSimARefusedLoginIsExplained(t *testing.T) {
	for _, trap := range []string{"", "conn-short", "conn-short-spaced", "conn-tight"} {
		t.Run(trap, func(t *testing.T) {
			var o sim.Options
			if trap != "" {
				if err := o.Traps.Set(trap, 1); err != nil {
					t.Fatal(err)
				}
			}
			s := build(t, o, modem.Options{})
			s.module.Refuse(5)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := s.modem.Connect(ctx, s.login(), ignore)
			var refused *modem.RefusedError
			if !errors.As(err, &refused) || refused.Code != 5 || !strings.Contains(err.Error(), "not authorized (5)") {
				t.Fatalf("got %v", err)
			}
			s.module.Refuse(0)
			c := s.connect(ignore)
			if err := publish(c, "x", 1); err != nil {
				t.Error(err)
			}
			c.Close()
		})
	}
}

func TestSimAnOutageEndsTheSessionAndItComesBack(t *testing.T) {
	for _, trap := range []string{"", "outage-breaks", "dead-nat", "quiet-reconnect", "spontaneous-bye"} {
		t.Run(trap, func(t *testing.T) {
			var o sim.Options
			if trap != "" {
				if err := o.Traps.Set(trap, 1); err != nil {
					t.Fatal(err)
				}
			}
			s := build(t, o, modem.Options{})
			c := s.connect(ignore)
			s.module.SetLink(false)
			// Under way: unknown. After the end was noticed: not sent. Never
			// acknowledged, and never given up for good.
			err := publish(c, "lost", 1)
			if err == nil || errors.Is(err, holdfast.ErrRefused) || errors.Is(err, holdfast.ErrTooLarge) {
				t.Errorf("got %v", err)
			}
			<-c.Done()
			c.Close()
			s.module.SetLink(true)
			c = s.connect(ignore)
			defer c.Close()
			if err := publish(c, "back", 1); err != nil {
				t.Errorf("after the outage: %v", err)
			}
		})
	}
}

func TestSimABrokerThatCutsTheConnectionIsNoticed(t *testing.T) {
	s := build(t, sim.Options{}, modem.Options{})
	c := s.connect(ignore)
	s.broker.dropAll()
	select {
	case <-c.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("not noticed")
	}
	c.Close()
	c = s.connect(ignore)
	defer c.Close()
	if err := publish(c, "x", 1); err != nil {
		t.Error(err)
	}
}

func TestSimAWedgedClientIsReset(t *testing.T) {
	var o sim.Options
	o.Traps.OpenWedge = 1
	timing := quickly
	timing.Open = 500 * time.Millisecond
	s := build(t, o, modem.Options{Timing: timing})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if c, err := s.modem.Connect(ctx, s.login(), ignore); err == nil {
		c.Close()
		t.Fatal("connected")
	}
	until(t, "the module was reset", func() bool { return s.modem.Status().Counters.Resets > 0 })
	s.module.SetTraps(sim.Traps{})
	c := s.connect(ignore)
	defer c.Close()
	if err := publish(c, "x", 1); err != nil {
		t.Error(err)
	}
}

func TestSimAPINIsEntered(t *testing.T) {
	s := build(t, sim.Options{PIN: "4711"}, modem.Options{PIN: "4711"})
	s.connect(ignore).Close()
}

func TestSimAWrongPINIsEnteredOnce(t *testing.T) {
	s := build(t, sim.Options{PIN: "4711"}, modem.Options{PIN: "0000"})
	until(t, "the PIN was refused", func() bool { return strings.Contains(s.modem.Status().Problem, "PIN was refused") })
	opens := s.modem.Status().Counters.Opens
	until(t, "it was tried some more", func() bool { return s.modem.Status().Counters.Opens > opens+2 })
	// A second wrong one would leave one attempt, a third the PUK.
	if st := s.modem.Status(); st.SIM.Value != "SIM PIN" || !strings.Contains(st.Problem, "PIN was refused") {
		t.Errorf("the SIM says %q, the problem is %q", st.SIM.Value, st.Problem)
	}
}

// One trap at a time, at odds that leave the module usable: whatever is
// acknowledged has arrived, and everything arrives in the end.
func TestSimNothingIsLostInTheTraps(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute")
	}
	for _, trap := range sim.AllTraps() {
		switch trap.Name {
		case "baud-matters", "hold-slots", "dead-nat", "outage-breaks":
			continue // these need another setting
		}
		t.Run(trap.Name, func(t *testing.T) {
			o := sim.Options{Seed: 7, LateBy: 3 * time.Second, ConnectTimeout: time.Second}
			odds := sim.Odds(0.15)
			switch trap.Name {
			case "deaf", "late-ok", "noise", "lost-ack":
				odds = 0.02
			}
			if err := o.Traps.Set(trap.Name, odds); err != nil {
				t.Fatal(err)
			}
			s := build(t, o, modem.Options{})
			carry(t, s, 60)
		})
	}
}

// All of them at once, with outages and reboots in between.
func TestSimNothingIsLostInAllTrapsTogether(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute")
	}
	o := sim.Options{Seed: 11, LateBy: 3 * time.Second, ConnectTimeout: time.Second}
	for _, trap := range sim.AllTraps() {
		odds := sim.Odds(0.02)
		switch trap.Name {
		case "baud-matters", "hold-slots":
			continue
		case "deaf", "late-ok", "noise":
			odds = 0.003
		}
		if err := o.Traps.Set(trap.Name, odds); err != nil {
			t.Fatal(err)
		}
	}
	s := build(t, o, modem.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(1500 * time.Millisecond):
			}
			switch i % 3 {
			case 0:
				s.broker.dropAll()
			case 1:
				s.module.SetLink(false)
				time.Sleep(200 * time.Millisecond) // the length of the outage
				s.module.SetLink(true)
			case 2:
				s.module.Reboot()
			}
		}
	})
	carry(t, s, 300)
	t.Logf("%+v", s.modem.Status().Counters)
}

// carry brings n messages to the broker with a full window, sending again what
// has not been acknowledged.
func carry(t *testing.T, s *site, n int) {
	t.Helper()
	end := time.Now().Add(2 * time.Minute)
	type outcome struct {
		payload string
		err     error
	}
	todo := make([]string, n)
	for i := range todo {
		todo[i] = fmt.Sprintf(`{"n":%d,"pad":"%s"}`, i, strings.Repeat("x", i))
	}
	ends := make(chan outcome, 8)
	var c *modem.Session
	flying := 0
	for len(todo) > 0 || flying > 0 {
		if time.Now().After(end) {
			t.Fatalf("%d of %d are left; %+v", len(todo)+flying, n, s.modem.Status())
		}
		for len(todo) > 0 && (c == nil || flying < c.Window()) {
			if c == nil || c.Err() != nil {
				if c != nil {
					c.Close()
				}
				c = s.connect(ignore)
			}
			p := todo[0]
			todo = todo[1:]
			flying++
			c.Publish(&holdfast.Message{Topic: "up/x", Payload: []byte(p), QoS: 1}, false, func(err error) { ends <- outcome{p, err} })
		}
		o := <-ends
		flying--
		switch {
		case o.err == nil && s.broker.received(o.payload) == 0:
			t.Fatalf("%.20s was acknowledged and has not arrived", o.payload)
		case errors.Is(o.err, holdfast.ErrRefused), errors.Is(o.err, holdfast.ErrTooLarge):
			t.Fatalf("%.20s was given up: %v", o.payload, o.err)
		case o.err != nil:
			todo = append(todo, o.payload)
		}
	}
	c.Close()
}

func TestSimAModuleAtAnotherRateIsFound(t *testing.T) {
	// The module is at 115200; the configuration says 9600.
	file := filepath.Join(t.TempDir(), "lte.json")
	s := build(t, sim.Options{Traps: sim.Traps{BaudMatters: 1}}, modem.Options{Baud: 9600, MemoryFile: file})
	s.connect(ignore).Close()
	if b := s.modem.Status().Baud; b != 115200 {
		t.Errorf("it is said to be at %d", b)
	}
	if raw, err := os.ReadFile(file); err != nil || !strings.Contains(string(raw), "115200") {
		t.Errorf("it is remembered as %s, %v", raw, err)
	}
}

func TestSimTheRateIsRaised(t *testing.T) {
	s := build(t, sim.Options{Traps: sim.Traps{BaudMatters: 1}}, modem.Options{BaudSwitch: 460800})
	s.connect(ignore).Close()
	if b := s.modem.Status().Baud; b != 460800 {
		t.Errorf("it is said to be at %d", b)
	}
	// The module keeps its rate over a reboot, and so does the host.
	s.module.Reboot()
	until(t, "it was up again", func() bool {
		st := s.modem.Status()
		return st.Counters.Reboots > 0 && st.State == modem.StateReady
	})
	s.connect(ignore).Close()
	if b := s.modem.Status().Baud; b != 460800 {
		t.Errorf("after a reboot it is said to be at %d", b)
	}
}
