package modem_test

import (
	"testing"
	"time"

	"holdfast/modem"
	"holdfast/modem/sim"
)

// A connection that only brings commands down, whose way the operator has
// forgotten: the module never says so.
func TestSimADeadConnectionIsFoundThoughTheModuleSaysNothing(t *testing.T) {
	for _, dialect := range []string{sim.DialectECMT, sim.DialectQMT, sim.DialectCMQTT} {
		t.Run(dialect, func(t *testing.T) {
			s := build(t, sim.Options{
				Dialect: dialect, Sockets: sim.SocketsNone, NoticeAfter: time.Hour, KeepAliveUnit: time.Hour,
				Traps: sim.Traps{DeadNAT: 1},
			}, modem.Options{})
			l := s.login()
			l.KeepAlive = time.Second
			c, err := s.modem.Connect(t.Context(), l, ignore)
			if err != nil {
				t.Fatal(err)
			}
			until(t, "the link is tested", func() bool { return s.broker.unsubscribed() > 1 })
			if err := c.Err(); err != nil {
				t.Fatal(err)
			}
			s.module.SetLink(false)
			s.module.SetLink(true)
			select {
			case <-c.Done():
			case <-time.After(20 * time.Second):
				t.Fatal("not found")
			}
			c.Close()
			c = s.connect(ignore)
			defer c.Close()
			if err := publish(c, "back", 1); err != nil {
				t.Error(err)
			}
		})
	}
}
