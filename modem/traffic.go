package modem

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// MonthBytes are the bytes that crossed the air in one month of the calendar (UTC).
type MonthBytes struct {
	Month string `json:"month"` // as in 2026-11
	Out   uint64 `json:"out"`
	In    uint64 `json:"in"`
}

// Where the figures of Traffic come from.
const (
	FromModel     = "estimated" // payload and modelled overhead
	FromModule    = "module"    // the module's own counter
	FromInterface = "interface" // the board's counter of the network interface
)

// Traffic is what a modem has carried, by month, the latest first. It is kept
// over restarts; a crash loses an hour of it at most, and nothing of what a counter
// of the module or of the board tells afterwards. Operators bill a little more:
// they round up.
type Traffic struct {
	Source string       `json:"source"`
	Months []MonthBytes `json:"months,omitempty"`
}

const (
	monthFormat = "2006-01"
	maxMonths   = 13
	// saveTraffic is how often the months are written at most: an SD card wears
	// out.
	saveTraffic = time.Hour
)

// The model of what is added inside a module: headers of IP and TCP without
// options, segments as large as LTE carries, and an acknowledgement of each in the
// other direction.
const (
	headerBytes  = 40
	segmentBytes = 1400
	// A connection: the name is looked up, three segments open it, four close it.
	openOut, openIn = 290, 330
	pingBytes       = 2 // of MQTT, and as many back
)

// modelled is what n bytes that are sent together cost: in their direction, and in
// the other.
func modelled(n int) (there, back uint64) {
	segments := uint64(max(1, (n+segmentBytes-1)/segmentBytes))
	return uint64(n) + headerBytes*segments, headerBytes * segments
}

// trafficRecord is what is on disk.
type trafficRecord struct {
	Months []MonthBytes `json:"months,omitempty"` // the latest first
	// Counter is what a counter said last. EstimatedOut and EstimatedIn are what
	// the model has added to the months since, which goes when it is read again.
	Counter      *counterReading `json:"counter,omitempty"`
	EstimatedOut uint64          `json:"estimated_out,omitempty"`
	EstimatedIn  uint64          `json:"estimated_in,omitempty"`
}

// counterReading is what a counter that only grows has said.
type counterReading struct {
	Source string `json:"source"`
	Out    uint64 `json:"out"`
	In     uint64 `json:"in"`
}

// meter counts for one modem.
type meter struct {
	mu      sync.Mutex
	data    trafficRecord
	month   string // that counts now
	source  string
	unsaved bool
	saved   time.Time // when the data was written, or the process began
	quiet   time.Time // since when nothing was carried
}

func newMeter(data trafficRecord) *meter {
	t := &meter{data: data, source: FromModel, saved: time.Now(), quiet: time.Now()}
	t.turn(time.Now(), false)
	return t
}

// turn says what time it is. While the clock is not to be trusted the month does
// not go back: a board without a battery begins in 1970.
func (t *meter) turn(now time.Time, trusted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.month = now.UTC().Format(monthFormat)
	if len(t.data.Months) > 0 && !trusted {
		t.month = max(t.month, t.data.Months[0].Month)
	}
}

// monthLocked is the month that counts now.
func (t *meter) monthLocked() *MonthBytes {
	d := &t.data
	i, found := slices.BinarySearchFunc(d.Months, t.month, func(m MonthBytes, month string) int { return cmp.Compare(month, m.Month) })
	if !found {
		d.Months = slices.Insert(d.Months, i, MonthBytes{Month: t.month})
		if len(d.Months) > maxMonths {
			d.Months = d.Months[:maxMonths]
			i = min(i, maxMonths-1)
		}
		t.saved = time.Time{} // a new month is worth a write
	}
	return &d.Months[i]
}

// estimate adds what the model says.
func (t *meter) estimate(out, in uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.estimateLocked(out, in)
	t.quiet = time.Now()
}

