package crash

import (
	"maps"
	"slices"
	"sync"
)

// destination is a place where messages must arrive: a durable session of the
// gateway, or the far broker. Sources count from 1 without gaps and send again
// what was not acknowledged, so the first arrivals must count without gaps too:
// a gap is a message that was lost or overtaken, and is seen at once. This
// needs one number a source, however many messages there are.
type destination struct {
	name   string
	seed   uint64
	faults *faults
	// gaps: sources of QoS 0, of which any message may be missing.
	gaps map[string]bool
	// once: sources whose messages must never come twice.
	once map[string]bool

	mu    sync.Mutex
	high  map[string]uint64 // the last first arrival by source; guarded by mu
	total map[string]uint64 // arrivals, repetitions included; guarded by mu
	again uint64            // repetitions; guarded by mu
}

func newDestination(name string, seed uint64, f *faults) *destination {
	return &destination{
		name: name, seed: seed, faults: f, gaps: map[string]bool{}, once: map[string]bool{},
		high: map[string]uint64{}, total: map[string]uint64{},
	}
}

// arrived takes one message as the subscriber has got it.
func (d *destination) arrived(body []byte) {
	st, err := parse(d.seed, body)
	if err != nil {
		d.faults.add("%s: %v", d.name, err)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	high := d.high[st.source]
	d.total[st.source]++
	switch {
	case st.seq == high+1:
		d.high[st.source] = st.seq
	case st.seq <= high:
		d.again++
		if d.once[st.source] {
			d.faults.add("%s: %s %d has come twice (QoS 2; the last was %d)", d.name, st.source, st.seq, high)
		}
	case d.gaps[st.source]:
		d.high[st.source] = st.seq
	default:
		d.faults.add("%s: %s %d came after %d: %d messages between them are lost or late", d.name, st.source, st.seq, high, st.seq-high-1)
		d.high[st.source] = st.seq
	}
}

// missing returns, for each source of want that has not arrived up to its
// number, how many are missing. Sources of QoS 0 are left out.
func (d *destination) missing(want map[string]uint64) map[string]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := map[string]uint64{}
	for source, seq := range want {
		if have := d.high[source]; have < seq && !d.gaps[source] {
			m[source] = seq - have
		}
	}
	return m
}

// highs is a copy of how far each source has come.
func (d *destination) highs() map[string]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.high)
}

// arrivals counts what has come of the sources, repetitions included.
func (d *destination) arrivals(sources ...string) (n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for source, k := range d.total {
		if len(sources) == 0 || slices.Contains(sources, source) {
			n += k
		}
	}
	return n
}

func (d *destination) repetitions() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.again
}
