package modem

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// flowPort is a port with RTS and CTS; unwired, it sends nothing when they are on.
type flowPort struct {
	net.Conn
	h       *history
	unwired bool
	on      bool
}

// boot is what a restart of the module does: it does not drive its RTS any more.
func (p *flowPort) boot(unwired bool) {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	p.unwired = unwired
}

func (p *flowPort) SetFlowControl(on bool) error {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	p.on = on
	p.h.what = append(p.h.what, map[bool]string{true: "on", false: "off"}[on])
	return nil
}

func (p *flowPort) Write(b []byte) (int, error) {
	p.h.mu.Lock()
	held := p.on && p.unwired
	p.h.mu.Unlock()
	if held {
		return len(b), nil
	}
	return p.Conn.Write(b)
}

func TestFlowControlIsSwitchedOnInTheModuleFirst(t *testing.T) {
	for _, test := range []struct {
		name    string
		answer  string
		unwired bool
		off     bool // in the options
		want    []string
	}{
		{"wired", ok, false, false, []string{"AT+IFC=2,2", "on"}},
		{"not wired", ok, true, false, []string{"AT+IFC=2,2", "on", "off", "AT+IFC=0,0"}},
		{"not taken", "\r\n+CME ERROR: 3\r\n", false, false, []string{"AT+IFC=2,2"}},
		{"not wanted", ok, false, true, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := registered(t)
			h := &history{}
			for _, cmd := range []string{"AT+IFC=2,2", "AT+IFC=0,0"} {
				f.onFunc(cmd, func(string) string { h.add(cmd); return test.answer })
			}
			f.wrap = func(host net.Conn) io.ReadWriteCloser {
				return &flowPort{Conn: host, h: h, unwired: test.unwired}
			}
			withModem(t, f, Options{FlowControl: !test.off}, func(t *testing.T, m *Modem) {
				up(t, m)
				time.Sleep(time.Minute)
				if got, _ := h.get(); !slices.Equal(got, test.want) {
					t.Errorf("%q was done, not %q", got, test.want)
				}
				if st := m.Status(); st.State != StateReady {
					t.Errorf("state %s: %s", st.State, st.Problem)
				}
			})
		})
	}
}

// A module that restarts has forgotten it, and must be heard to be told again.
func TestFlowControlIsOffUntilARestartedModuleIsTold(t *testing.T) {
	f := registered(t)
	h := &history{}
	var port *flowPort
	f.wrap = func(host net.Conn) io.ReadWriteCloser {
		port = &flowPort{Conn: host, h: h, unwired: true}
		return port
	}
	f.onFunc("AT+IFC=2,2", func(cmd string) string { port.boot(false); return ok })
	withModem(t, f, Options{FlowControl: true}, func(t *testing.T, m *Modem) {
		up(t, m)
		port.boot(true)
		f.say("\r\nRDY\r\n")
		time.Sleep(10 * time.Second)
		st := m.Status()
		if st.State != StateReady || st.Counters.Opens != 1 || st.Failures != 0 {
			t.Errorf("it is %s after %d openings and %d failures: %s", st.State, st.Counters.Opens, st.Failures, st.Problem)
		}
	})
}
