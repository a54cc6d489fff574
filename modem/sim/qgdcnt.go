package sim

import "fmt"

// qgdcnt is AT+QGDCNT, the data counter of Quectel firmware: bytes sent and
// received since the module was started, or since AT+QGDCNT=0.
func (m *Module) qgdcnt(c call, r *reply) outcome {
	var up, down int64
	m.stats.count(func(s *Stats) { up, down = s.Up, s.Down })
	switch c.form {
	case formRead:
		r.add(fmt.Sprintf("+QGDCNT: %d,%d", up-m.gdcnt[0], down-m.gdcnt[1]))
	case formSet:
		if c.args != "0" {
			return badParam
		}
		m.gdcnt = [2]int64{up, down}
	}
	return done
}
