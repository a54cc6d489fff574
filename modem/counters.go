package modem

import (
	"context"
	"path/filepath"
	"strconv"
	"time"

	"holdfast/modem/at"
)

// lookTraffic is how often what is counted elsewhere is read, and a counter inside
// the module after every tenth of them.
const lookTraffic = time.Minute

// measure keeps the meter until ctx ends.
func (m *Modem) measure(ctx context.Context) {
	ticker := time.NewTicker(lookTraffic)
	defer ticker.Stop()
	for {
		m.meter.turn(m.o.Now())
		m.readInterface()
		m.mu.Lock()
		s := m.session
		alive := s != nil && s.live
		m.mu.Unlock()
		if alive && s.Err() == nil {
			m.meter.pinged(time.Duration(keepAliveSeconds(s.login)) * time.Second)
		}
		last := false
		select {
		case <-ticker.C:
		case <-ctx.Done():
			m.readInterface()
			last = true
		}
		if err := m.meter.save(last, m.memory.keepTraffic); err != nil {
			m.log.Debug("the months could not be written down", "error", err)
		}
		if last {
			return
		}
	}
}

// readInterface reads the board's counters of the interface, if there is one now.
func (m *Modem) readInterface() {
	if m.o.Interface == "" {
		return
	}
	folder := filepath.Join(m.tree.sys, "class/net", m.o.Interface, "statistics")
	out, err1 := strconv.ParseUint(attribute(folder, "tx_bytes"), 10, 64)
	in, err2 := strconv.ParseUint(attribute(folder, "rx_bytes"), 10, 64)
	if err1 == nil && err2 == nil {
		m.meter.read(counterReading{Source: FromInterface, Out: out, In: in})
	}
}

// askCounter reads the counter of Quectel firmware, AT+QGDCNT: bytes sent and
// received since the module was started, or its counter cleared. Firmware of others
// is not asked, and one that refuses once is left in peace.
func (m *Modem) askCounter(ctx context.Context, e *at.Engine) error {
	s := m.Status()
	if m.o.Interface != "" || m.noCounter || s.Sockets != "qi" && s.Dialect != "qmt" {
		return nil
	}
	r, err := m.ask(ctx, e, at.Command{Text: "AT+QGDCNT?", Prefixes: []string{"+QGDCNT"}})
	if lacks(ctx, err) {
		m.noCounter = true
		return nil
	}
	if err != nil {
		return err
	}
	if out, in, ok := parseCounter(r.First()); ok {
		m.meter.read(counterReading{Source: FromModule, Out: out, In: in})
	}
	return nil
}

func parseCounter(line string) (out, in uint64, ok bool) {
	a := at.Args(line)
	if len(a) < 2 {
		return 0, 0, false
	}
	out, err1 := strconv.ParseUint(a[0], 10, 64)
	in, err2 := strconv.ParseUint(a[1], 10, 64)
	return out, in, err1 == nil && err2 == nil && max(out, in) <= maxCounter
}

// maxCounter is more than a SIM carries in its life: a petabyte.
const maxCounter = 1 << 50
