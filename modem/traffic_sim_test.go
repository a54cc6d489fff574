package modem_test

import (
	"fmt"
	"testing"

	"holdfast/modem"
	"holdfast/modem/sim"
)

func TestSimTheModulesCounterIsWhatIsTold(t *testing.T) {
	s := build(t, sim.Options{Dialect: sim.DialectQMT, Sockets: sim.SocketsNone}, modem.Options{})
	c := s.connect(ignore)
	defer c.Close()
	for i := range 20 {
		if err := publish(c, fmt.Sprint("message ", i), 1); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the counter was read", func() bool {
		told, air := s.modem.Status().Traffic, s.module.Stats()
		return told.Source == modem.FromModule && len(told.Months) == 1 &&
			told.Months[0].Out == uint64(air.Up) && told.Months[0].In == uint64(air.Down)
	})
}
