package modem

import (
	"context"
	"strconv"
	"strings"
	"time"

	"holdfast/modem/at"
)

// Clock is the time that the network has told, and when it did. The zero value
// is not known.
type Clock struct {
	Time time.Time `json:"time,omitzero"`
	At   time.Time `json:"at,omitzero"` // by the board's own clock
}

// Now is the network's time of day, as far as it is known: what it was when it
// was told, and the time since, which the board's own clock being set does not
// change. It is right to a few seconds.
func (c Clock) Now() (now time.Time, known bool) {
	if c.At.IsZero() {
		return time.Time{}, false
	}
	return c.Time.Add(time.Since(c.At)), true
}

// askClock reads the module's clock, which is set by the network (NITZ) where
// that tells the time.
func (m *Modem) askClock(ctx context.Context, e *at.Engine) error {
	r, err := m.wish(ctx, e, at.Command{Text: "AT+CCLK?", Prefixes: []string{"+CCLK"}})
	if err == nil {
		m.setClock(r.First())
	}
	return err
}

// setClock takes the answer to AT+CCLK?, or a +NITZ.
func (m *Modem) setClock(line string) {
	if t, ok := parseClock(strings.Join(at.Args(line), ",")); ok {
		m.learn(func(s *Status) { s.Clock = Clock{Time: t, At: time.Now()} })
	}
}

// earliest is before any module that this program meets; a clock that says less
// was never set.
var earliest = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// parseClock reads "yy/MM/dd,hh:mm:ss+zz", which is local time, with its zone in
// quarters of an hour (3GPP TS 27.007 8.15). Some firmwares have a year of four
// digits, leave out the zone, or add the daylight saving behind a comma. The
// time is refused if the clock was never set: those begin in 1970, 1980 or 2000.
func parseClock(s string) (time.Time, bool) {
	date, rest, ok := strings.Cut(strings.TrimSpace(s), ",")
	if !ok {
		return time.Time{}, false
	}
	rest, _, _ = strings.Cut(rest, ",")
	zone := 0
	if i := strings.IndexAny(rest, "+-"); i >= 0 {
		n, err := strconv.Atoi(rest[i+1:])
		if err != nil || n < 0 || n > 96 {
			return time.Time{}, false
		}
		if zone = n; rest[i] == '-' {
			zone = -n
		}
		rest = rest[:i]
	}
	if year, _, ok := strings.Cut(date, "/"); ok && len(year) == 4 {
		date = strings.TrimPrefix(date, "20")
	}
	t, err := time.Parse("06/01/02,15:04:05", date+","+strings.TrimSpace(rest))
	if err != nil {
		return time.Time{}, false
	}
	t = t.Add(-time.Duration(zone) * 15 * time.Minute)
	if t.Before(earliest) || t.Year() >= 2069 {
		return time.Time{}, false
	}
	return t, true
}
