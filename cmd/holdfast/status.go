package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast"
	"holdfast/cmd/holdfast/console"
	"holdfast/cmd/holdfast/gateway"
	"holdfast/configs"
	"holdfast/modem"
)

func newStatusCommand() *cobra.Command {
	var file, socket string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running gateway is doing",
		Example: `  holdfast status -c /etc/holdfast/gateway.toml
  holdfast status --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if socket == "" {
				cfg, err := loadToolConfig(cmd, file)
				if err != nil {
					return err
				}
				socket = cfg.SocketPath()
			}
			var st gateway.Status
			if err := console.FetchStatus(cmd.Context(), socket, &st); err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(st)
			}
			printStatus(cmd.OutOrStdout(), st)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file of the gateway")
	cmd.Flags().StringVar(&socket, "socket", "", "the gateway's unix socket, instead of that of the configuration")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole status as JSON")
	return cmd
}

func printStatus(w io.Writer, st gateway.Status) {
	fmt.Fprintf(w, "gateway %s, up %v\n", st.ID, (time.Duration(st.Uptime) * time.Second).String())
	b := st.Broker
	fmt.Fprintf(w, "broker  %d clients, %d durable sessions, %d retained; %d messages in, %d out\n",
		b.Clients, b.Sessions, b.Retained, b.Received, b.Sent)
	for _, br := range st.Bridges {
		printBridge(w, br)
	}
	for _, r := range st.Retired {
		fmt.Fprintf(w, "bridge  %s: no longer in the configuration; queued %d (%s)\n", r.Name, r.Queued, size(r.QueuedBytes))
		printRoutes(w, r.Routes, nil)
	}
	if c := st.Clock; c.Source != "" && c.Source != "system" {
		fmt.Fprintf(w, "WARNING the board's clock is behind and not synchronised: TLS goes by %s (from the %s); check NTP\n", c.Now.UTC().Format(time.RFC3339), c.Source)
	}
	printStorage(w, st.Storage)
	printBooks(w, st.Books())
	for _, m := range st.Modems {
		printModem(w, m)
	}
}

func printBridge(w io.Writer, b gateway.BridgeStatus) {
	fmt.Fprintf(w, "bridge  %s: %s", b.Name, b.State)
	if b.Upstream != "" {
		fmt.Fprintf(w, " (%s)", b.Upstream)
	}
	fmt.Fprintf(w, " since %v; queued %d (%s), in flight %d\n", age(b.Since), b.Queued, size(b.QueuedBytes), b.Inflight)
	for _, u := range b.Upstreams {
		printUpstream(w, u)
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

func printStorage(w io.Writer, s gateway.StorageStatus) {
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
	if s.Mode == "memory" {
		fmt.Fprintf(w, "WARNING the store is in memory, and QoS 1 and 2 are not acknowledged where they should be on disk: %s\n", s.Reason)
	}
	if s.Failed != "" {
		fmt.Fprintf(w, "WARNING nothing is stored, and no QoS 1 or 2 message is acknowledged: %s; check the disk\n", s.Failed)
	}
	if s.Lost > 0 {
		fmt.Fprintf(w, "WARNING %s could not be read from the disk since the start, and are lost: check the card\n", count(int(s.Lost), "message"))
	}
}

// printBooks sums up all routes, if there are any.
func printBooks(w io.Writer, c holdfast.Counts) {
	if c.Taken() == 0 {
		return
	}
	fmt.Fprintf(w, "books   %s\n", countsLine(c))
	if c.Lost > 0 {
		fmt.Fprintf(w, "WARNING lost to damage by the books of all time: %s\n", count(int(c.Lost), "message"))
	}
	if !c.Balanced() {
		fmt.Fprintf(w, "WARNING the books do not balance: %d taken, %d accounted for\n", c.Taken(), c.Settled()+c.Queued)
	}
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
	fmt.Fprintf(w, "modem   %s on %s: %s since %v\n", m.Name, m.Port, m.State, age(m.Since))
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
		line := fmt.Sprintf("%d dBm", sig.DBm)
		if sig.RSRP != 0 {
			line += fmt.Sprintf(", RSRP %g dBm, RSRQ %g dB", sig.RSRP, sig.RSRQ)
		}
		fmt.Fprintf(w, "        signal: %s (%v ago)\n", line, age(sig.At))
	}
	if now, known := m.Clock.Now(); known {
		fmt.Fprintf(w, "        network time: %s\n", now.UTC().Format(time.RFC3339))
	}
	if m.Problem != "" {
		fmt.Fprintf(w, "        problem: %s\n", m.Problem)
	}
}

func age(t time.Time) time.Duration { return time.Since(t).Round(time.Second) }
