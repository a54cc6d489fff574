package gateway

import (
	"slices"
	"strings"
	"time"

	"holdfast"
	"holdfast/bridge"
	"holdfast/configs"
	"holdfast/edge"
	"holdfast/modem"
)

// Status is the state of the whole gateway at one moment, for people and for
// the JSON API. Its field names are part of the API.
type Status struct {
	ID     string  `json:"id"`
	Uptime float64 `json:"uptime_seconds"`
	// Time is the gateway's clock, and Memory what the process has of the RAM,
	// in bytes; 0 if that is not known.
	Time   time.Time `json:"time"`
	Memory int64     `json:"memory_bytes,omitempty"`
	// Listeners are the addresses that clients can reach.
	Listeners []string       `json:"listeners"`
	Broker    edge.Stats     `json:"broker"`
	Bridges   []BridgeStatus `json:"bridges"`
	Modems    []modem.Status `json:"modems"`
	// Plans are the data plans.
	Plans []PlanStatus `json:"plans,omitempty"`
	// Retired are the bridges that were in an earlier configuration and have
	// books still.
	Retired []RetiredBridge `json:"retired,omitempty"`
	Storage StorageStatus   `json:"storage"`
	Clock   ClockStatus     `json:"clock"`
}

// RetiredBridge is a bridge that is no longer in the configuration.
type RetiredBridge struct {
	Name        string                     `json:"name"`
	Queued      int                        `json:"queued"`
	QueuedBytes int64                      `json:"queued_bytes"`
	Routes      map[string]holdfast.Counts `json:"routes"`
}

// StorageStatus is the state of the store, with figures since it was opened.
type StorageStatus struct {
	// Mode is "disk", or "memory" if the disk cannot be written, and Reason why
	// and what to do.
	Mode   string `json:"mode"`
	Reason string `json:"reason,omitempty"`
	// Sync is "always" or "spill", the mode of the configuration.
	Sync string `json:"sync"`
	// Direct counts messages that were acknowledged by all who were to get them
	// before anything was written, Commits the writes to the disk. Pending is how
	// many bytes wait for one or the other.
	Direct  uint64 `json:"direct"`
	Commits uint64 `json:"commits"`
	Pending int    `json:"pending_bytes"`
	// Queued and QueuedBytes are those of all queues, the sessions' too.
	Queued      int64 `json:"queued"`
	QueuedBytes int64 `json:"queued_bytes"`
	// SetAside counts damaged files, Lost messages and Unreadable other rows that
	// could not be read.
	SetAside   uint64 `json:"set_aside"`
	Salvaged   uint64 `json:"salvaged"` // rows taken out of damaged files
	Lost       uint64 `json:"lost"`
	Unreadable uint64 `json:"unreadable"`
	Failures   uint64 `json:"failures"` // commits that failed
	// LongestDrop is the longest time that giving back space stopped the store.
	LongestDrop float64 `json:"longest_drop_seconds"`
	// Failed is why nothing is stored now; empty if all is well.
	Failed string `json:"failed,omitempty"`
	// Space is how much of the disk's reserve is left: ok, low, short or none.
	Space string `json:"space"`
	// Disk is that of the data folder; nil if nothing is known of it.
	Disk *DiskStatus `json:"disk,omitempty"`
}

// UpstreamStatus is one of several upstreams of a bridge.
type UpstreamStatus = bridge.UpstreamStatus

// PlanStatus is one data plan.
type PlanStatus = bridge.PlanStatus

// BridgeStatus is one bridge with its queue and its books.
type BridgeStatus struct {
	Name string `json:"name"`
	bridge.Status
	// Queued is the number of messages that are accepted and not delivered,
	// QueuedBytes their size.
	Queued      int   `json:"queued"`
	QueuedBytes int64 `json:"queued_bytes"`
	// QueueLimit is max_bytes of the queue, Oldest when its oldest message was
	// received; zero if it is empty.
	QueueLimit int64     `json:"queue_limit_bytes"`
	Oldest     time.Time `json:"oldest,omitzero"`
	// Routes is the ledger; it balances (holdfast.Counts.Balanced).
	Routes map[string]holdfast.Counts `json:"routes"`
	// RetiredRoutes are those of Routes that are no longer in the configuration.
	RetiredRoutes []string `json:"retired_routes,omitempty"`
}

