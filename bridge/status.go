package bridge

import (
	"sync"
	"sync/atomic"
	"time"
)

// State is what a bridge is doing.
type State string

// The states.
const (
	Stopped    State = "stopped"
	Connecting State = "connecting"
	Connected  State = "connected"
	Backoff    State = "backoff" // waiting for the next attempt
	Sitting    State = OverPlan  // waiting for the next period of a data plan
)

// Status is what a bridge tells about itself. Counts are of this process.
type Status struct {
	State    State     `json:"state"`
	Upstream string    `json:"upstream,omitempty"` // in use, or being tried
	Since    time.Time `json:"since"`              // when it got into this state
	// Upstreams are all of them in their order, if there are several.
	Upstreams []UpstreamStatus `json:"upstreams,omitempty"`
	// LastError is the last problem in words, empty if there was none; it is
	// kept while connected, LastErrorAt says how old it is.
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	Attempts    int       `json:"attempts"`              // to connect since the last connection
	Connections uint64    `json:"connections"`           // made so far
	NextAttempt time.Time `json:"next_attempt,omitzero"` // in backoff

	Sent     uint64 `json:"sent"` // publishes, those sent again included
	Acked    uint64 `json:"acked"`
	Inflight int64  `json:"inflight"`
	// InflightLimit is how many bytes may be on their way now, by what the link
	// carries; 0 before the first acknowledgement.
	InflightLimit int64  `json:"inflight_limit_bytes"`
	Quarantined   uint64 `json:"quarantined"`
	// Exactly: what is sent with QoS 2 on this connection comes once. Unsure are
	// the messages that may have come twice although it was to be so
	// (Options.FarSession).
	Exactly bool   `json:"exactly_once"`
	Unsure  uint64 `json:"unsure"`
	// Beside are the messages that another upstream has carried, because the one
	// in use cannot.
	Beside uint64 `json:"beside"`
	// Encoded are the messages that were sent in base64, those sent again
	// included.
	Encoded  uint64 `json:"encoded"`
	Received uint64 `json:"received"`         // commands that the local broker has accepted
	Waiting  int64  `json:"received_waiting"` // commands that it has not accepted yet
	// Held are messages that wait for the end of their interval (Route.Sample),
	// Unthinned those that were not left out, or went early, because a bound of
	// sampling was met.
	Held int `json:"held"`
	// Unretained were sent without RETAIN because something newer of their topic
	// was, or may have been, sent before them (Options.LiveFirst).
	Unretained uint64 `json:"unretained"`
	Unthinned  uint64 `json:"unthinned"`
	// Dropped are commands that were not delivered: DroppedLoop our own
	// publishes come back, DroppedFull QoS 0 over the bound, DroppedRefused
	// refused for good by the local broker, DroppedUnrouted for no route.
	DroppedLoop     uint64 `json:"dropped_loop"`
	DroppedFull     uint64 `json:"dropped_full"`
	DroppedRefused  uint64 `json:"dropped_refused"`
	DroppedUnrouted uint64 `json:"dropped_unrouted"`
	// RTT is the moving average of the time from a publish of QoS 1 or 2 to
	// its acknowledgement, over about the last eight.
	RTT time.Duration `json:"rtt_ns"`
	// KeepAlive is how long the link may be silent now, if that is learned.
	KeepAlive time.Duration `json:"keepalive_ns,omitempty"`
}

// Status is safe for concurrent use.
func (b *Bridge) Status() Status {
	b.status.mu.Lock()
	s := b.status.s
	s.Upstreams = b.upstreamsLocked()
	for _, u := range b.upstreams {
		if s.State == Connected && s.Upstream == u.Name && u.Adaptive != nil {
			s.KeepAlive = u.Adaptive.interval()
		}
	}
	b.status.mu.Unlock()
	s.Sent = b.status.sent.Load()
	s.Acked = b.status.acked.Load()
	s.Inflight = b.status.inflight.Load()
	s.InflightLimit = b.status.limit.Load()
	s.Quarantined = b.status.quarantined.Load()
	s.Exactly = s.State == Connected && b.status.exactly.Load()
	s.Unsure = b.status.unsure.Load()
	s.Beside = b.status.beside.Load()
	s.Encoded = b.status.encoded.Load()
	s.Received = b.status.received.Load()
	s.Waiting = b.status.pending.Load()
	s.DroppedLoop = b.status.loop.Load()
	s.DroppedFull = b.status.full.Load()
	s.DroppedRefused = b.status.refused.Load()
	s.DroppedUnrouted = b.status.unrouted.Load()
	s.Held = b.thin.holding()
	s.Unthinned = b.status.unthinned.Load()
	s.Unretained = b.status.unretained.Load()
	s.RTT = time.Duration(b.status.rtt.Load())
	return s
}

// status is written by Run and by the goroutines of its connections.
type status struct {
	mu sync.Mutex
	s  Status // only the fields that are no counters

	sent, acked, quarantined, encoded, beside atomic.Uint64
	received, loop, full, refused, unrouted   atomic.Uint64
	inflight, pending, rtt, limit             atomic.Int64
	unthinned, unretained, unsure             atomic.Uint64
	exactly                                   atomic.Bool
	unthinnedAt                               atomic.Int64 // when it was last logged
}

func (s *status) enter(state State) {
	if s.s.State != state {
		s.s.Since = time.Now()
	}
	s.s.State = state
	s.s.NextAttempt = time.Time{}
}

func (s *status) connecting(upstream string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enter(Connecting)
	s.s.Upstream = upstream
	s.s.Attempts++
}

func (s *status) connected(upstream string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enter(Connected)
	s.s.Upstream = upstream
	s.s.Attempts = 0
	s.s.Connections++
}

func (s *status) waiting(err error, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enter(Backoff)
	s.s.Upstream = ""
	s.s.NextAttempt = until
	s.problemLocked(err)
}

// sitting is until the far broker is told again.
func (s *status) sitting(err error, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enter(Sitting)
	s.s.Upstream = ""
	s.s.NextAttempt = until
	s.problemLocked(err)
}

func (s *status) stopped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enter(Stopped)
	s.s.Upstream = ""
}

// problem notes an error that does not end the connection.
func (s *status) problem(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problemLocked(err)
}

func (s *status) problemLocked(err error) {
	if err != nil {
		s.s.LastError, s.s.LastErrorAt = err.Error(), time.Now()
	}
}

// answered counts an acknowledgement that took d. Calls of one connection do
// not overlap.
func (s *status) answered(qos byte, d time.Duration) {
	s.acked.Add(1)
	if qos == 0 {
		return // nothing came back
	}
	old := time.Duration(s.rtt.Load())
	if old == 0 {
		old = d
	}
	s.rtt.Store(int64(old + (d-old)/8))
}
