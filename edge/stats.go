package edge

import "sync/atomic"

// counters are written on hot paths, each by atomic additions.
type counters struct {
	connections        atomic.Uint64
	refusedConnections atomic.Uint64
	refusedLogins      atomic.Uint64
	received           atomic.Uint64
	sent               atomic.Uint64
	bytesReceived      atomic.Uint64
	bytesSent          atomic.Uint64
	droppedQoS0        atomic.Uint64
	droppedSlow        atomic.Uint64
	droppedDenied      atomic.Uint64
	notRetained        atomic.Uint64
	notKeptQoS0        atomic.Uint64
	refusedFull        atomic.Uint64
	droppedExpired     atomic.Uint64
	rivalsHeld         atomic.Uint64
	heldPublishes      atomic.Uint64
	droppedTooLarge    atomic.Uint64
	droppedLoop        atomic.Uint64
}

// Stats is a snapshot for people and metrics; all counts since the start.
type Stats struct {
	Clients  int `json:"clients"`  // connected now
	Sessions int `json:"sessions"` // durable ones, connected or not
	// Registered are the clients that are connected or have a durable session.
	Registered          int `json:"-"`
	SharedSubscriptions int `json:"-"`
	// BytesReceived and BytesSent are those of all packets, without TLS and the
	// frames of WebSocket.
	BytesReceived uint64 `json:"bytes_received"`
	BytesSent     uint64 `json:"bytes_sent"`
	Retained      int    `json:"retained"`
	Subscriptions int    `json:"subscriptions"` // of all sessions
	Connections   uint64 `json:"connections"`
	// Received counts PUBLISH packets taken from clients, Sent those written.
	Received uint64 `json:"received"`
	Sent     uint64 `json:"sent"`
	// DroppedQoS0 were not sent because their subscriber read too slowly,
	// DroppedDenied because their publisher may not use the topic, or the client
	// that they had waited for.
	DroppedQoS0   uint64 `json:"dropped_qos0"`
	DroppedDenied uint64 `json:"dropped_denied"`
	// DroppedLoop came from a client, a bridge of another gateway, after this one
	// had passed them.
	DroppedLoop uint64 `json:"dropped_loop"`
	// DroppedExpired lived no longer when a client without a session on disk
	// could be sent them, DroppedTooLarge are larger than their subscriber takes.
	DroppedExpired  uint64 `json:"dropped_expired"`
	DroppedTooLarge uint64 `json:"dropped_too_large"`
	// SlowDisconnected counts clean sessions that were ended for slowness.
	SlowDisconnected uint64 `json:"slow_disconnected"`
	NotRetained      uint64 `json:"not_retained"`
	// NotKeptQoS0 went to connected clients only: a queue refused them, or the
	// disk has failed.
	NotKeptQoS0 uint64 `json:"not_kept_qos0"`
	// RefusedFull counts publishers that were disconnected because a queue
	// with when_full = "refuse" stayed full.
	RefusedFull        uint64 `json:"refused_full"`
	RefusedConnections uint64 `json:"refused_connections"`
	// RefusedLogins counts clients that access did not let in.
	RefusedLogins uint64 `json:"refused_logins"`
	// RivalsHeld counts connections that had to wait because two devices take
	// one client identifier from one another.
	RivalsHeld   uint64 `json:"rivals_held"`
	PendingBytes int64  `json:"pending_bytes"`
	// HeldPublishes counts messages that had to wait for limits.max_publish_rate.
	HeldPublishes uint64 `json:"held_publishes"`
	// TakenOver counts connections that were ended for another one with their
	// client identifier. Rival is the identifier that connections take from one
	// another right now, as two devices with one identifier do; "" if none is.
	TakenOver uint64 `json:"taken_over"`
	Rival     string `json:"rival,omitempty"`
}

// Stats may be called at any time.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	clients, sessions, registered := 0, 0, len(s.sessions)
	for _, ss := range s.sessions {
		if ss.durable {
			sessions++
		}
		if ss.attached() {
			clients++
		}
	}
	s.mu.Unlock()
	takenOver, rival := s.rivals.quarrel()
	return Stats{
		Registered: registered, SharedSubscriptions: s.router.sharedLen(),
		BytesReceived: s.stats.bytesReceived.Load(), BytesSent: s.stats.bytesSent.Load(),
		TakenOver: takenOver, Rival: rival,
		Clients: clients, Sessions: sessions, Retained: s.retained.len(), Subscriptions: s.router.len(),
		Connections: s.stats.connections.Load(),
		Received:    s.stats.received.Load(), Sent: s.stats.sent.Load(),
		DroppedQoS0: s.stats.droppedQoS0.Load(), DroppedDenied: s.stats.droppedDenied.Load(),
		DroppedLoop:    s.stats.droppedLoop.Load(),
		DroppedExpired: s.stats.droppedExpired.Load(), RivalsHeld: s.stats.rivalsHeld.Load(), HeldPublishes: s.stats.heldPublishes.Load(),
		DroppedTooLarge:  s.stats.droppedTooLarge.Load(),
		SlowDisconnected: s.stats.droppedSlow.Load(), NotRetained: s.stats.notRetained.Load(),
		NotKeptQoS0: s.stats.notKeptQoS0.Load(),
		RefusedFull: s.stats.refusedFull.Load(), RefusedConnections: s.stats.refusedConnections.Load(),
		RefusedLogins: s.stats.refusedLogins.Load(),
		PendingBytes:  s.pending.n.Load(),
	}
}
