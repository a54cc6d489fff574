package gateway

import (
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"holdfast/bridge"
	"holdfast/modem"
)

// metricsHandler serves what status says in the format of Prometheus, with
// figures of the process. The names are part of what users build upon: docs/
// has rules and a dashboard that use them.
func metricsHandler(status func() Status) http.Handler {
	return promhttp.HandlerFor(metricsRegistry(status), promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

func metricsRegistry(status func() Status) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		statusCollector(status),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// statusCollector makes metrics of one Status for each scrape.
type statusCollector func() Status

// Describe sends nothing: which metrics there are depends on the configuration.
func (statusCollector) Describe(chan<- *prometheus.Desc) {}

// Collect may be called by many goroutines.
func (c statusCollector) Collect(to chan<- prometheus.Metric) {
	st := c()
	s := samples{to}
	s.broker(st)
	for _, b := range st.Bridges {
		s.bridge(b)
	}
	for _, r := range st.Retired {
		s.routes(BridgeStatus{Name: r.Name, Routes: r.Routes})
	}
	s.storage(st.Storage)
	for _, m := range st.Modems {
		s.modem(m)
	}
	for _, p := range st.Plans {
		l := []string{"plan", p.Name}
		s.gauge("data_plan_bytes", "What the data plan has in its period.", float64(p.Bytes), l...)
		s.gauge("data_plan_used_bytes", "What was used of it since the period began.", float64(p.Used), l...)
		s.gauge("data_plan_level", "0 if all lanes go, 1 if the low one waits, 2 if only the high one goes, 3 if nothing does.", float64(p.Level), l...)
		s.gauge("data_plan_end_timestamp_seconds", "When the next period begins.", float64(p.Until.Unix()), l...)
	}
}

// samples are those of one scrape.
type samples struct{ to chan<- prometheus.Metric }

// labels are name and value in turn.
func (s samples) send(kind prometheus.ValueType, name, help string, v float64, labels ...string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	s.to <- prometheus.MustNewConstMetric(prometheus.NewDesc("holdfast_"+name, help, names, nil), kind, v, values...)
}

func (s samples) gauge(name, help string, v float64, labels ...string) {
	s.send(prometheus.GaugeValue, name, help, v, labels...)
}

func (s samples) counter(name, help string, v uint64, labels ...string) {
	s.send(prometheus.CounterValue, name, help, float64(v), labels...)
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

func (s samples) broker(st Status) {
	b := st.Broker
	s.gauge("clients", "Clients that are connected now.", float64(b.Clients))
	s.gauge("sessions", "Durable sessions, connected or not.", float64(b.Sessions))
	s.gauge("subscriptions", "Subscriptions of all sessions.", float64(b.Subscriptions))
	s.gauge("retained_messages", "Retained messages.", float64(b.Retained))
	s.gauge("pending_bytes", "Bytes taken from clients that are not on disk yet.", float64(b.PendingBytes))
	s.counter("connections_total", "Connections of clients.", b.Connections)
	s.counter("connections_refused_total", "Connections that were refused.", b.RefusedConnections)
	s.counter("logins_refused_total", "Logins that were refused.", b.RefusedLogins)
	s.counter("client_bytes_received_total", "Bytes of MQTT from clients.", b.BytesReceived)
	s.counter("client_bytes_sent_total", "Bytes of MQTT to clients.", b.BytesSent)
	s.counter("messages_received_total", "PUBLISH packets taken from clients.", b.Received)
	s.counter("messages_sent_total", "PUBLISH packets written to clients.", b.Sent)
	s.counter("publishes_held_total", "Messages that had to wait for limits.max_publish_rate.", b.HeldPublishes)
	const dropped, help = "messages_dropped_total", "Messages that did not reach a local subscriber or queue, by reason."
	s.counter(dropped, help, b.DroppedQoS0, "reason", "slow_reader")
	s.counter(dropped, help, b.DroppedDenied, "reason", "denied")
	s.counter(dropped, help, b.DroppedLoop, "reason", "loop")
	s.counter(dropped, help, b.NotKeptQoS0, "reason", "not_kept_qos0")
	const ended, why = "clients_disconnected_total", "Clients that the gateway has disconnected, by reason."
	s.counter(ended, why, b.SlowDisconnected, "reason", "slow_reader")
	s.counter(ended, why, b.RefusedFull, "reason", "queue_full")
}

func (s samples) bridge(b BridgeStatus) {
	l := []string{"bridge", b.Name}
	s.gauge("bridge_connected", "1 while the bridge is connected to its upstream.", flag(b.State == bridge.Connected), l...)
	s.gauge("bridge_inflight_messages", "Publishes that wait for the upstream's acknowledgement.", float64(b.Inflight), l...)
	s.gauge("bridge_rtt_seconds", "Moving average of the time from a publish to its acknowledgement.", b.RTT.Seconds(), l...)
	if b.KeepAlive > 0 {
		s.gauge("bridge_keepalive_seconds", "How long the link may be silent now (keepalive = \"adaptive\").", b.KeepAlive.Seconds(), l...)
	}
	s.gauge("bridge_held_messages", "Messages that wait for the end of their interval (sample).", float64(b.Held), l...)
	s.counter("bridge_unthinned_total", "Messages that were not left out, or went early, because a bound of sampling was met.", b.Unthinned, l...)
	s.counter("bridge_unretained_total", "Messages sent without RETAIN because something newer of their topic was sent before (order = \"live-first\").", b.Unretained, l...)
	s.counter("bridge_connections_total", "Connections made to the upstream.", b.Connections, l...)
	s.counter("bridge_sent_total", "Publishes sent upstream, repeated ones included.", b.Sent, l...)
	s.counter("bridge_acknowledged_total", "Publishes that the upstream has acknowledged.", b.Acked, l...)
	s.counter("bridge_beside_total", "Messages that another upstream has carried, because the one in use cannot.", b.Beside, l...)
	s.counter("bridge_encoded_total", "Publishes sent in base64, repeated ones included.", b.Encoded, l...)
	s.counter("bridge_commands_total", "Messages from upstream that the local broker has accepted.", b.Received, l...)
	const dropped, help = "bridge_commands_dropped_total", "Messages from upstream that were not delivered, by reason."
	for reason, n := range map[string]uint64{"loop": b.DroppedLoop, "full": b.DroppedFull, "refused": b.DroppedRefused, "unrouted": b.DroppedUnrouted} {
		s.counter(dropped, help, n, append(l, "reason", reason)...)
	}
	s.gauge("queue_messages", "Messages that wait for the upstream.", float64(b.Queued), l...)
	s.gauge("queue_bytes", "Their size.", float64(b.QueuedBytes), l...)
	s.gauge("queue_limit_bytes", "The most bytes that the queue may have (bridge.queue.max_bytes).", float64(b.QueueLimit), l...)
	s.gauge("queue_oldest_age_seconds", "Age of the oldest message that waits; 0 if there is none.", b.OldestAge().Seconds(), l...)
	s.routes(b)
}

// routes are the books; every term of the ledger is a counter.
func (s samples) routes(b BridgeStatus) {
	for route, c := range b.Routes {
		l := []string{"bridge", b.Name, "route", route}
		s.counter("route_accepted_total", "Messages that the route has taken, by its books of all time.", c.Accepted, l...)
		s.counter("route_imported_total", "Messages put into the queue from a file.", c.Imported, l...)
		s.counter("route_delivered_total", "Messages that the far broker has acknowledged.", c.Delivered, l...)
		s.counter("route_delivered_unconfirmed_total", "Messages of QoS 0 written to a link that was believed alive.", c.Unconfirmed, l...)
		s.counter("route_exported_total", "Messages carried away in a file.", c.Exported, l...)
		s.counter("route_lost_total", "Messages lost to damage on disk.", c.Lost, l...)
		for reason, n := range c.Dropped {
			s.counter("route_dropped_total", "Messages dropped by a rule of the configuration, by reason.", n, append(l, "reason", reason)...)
		}
		for reason, n := range c.Quarantined {
			s.counter("route_quarantined_total", "Messages put aside because they could not be sent, by reason.", n, append(l, "reason", reason)...)
		}
	}
}

func (s samples) storage(t StorageStatus) {
	s.gauge("storage_on_disk", "1 if what is acknowledged is on disk, 0 if the gateway runs from memory.", flag(t.Mode == "disk"))
	s.gauge("storage_up", "1 while messages can be stored.", flag(t.Failed == ""))
	s.counter("storage_commits_total", "Transactions made durable since the start.", t.Commits)
	s.counter("storage_direct_total", "Messages that everyone has acknowledged before anything was written (sync = \"spill\").", t.Direct)
	s.counter("storage_failures_total", "Transactions that failed since the start.", t.Failures)
	s.counter("storage_lost_total", "Messages that could not be read from disk since the start.", t.Lost)
	s.counter("storage_set_aside_files_total", "Damaged files set aside at the start.", t.SetAside)
	s.gauge("storage_space_level", "0 while there is space on the disk, 1 if the queues are as good as full, 2 if nothing new is taken, 3 if nothing is written.",
		float64(slices.Index([]string{"ok", "low", "short", "none"}, t.Space)))
	if d := t.Disk; d != nil {
		s.gauge("disk_free_bytes", "Free space of the disk with the data.", float64(d.Free))
		s.gauge("disk_size_bytes", "Size of the disk with the data.", float64(d.Size))
		s.counter("disk_written_bytes_total", "Bytes that the process has caused to be written since its start.", uint64(d.Written))
	}
}

func (s samples) modem(m modem.Status) {
	l := []string{"modem", m.Name}
	s.gauge("modem_registered", "1 while the module is registered in a network.", flag(m.State == modem.StateReady || m.State == modem.StateConnected), l...)
	s.gauge("modem_connected", "1 while the module has an MQTT connection.", flag(m.State == modem.StateConnected), l...)
	if !m.Signal.At.IsZero() && m.Signal.DBm != 0 {
		s.gauge("modem_signal_dbm", "Signal strength as last told by the module.", float64(m.Signal.DBm), l...)
	}
	c := m.Counters
	s.counter("modem_resets_total", "Resets of the module by the gateway.", c.Resets, l...)
	const steps, helpSteps = "modem_reset_steps_total", "The same, by the step of the ladder: the radio, the module, a line of the port, its power."
	s.counter(steps, helpSteps, c.RadioResets, append(l, "step", "radio")...)
	s.counter(steps, helpSteps, c.ModuleResets, append(l, "step", "module")...)
	s.counter(steps, helpSteps, c.LineResets, append(l, "step", "line")...)
	s.counter(steps, helpSteps, c.PowerCycles, append(l, "step", "power")...)
	s.gauge("modem_failures", "Times in a row that the module could not be brought up or fell silent.", float64(m.Failures), l...)
	s.counter("modem_reboots_total", "Boot messages of the module.", c.Reboots, l...)
	s.counter("modem_timeouts_total", "AT commands without an answer in time.", c.Timeouts, l...)
	if months := m.Traffic.Months; len(months) > 0 {
		const data, help = "modem_month_bytes", "Bytes over the air in the last month with traffic: by a counter of the module or of its interface, or estimated."
		source := append(l, "source", m.Traffic.Source)
		s.gauge(data, help, float64(months[0].Out), append(source, "direction", "out")...)
		s.gauge(data, help, float64(months[0].In), append(source, "direction", "in")...)
	}
	const payload, help = "modem_payload_bytes_total", "Bytes of topics and payloads carried by the module."
	s.counter(payload, help, c.PayloadOut, append(l, "direction", "out")...)
	s.counter(payload, help, c.PayloadIn, append(l, "direction", "in")...)
}