// Status may be called at any time between Start and Shutdown.
func (g *Gateway) Status() Status {
	st := Status{
		ID:     g.cfg.Gateway.ID,
		Uptime: time.Since(g.started).Seconds(),
		Time:   time.Now(),
		Memory: residentMemory(),
		Broker: g.broker.Stats(),
	}
	for _, a := range g.addresses {
		st.Listeners = append(st.Listeners, a.String())
	}
	set := g.bridges.now()
	for _, b := range set.parts {
		books := b.queue.Ledger()
		st.Bridges = append(st.Bridges, BridgeStatus{
			Name: b.cfg.Name, Status: b.Status(),
			Queued: b.queue.Len(), QueuedBytes: b.queue.Bytes(),
			QueueLimit: int64(b.cfg.Queue.MaxBytes), Oldest: b.queue.OldestReceived(),
			Routes: books, RetiredRoutes: retiredRoutes(b.cfg, books),
		})
	}
	for _, q := range set.retired {
		st.Retired = append(st.Retired, RetiredBridge{
			Name:   strings.TrimPrefix(q.Name(), queuePrefix),
			Queued: q.Len(), QueuedBytes: q.Bytes(), Routes: q.Ledger(),
		})
	}
	st.Storage = g.storage()
	st.Clock = g.clock.status()
	for _, m := range g.modems {
		st.Modems = append(st.Modems, m.Status())
	}
	for _, p := range g.plans.all(false) {
		st.Plans = append(st.Plans, p.Status())
	}
	return st
}

// Cut reports whether the bridge has no connection and has tried in vain.
func (b BridgeStatus) Cut() bool {
	return b.State == bridge.Backoff || b.State == bridge.Connecting && b.Attempts > 1
}

// OldestAge is how long the oldest message has waited; 0 if there is none.
func (b BridgeStatus) OldestAge() time.Duration {
	if b.Oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(b.Oldest))
}

// Books adds up the ledger of all bridges and routes, the retired ones too.
func (s Status) Books() holdfast.Counts {
	var sum holdfast.Counts
	for _, b := range s.Bridges {
		for _, c := range b.Routes {
			sum.Add(c)
		}
	}
	for _, r := range s.Retired {
		for _, c := range r.Routes {
			sum.Add(c)
		}
	}
	return sum
}

// storage is what the status says of the store.
func (g *Gateway) storage() StorageStatus {
	st := g.store.Stats()
	out := StorageStatus{
		SetAside: st.SetAside, Salvaged: st.Salvaged, Lost: st.Lost, Unreadable: st.Unreadable,
		Failures: st.Failures, LongestDrop: st.LongestDrop.Seconds(),
	}
	out.Mode, out.Sync = "disk", g.cfg.Storage.Sync
	out.Direct, out.Commits, out.Pending = st.Direct, st.Commits, st.Pending
	if g.volatile != nil {
		out.Mode, out.Reason = "memory", g.volatile.Error()+"; mend that, and the gateway starts again with its disk"
	}
	if st.Failed != nil {
		out.Failed = st.Failed.Error()
	}
	out.Space, out.Disk = st.Space, diskStatus(g.cfg.Gateway.DataDir)
	for _, info := range g.store.Sizes() {
		out.Queued += info.Depth
		out.QueuedBytes += info.Bytes
	}
	return out
}

// retiredRoutes are those with books that the configuration does not have.
func retiredRoutes(c configs.Bridge, books map[string]holdfast.Counts) (names []string) {
	for name := range books {
		if !slices.ContainsFunc(c.Routes, func(r configs.Route) bool { return r.Name == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// QuarantineAdvice is what to do about messages that were put aside for that reason;
// "" if there is nothing to check.
func QuarantineAdvice(reason string) string {
	switch reason {
	case bridge.ReasonRefused:
		return "check what the far broker lets this user publish"
	case bridge.ReasonTooLarge:
		return "check the largest message that it takes"
	}
	return ""
}
