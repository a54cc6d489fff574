package modem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// overInterface are the options of a module that gives the board an interface; the
// network fails with what *fail says, if that is not nil.
func overInterface(fail *atomic.Pointer[error]) Options {
	return Options{Interface: "usb0", Dial: func(context.Context, string, string) (net.Conn, error) {
		if err := fail.Load(); err != nil {
			return nil, *err
		}
		here, there := net.Pipe()
		there.Close()
		return here, nil
	}}
}

func TestAnInterfaceDoesNotWaitForTheATPort(t *testing.T) {
	f := registered(t)
	f.die()
	withModem(t, f, overInterface(new(atomic.Pointer[error])), func(t *testing.T, m *Modem) {
		if ok, err := m.HasSocket(t.Context()); !ok || err != nil {
			t.Fatal(ok, err)
		}
		c, err := m.DialContext(t.Context(), "tcp", "broker.example:1883")
		if err != nil {
			t.Fatal(err)
		}
		if n := m.Status().Connections; n != 1 {
			t.Errorf("%d connections", n)
		}
		// The AT port is dead, and the data flows: that is left alone.
		time.Sleep(2 * time.Hour)
		if st := m.Status(); st.Counters.Resets != 0 || st.Problem == "" {
			t.Errorf("%d resets under a connection, the problem is %q", st.Counters.Resets, st.Problem)
		}
		c.Close()
		c.Close()
		if n := m.Status().Connections; n != 0 {
			t.Errorf("%d connections after Close", n)
		}
	})
}

func TestAnInterfaceThatCarriesNothingLeadsToAReset(t *testing.T) {
	f := registered(t)
	fail := new(atomic.Pointer[error])
	withModem(t, f, overInterface(fail), func(t *testing.T, m *Modem) {
		up(t, m)
		try := func(err error, n int) {
			fail.Store(&err)
			for range n {
				if _, err := m.DialContext(t.Context(), "tcp", "broker.example:1883"); err == nil {
					t.Fatal("it is connected")
				}
			}
			time.Sleep(10 * time.Minute)
		}
		try(&net.DNSError{Err: "no such host", Name: "broker.example"}, 10)
		try(os.NewSyscallError("connect", syscall.ECONNREFUSED), 10)
		if n := m.Status().Counters.Resets; n != 0 {
			t.Errorf("%d resets for what is no fault of the module", n)
		}
		try(os.NewSyscallError("connect", syscall.ENETUNREACH), 3)
		st := m.Status()
		if st.Counters.Resets != 1 || st.State != StateReady {
			t.Errorf("%d resets, it is %s", st.Counters.Resets, st.State)
		}
		if got := f.heard("AT+CFUN="); !slices.Equal(got, []string{"AT+CFUN=0", "AT+CFUN=1"}) {
			t.Errorf("got %q", got)
		}
		// Of what the firmware has nothing is looked for.
		if got := f.heard("AT+ECMT"); len(got) != 0 {
			t.Errorf("got %q", got)
		}
		_, err := m.DialContext(t.Context(), "tcp", "x:1")
		if !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("the error is %v", err)
		}
		noDevice := error(syscall.ENODEV)
		fail.Store(&noDevice)
		if _, err := m.DialContext(t.Context(), "tcp", "x:1"); err == nil || !strings.Contains(err.Error(), "is pppd running") {
			t.Errorf("without the interface: %v", err)
		}
	})
}

// The AT port fails for a while before there is a connection, and goes on to fail: the
// reset that is due then is not for a module that carries one.
func TestAResetThatIsDueIsLeftOutWhileAConnectionLives(t *testing.T) {
	f := registered(t)
	f.on("AT+CEREG?", "\r\n+CEREG: 2,2\r\n"+ok)
	o := overInterface(new(atomic.Pointer[error]))
	o.Timing = Timing{Registration: 10 * time.Second}
	withModem(t, f, o, func(t *testing.T, m *Modem) {
		for m.Status().Failures < firstReset {
			time.Sleep(time.Second)
		}
		c, err := m.DialContext(t.Context(), "tcp", "broker.example:1883")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		time.Sleep(2 * time.Hour)
		if n := m.Status().Counters.Resets; n != 0 {
			t.Errorf("%d resets under a connection", n)
		}
	})
}

// Its AT port has another name now, or a wrong one.
func TestAModuleWithoutItsPortKeepsItsPowerWhileAConnectionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := overInterface(new(atomic.Pointer[error]))
		o.Name = "lte"
		o.Open = func(context.Context) (io.ReadWriteCloser, error) {
			return nil, fmt.Errorf("there is no such port: %w", fs.ErrNotExist)
		}
		o.PowerCycle = func(context.Context) error { return nil }
		m, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		c, err := m.DialContext(ctx, "tcp", "broker.example:1883")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(12 * time.Hour)
		if n := m.Status().Counters.PowerCycles; n != 0 {
			t.Errorf("its power was cut %d times under a connection", n)
		}
		c.Close()
		time.Sleep(time.Hour)
		if n := m.Status().Counters.PowerCycles; n == 0 {
			t.Error("it was not given power again without one")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// To set the access point the radio goes off: the one in use works.
func TestTheAccessPointIsLeftAloneWhileAConnectionLives(t *testing.T) {
	f := registered(t)
	o := overInterface(new(atomic.Pointer[error]))
	o.APN = "other.example"
	withModem(t, f, o, func(t *testing.T, m *Modem) {
		c, err := m.DialContext(t.Context(), "tcp", "broker.example:1883") // before the module is up
		if err != nil {
			t.Fatal(err)
		}
		up(t, m)
		if got := f.heard("AT+CFUN=0"); len(got) != 0 {
			t.Errorf("got %q under a connection", got)
		}
		c.Close()
		f.say("\r\nRDY\r\n")
		time.Sleep(time.Minute)
		if got := f.heard("AT+CFUN=0"); len(got) != 1 {
			t.Errorf("got %q without one", got)
		}
	})
}
