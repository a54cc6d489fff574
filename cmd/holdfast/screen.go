package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"holdfast"
	"holdfast/cmd/holdfast/gateway"
	"holdfast/configs"
	"holdfast/modem"
)

// printStatus writes one screen. Lines begin with what they are about, those
// below it with eight blanks; warnings are at the end.
func printStatus(w io.Writer, st gateway.Status, before *gateway.Status) {
	fmt.Fprintf(w, "gateway %s, up %v", st.ID, (time.Duration(st.Uptime) * time.Second).String())
	if len(st.Listeners) > 0 {
		fmt.Fprintf(w, ", listens on %s", strings.Join(st.Listeners, ", "))
	}
	if st.Memory > 0 {
		fmt.Fprintf(w, ", memory %s", size(st.Memory))
	}
	fmt.Fprintln(w)
	b := st.Broker
	fmt.Fprintf(w, "broker  %d clients, %d durable sessions, %d retained; %d messages in, %d out\n",
		b.Clients, b.Sessions, b.Retained, b.Received, b.Sent)
	since := 0.0 // seconds between the two
	if before != nil {
		since = st.Uptime - before.Uptime
	}
	if since > 0 {
		fmt.Fprintf(w, "        %s in, %s out\n", rate(b.Received, before.Broker.Received, since), rate(b.Sent, before.Broker.Sent, since))
	}
	for _, br := range st.Bridges {
		printBridge(w, br, drainRate(br, before, since))
	}
	for _, r := range st.Retired {
		fmt.Fprintf(w, "bridge  %s: no longer in the configuration; queued %d (%s)\n", r.Name, r.Queued, size(r.QueuedBytes))
		printRoutes(w, r.Routes, nil)
	}
	printStorage(w, st.Storage, time.Duration(st.Uptime*float64(time.Second)))
	printBooks(w, st.Books())
	for _, m := range st.Modems {
		printModem(w, m)
	}
	for _, p := range st.Plans {
		printPlan(w, p)
	}
	for _, warning := range warnings(st) {
		fmt.Fprintln(w, "WARNING", warning)
	}
}

// printBridge tells of one bridge; drained is how many messages a second leave
// its queue, 0 if that is not known.
func printBridge(w io.Writer, b gateway.BridgeStatus, drained float64) {
	fmt.Fprintf(w, "bridge  %s: %s", b.Name, b.State)
	if b.Upstream != "" {
		fmt.Fprintf(w, " (%s)", b.Upstream)
	}
	fmt.Fprintf(w, " since %v; queued %d (%s), in flight %d\n", age(b.Since), b.Queued, size(b.QueuedBytes), b.Inflight)
	printQueue(w, b, drained)
	for _, u := range b.Upstreams {
		printUpstream(w, u)
	}
	if b.KeepAlive > 0 {
		fmt.Fprintf(w, "        keep-alive: %v now, as the link allows\n", b.KeepAlive.Round(time.Second))
	}
	if b.LastError != "" {
		fmt.Fprintf(w, "        last problem, %v ago: %s\n", age(b.LastErrorAt), b.LastError)
	}
	printRoutes(w, b.Routes, b.RetiredRoutes)
}

// printUpstream tells of one of several.
func printUpstream(w io.Writer, u gateway.UpstreamStatus) {
	switch {
	case u.InUse:
		fmt.Fprintf(w, "        upstream %s: in use\n", u.Name)
		return
	case !u.HeldUntil.IsZero():
		fmt.Fprintf(w, "        upstream %s: the others come first for %v", u.Name, time.Until(u.HeldUntil).Round(time.Second))
	default:
		fmt.Fprintf(w, "        upstream %s: not in use", u.Name)
	}
	if u.LastError != "" {
		fmt.Fprintf(w, "; last problem, %v ago: %s", age(u.LastErrorAt), u.LastError)
	}
	fmt.Fprintln(w)
}

func printRoutes(w io.Writer, routes map[string]holdfast.Counts, retired []string) {
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		note := ""
		if slices.Contains(retired, name) {
			note = " (no longer in the configuration)"
		}
		fmt.Fprintf(w, "        %s%s: %s\n", name, note, countsLine(routes[name]))
	}
}

func printStorage(w io.Writer, s gateway.StorageStatus, up time.Duration) {
	fmt.Fprintf(w, "storage %d queued (%s); %d lost, %s set aside; longest drop stall %v\n",
		s.Queued, size(s.QueuedBytes), s.Lost, count(int(s.SetAside), "damaged file"),
		time.Duration(s.LongestDrop*float64(time.Second)).Round(time.Millisecond))
	if s.Mode == "disk" {
		fmt.Fprintf(w, "        sync %s: %d commits", s.Sync, s.Commits)
		if s.Sync == configs.SyncSpill {
			fmt.Fprintf(w, ", %d messages delivered without one", s.Direct)
		}
		fmt.Fprintln(w)
	}
	if d := s.Disk; d != nil {
		fmt.Fprintf(w, "        disk: %s free of %s; written %s since the start", size(d.Free), size(d.Size), size(d.Written))
		if up >= time.Hour {
			fmt.Fprintf(w, ", %s a day", size(int64(float64(d.Written)/up.Hours()*24)))
		}
		fmt.Fprintln(w)
	}
}

