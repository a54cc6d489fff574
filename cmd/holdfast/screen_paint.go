package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"holdfast/cmd/holdfast/gateway"
	"holdfast/modem"
)

// printQueue tells how full a queue is, if anything waits.
func printQueue(w io.Writer, b gateway.BridgeStatus, drained float64) {
	if b.RTT > 0 {
		fmt.Fprintf(w, "        round trip %v\n", b.RTT.Round(time.Millisecond))
	}
	if b.Queued == 0 || b.QueueLimit <= 0 {
		return
	}
	part := min(1, float64(b.QueuedBytes)/float64(b.QueueLimit))
	fmt.Fprintf(w, "        queue %s %.0f %% of %s", bar(part, 20), part*100, size(b.QueueLimit))
	if !b.Oldest.IsZero() {
		fmt.Fprintf(w, ", the oldest waits for %v", age(b.Oldest))
	}
	if drained > 0 {
		fmt.Fprintf(w, ", empty in %v", (time.Duration(float64(b.Queued)/drained) * time.Second).String())
	}
	fmt.Fprintln(w)
}

// drainRate is how many messages a second b's queue has become shorter by since
// before; 0 if it has not, or nobody knows.
func drainRate(b gateway.BridgeStatus, before *gateway.Status, since float64) float64 {
	if before == nil || since <= 0 {
		return 0
	}
	for _, old := range before.Bridges {
		if old.Name == b.Name {
			return max(0, float64(old.Queued-b.Queued)/since)
		}
	}
	return 0
}

// rate is how fast a counter grows; one that has started anew counts from 0.
func rate(now, before uint64, seconds float64) string {
	if now < before {
		before = 0
	}
	return fmt.Sprintf("%.1f messages/s", float64(now-before)/seconds)
}

// bar is a part of a whole, in signs that every terminal has.
func bar(part float64, width int) string {
	n := int(part*float64(width) + 0.5)
	if part > 0 && n == 0 {
		n = 1
	}
	n = min(max(n, 0), width)
	return "[" + strings.Repeat("#", n) + strings.Repeat("-", width-n) + "]"
}

// signalBars is a signal strength as a telephone shows it.
func signalBars(dbm int) string {
	n := 0
	for _, least := range []int{-107, -97, -85, -73} {
		if dbm >= least {
			n++
		}
	}
	return strings.Repeat("|", n) + strings.Repeat(".", 4-n)
}

// coloured paints a screen: what lines are about is bold, states are green or
// yellow, warnings red.
func coloured(text string) string {
	const red, green, yellow, bold, end = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[0m"
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case word == "":
			b.WriteString(line)
		case word == "WARNING":
			b.WriteString(bold + red + word + end + red + " " + rest + end)
		default:
			if word == "bridge" || word == "modem" {
				rest = paintState(rest, green, yellow, end)
			}
			b.WriteString(bold + word + end + " " + rest)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// paintState paints the word behind the first ": ". Bridges and modems have the
// same word for being connected.
func paintState(line, good, other, end string) string {
	name, rest, ok := strings.Cut(line, ": ")
	if !ok {
		return line
	}
	state, rest, _ := strings.Cut(rest, " ")
	paint := other
	if state == string(modem.StateConnected) || state == string(modem.StateReady) {
		paint = good
	}
	return name + ": " + paint + state + end + " " + rest
}
