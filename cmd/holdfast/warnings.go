package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"holdfast/cmd/holdfast/gateway"
	"holdfast/configs"
	"holdfast/modem"
)

// warnings are what is wrong with a gateway, the worst first, each with what to do.
func warnings(st gateway.Status) (list []string) {
	warn := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	s := st.Storage
	if s.Mode == "memory" {
		warn("the store is in memory: QoS 1 is acknowledged when those who are to get it have it, QoS 2 and retained messages are not acknowledged: %s", s.Reason)
	}
	if s.Failed != "" {
		warn("nothing is stored: QoS 1 is acknowledged when those who are to get it have it, all else is refused: %s; check the disk", s.Failed)
	}
	if what := map[string]string{
		"low":   "the queues are as good as full",
		"short": "no new message is taken, what waits drains",
		"none":  "nothing is written",
	}[s.Space]; what != "" {
		warn("the disk is full but for its reserve: %s; free some space (df -h, journalctl --vacuum-size=50M), or lower storage.max_bytes", what)
	}
	if s.Lost > 0 {
		warn("%s could not be read from the disk since the start, and are lost: check the card", count(int(s.Lost), "message"))
	}
	books := st.Books()
	if books.Lost > 0 {
		warn("lost to damage by the books of all time: %s", count(int(books.Lost), "message"))
	}
	if !books.Balanced() {
		warn("the books do not balance: %d taken, %d accounted for", books.Taken(), books.Settled()+books.Queued)
	}
	if c := st.Clock; c.Source != "" && c.Source != "system" {
		warn("the board's clock is behind and not synchronised: TLS goes by %s (from the %s); check NTP", c.Now.UTC().Format(time.RFC3339), c.Source)
	}
	for _, m := range st.Modems {
		if m.Problem != "" && m.State != modem.StateReady && m.State != modem.StateConnected {
			warn("modem %s is not ready: %s", m.Name, m.Problem)
		}
	}
	for _, p := range st.Plans {
		if p.Level > 0 {
			warn("of data plan %s %.0f %% are used: %s until %s; let less go (sample, on_change, a longer keepalive), or take a larger plan", p.Name, math.Floor(p.Percent()), p.Level, p.Until.Format(time.DateOnly))
		}
	}
	for _, b := range st.Bridges {
		if b.Cut() {
			why := b.LastError
			if why == "" {
				why = "it is being tried"
			}
			warn("bridge %s has no connection, %s on disk: %s", b.Name, wait(b.Queued), why)
		}
		if b.QueueLimit > 0 && b.QueuedBytes > b.QueueLimit/10*8 {
			warn("the queue of bridge %s is nearly full: carry it away with holdfast queue export %s -o FILE, or raise bridge.queue.max_bytes", b.Name, b.Name)
		}
		if b.Unsure > 0 {
			warn("bridge %s: %s of QoS 2 may have come twice, since the far broker has lost the session, or nothing could be stored here: see the log, and let the broker keep sessions (persistence)", b.Name, count(int(b.Unsure), "message"))
		}
		if text := putAside(b); text != "" {
			warn("%s", text)
		}
	}
	if id := st.Broker.Rival; id != "" {
		warn("two devices use the client identifier %q and throw each other out: give each an identifier of its own", id)
	}
	return list
}

// putAside says what is in the quarantine of a bridge, and why; "" if nothing is.
func putAside(b gateway.BridgeStatus) string {
	n, reasons := 0, map[string]bool{}
	for _, c := range b.Routes {
		for reason, k := range c.Quarantined {
			if k > 0 {
				n += int(k)
				reasons[reason] = true
			}
		}
	}
	if n == 0 {
		return ""
	}
	text := fmt.Sprintf("bridge %s: %s put aside unsent: %s", b.Name, are(n, "message"), strings.Join(slices.Sorted(maps.Keys(reasons)), ", "))
	if b.LastError != "" && !b.Cut() {
		text += " (" + b.LastError + ")"
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		if advice := gateway.QuarantineAdvice(reason); advice != "" {
			text += "; " + advice
		}
	}
	return text + fmt.Sprintf("; holdfast queue quarantine ls %s shows them, and retry sends them again", b.Name)
}

func wait(n int) string {
	if n == 1 {
		return "1 message waits"
	}
	return fmt.Sprintf("%d messages wait", n)
}

// explainAbsence says why no gateway answers, as far as that can be seen from
// outside: mostly one that did not start, since an address is taken.
func explainAbsence(cfg *configs.Config, err error) error {
	if errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("%w\nThis user may not ask the gateway: use sudo, or add the user to the group holdfast", err)
	}
	if cfg == nil {
		return err
	}
	addresses := []string{cfg.Console.Address}
	for _, l := range cfg.Listeners {
		addresses = append(addresses, l.Address)
	}
	for _, a := range slices.DeleteFunc(addresses, func(a string) bool { return a == "" }) {
		ln, lerr := net.Listen("tcp", a)
		if lerr == nil {
			ln.Close()
			continue
		}
		if errors.Is(lerr, syscall.EADDRINUSE) {
			return fmt.Errorf("%w\nAnother program has %s: ss -ltnp shows which one; stop it, or choose another address in the configuration", err, a)
		}
	}
	return fmt.Errorf("%w\njournalctl -u holdfast shows what an installed one has said last", err)
}