// printBooks sums up all routes, if there are any.
func printBooks(w io.Writer, c holdfast.Counts) {
	if c.Taken() == 0 {
		return
	}
	fmt.Fprintf(w, "books   %s\n", countsLine(c))
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return count(int(n), "byte")
}

// countsLine is the books of one route; terms that are zero are left out.
func countsLine(c holdfast.Counts) string {
	terms := []string{fmt.Sprintf("%d delivered", c.Delivered)}
	add := func(n uint64, what string) {
		if n > 0 {
			terms = append(terms, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(c.Unconfirmed, "delivered unconfirmed")
	add(c.Queued, "queued")
	for _, reason := range slices.Sorted(maps.Keys(c.Dropped)) {
		add(c.Dropped[reason], "dropped("+reason+")")
	}
	for _, reason := range slices.Sorted(maps.Keys(c.Quarantined)) {
		add(c.Quarantined[reason], "quarantined("+reason+")")
	}
	add(c.Exported, "exported")
	add(c.Lost, "lost(corrupt)")
	taken := fmt.Sprintf("%d accepted", c.Accepted)
	if c.Imported > 0 {
		taken += fmt.Sprintf(" + %d imported", c.Imported)
	}
	return taken + " = " + strings.Join(terms, " + ")
}

func printModem(w io.Writer, m modem.Status) {
	port := m.Port
	if m.Device != "" {
		port += " (" + m.Device + ")"
	}
	fmt.Fprintf(w, "modem   %s on %s: %s since %v\n", m.Name, port, m.State, age(m.Since))
	if m.Interface != "" {
		fmt.Fprintf(w, "        interface %s: %s\n", m.Interface, count(m.Connections, "connection"))
	}
	for _, f := range []struct {
		name string
		fact modem.Fact
	}{
		{"model", m.Model}, {"IMEI", m.IMEI}, {"SIM", m.SIM}, {"registration", m.Registration},
		{"operator", m.Operator}, {"IP", m.IP},
	} {
		if f.fact.Known() {
			fmt.Fprintf(w, "        %s: %s (%v ago)\n", f.name, f.fact.Value, age(f.fact.At))
		}
	}
	if sig := m.Signal; sig.DBm != 0 {
		line := fmt.Sprintf("%s %d dBm", signalBars(sig.DBm), sig.DBm)
		if sig.RSRP != 0 {
			line += fmt.Sprintf(", RSRP %g dBm, RSRQ %g dB", sig.RSRP, sig.RSRQ)
		}
		fmt.Fprintf(w, "        signal: %s (%v ago)\n", line, age(sig.At))
	}
	if now, known := m.Clock.Now(); known {
		fmt.Fprintf(w, "        network time: %s\n", now.UTC().Format(time.RFC3339))
	}
	for i, month := range m.Traffic.Months {
		if i < 2 {
			fmt.Fprintf(w, "        data in %s: %s out, %s in%s\n", month.Month, size(int64(month.Out)), size(int64(month.In)), trafficSource[m.Traffic.Source])
		}
	}
	printRecovery(w, m)
	if m.Problem != "" {
		fmt.Fprintf(w, "        problem: %s\n", m.Problem)
	}
}

// printPlan tells what is left of a data plan.
func printPlan(w io.Writer, p gateway.PlanStatus) {
	fmt.Fprintf(w, "plan    %s: %s of %s used (%.0f %%) since %s; %s; the next begins on %s\n", p.Name,
		decimal(p.Used), decimal(p.Bytes), math.Floor(p.Percent()), p.Since.Format(time.DateOnly), p.Level, p.Until.Format(time.DateOnly))
}

// decimal is a number of bytes as operators have it.
func decimal(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// trafficSource says how sure the figures are.
var trafficSource = map[string]string{
	modem.FromModel:     " (estimated: payload and overhead)",
	modem.FromModule:    " (by the module's counter)",
	modem.FromInterface: " (by the interface's counter)",
}

// printRecovery tells how far up the ladder a modem is.
func printRecovery(w io.Writer, m modem.Status) {
	c := m.Counters
	if c.Resets > 0 {
		fmt.Fprintf(w, "        resets: %d (CFUN %d, ECRST %d, line %d, power %d), the last by %s %v ago\n",
			c.Resets, c.RadioResets, c.ModuleResets, c.LineResets, c.PowerCycles, m.LastReset.Value, age(m.LastReset.At))
	}
	if wait := time.Until(m.RetryAt).Round(time.Second); wait > 0 {
		fmt.Fprintf(w, "        %s since it was good; tried again in %v\n", count(m.Failures, "failure"), wait)
	}
}

func age(t time.Time) time.Duration { return time.Since(t).Round(time.Second) }