func (t *meter) estimateLocked(out, in uint64) {
	m := t.monthLocked()
	m.Out += out
	m.In += in
	t.data.EstimatedOut += out
	t.data.EstimatedIn += in
	t.unsaved = true
}

// sent and received are n bytes over a connection inside the module.
func (t *meter) sent(n int)     { there, back := modelled(n); t.estimate(there, back) }
func (t *meter) received(n int) { there, back := modelled(n); t.estimate(back, there) }

// opened is a connection that was made.
func (t *meter) opened() { t.estimate(openOut, openIn) }

// published is a PUBLISH of our own, and carried down one of the broker, with what
// both sides answer to it.
func (t *meter) published(size int, qos byte) {
	out, in := modelled(size)
	for range qos { // PUBACK; PUBREC with PUBREL, and PUBCOMP
		in += 4
		out += headerBytes
	}
	t.estimate(out, in)
}

func (t *meter) delivered(size int) {
	in, out := modelled(size)
	t.estimate(out+4, in) // with a PUBACK, mostly
}

// pinged counts the pings of a client inside the module, which nobody tells of: one
// for each keep alive in which nothing was carried.
func (t *meter) pinged(keepAlive time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	there, back := modelled(pingBytes)
	for ; keepAlive > 0 && time.Since(t.quiet) >= keepAlive; t.quiet = t.quiet.Add(keepAlive) {
		t.estimateLocked(there+back, there)
	}
}

// read takes what a counter says. What it has counted since it was read last takes
// the place of what the model has added since. One that began anew - the module has
// restarted - leaves that as it is; an interface that did has carried all that it
// tells.
func (t *meter) read(r counterReading) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.data.Counter
	t.source = r.Source
	if last != nil && *last == r && t.data.EstimatedOut == 0 && t.data.EstimatedIn == 0 {
		return
	}
	m := t.monthLocked()
	switch {
	case last != nil && last.Source == r.Source && r.Out >= last.Out && r.In >= last.In:
		m.Out = correct(m.Out, t.data.EstimatedOut, r.Out-last.Out)
		m.In = correct(m.In, t.data.EstimatedIn, r.In-last.In)
	case last != nil && last.Source == r.Source && r.Source == FromInterface:
		m.Out += r.Out
		m.In += r.In
	}
	t.data.Counter, t.data.EstimatedOut, t.data.EstimatedIn = &r, 0, 0
	t.unsaved = true
}

// correct puts measured in the place of estimated, which may be partly in the month
// before.
func correct(sum, estimated, measured uint64) uint64 {
	return sum + measured - min(sum+measured, estimated)
}

// traffic is a snapshot.
func (t *meter) traffic() Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Traffic{Source: t.source, Months: slices.Clone(t.data.Months)}
}

// save gives what is to be written to write: when an hour has passed, in a new
// month, or at last. A write that fails is tried again an hour later.
func (t *meter) save(last bool, write func(trafficRecord) error) error {
	t.mu.Lock()
	if !t.unsaved || !last && time.Since(t.saved) < saveTraffic {
		t.mu.Unlock()
		return nil
	}
	t.saved, t.unsaved = time.Now(), false
	data := t.data
	data.Months = slices.Clone(data.Months)
	t.mu.Unlock()
	err := write(data)
	if err != nil {
		t.mu.Lock()
		t.unsaved = true
		t.mu.Unlock()
	}
	return err
}

// sane drops what no meter has written.
func (d trafficRecord) sane() trafficRecord {
	d.Months = slices.DeleteFunc(d.Months, func(m MonthBytes) bool {
		_, err := time.Parse(monthFormat, m.Month)
		return err != nil
	})
	slices.SortFunc(d.Months, func(a, b MonthBytes) int { return cmp.Compare(b.Month, a.Month) })
	d.Months = slices.CompactFunc(d.Months, func(a, b MonthBytes) bool { return a.Month == b.Month })
	d.Months = d.Months[:min(len(d.Months), maxMonths)]
	return d
}
