package e2e

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
)

// offlineMessages is how many messages the experiment below acknowledges.
const offlineMessages = 200_000

// TestNothingThatAnAwaySessionWasPromisedIsLostByAKill is the experiment that
// every other broker fails or does slowly: QoS 1 messages acknowledged for a
// durable session that is away, kill -9 right after the last PUBACK, restart,
// count. BenchmarkPromised does the same with the others.
func TestNothingThatAnAwaySessionWasPromisedIsLostByAKill(t *testing.T) {
	t.Parallel()
	g := newAwayHoldfast(t)
	g.start()
	rate := fillAwaySession(t, g.address, offlineMessages)
	g.end(syscall.SIGKILL)
	g.start()
	if lost, disorder := countAwaySession(t, g.address, offlineMessages, patience); lost+disorder > 0 {
		t.Fatalf("%d lost, %d not in order", lost, disorder)
	}
	t.Logf("%d acknowledged with fsync at %.0f/s, 0 lost, in order", offlineMessages, rate)
}

// BenchmarkPromised prints, for this broker and for others, how fast messages
// for a session that is away are acknowledged, and how many of them are gone
// after a kill -9.
func BenchmarkPromised(b *testing.B) {
	one := func(name string, n int, broker func(*testing.B) (*process, string)) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p, address := broker(b)
				p.start()
				awaitPort(b, p, address)
				b.ReportMetric(fillAwaySession(b, address, n), "acked/s")
				p.end(syscall.SIGKILL)
				p.start()
				awaitPort(b, p, address)
				lost, disorder := countAwaySession(b, address, n, 5*time.Second)
				b.ReportMetric(float64(lost)/float64(n)*100, "%lost")
				b.ReportMetric(float64(disorder), "disorder")
				b.ReportMetric(0, "ns/op")
				p.end(syscall.SIGKILL)
			}
		})
	}
	one("holdfast", offlineMessages, func(b *testing.B) (*process, string) {
		g := newAwayHoldfast(b)
		return g.process, g.address
	})
	one("mosquitto", offlineMessages, func(b *testing.B) (*process, string) {
		m := newMosquitto(b)
		return m.process, m.address
	})
	one("mosquitto-autosave-1s", offlineMessages, func(b *testing.B) (*process, string) {
		m := newMosquitto(b, "persistence true", "persistence_location "+b.TempDir()+"/", "autosave_interval 1")
		return m.process, m.address
	})
	// It is so much slower that a tenth of the messages is enough.
	one("nats-server-sync-always", offlineMessages/10, func(b *testing.B) (*process, string) {
		return newNATS(b, goTool(b, natsServer, "nats-server"), ", sync_interval: always")
	})
}

func newAwayHoldfast(t testing.TB) *holdfast {
	t.Helper()
	return newHoldfast(t, "[limits]\nmax_session_messages = 1000000\nmax_session_bytes = \"1GiB\"\n")
}

// fillAwaySession publishes n messages from ten clients, 100 in flight each, for
// a session that is away, and returns the rate of acknowledgements.
func fillAwaySession(t testing.TB, address string, n int) float64 {
	t.Helper()
	away := connect(t, address, packet.Connect{ClientID: "away"})
	subscribeAndLeave(t, away, "s/#")
	var publishers sync.WaitGroup
	begun := time.Now()
	for i := range 10 {
		c := connect(t, address, packet.Connect{ClientID: fmt.Sprintf("p%d", i), CleanStart: true})
		publishers.Go(func() {
			publishFast(t, c, n/10, func(dst []byte, n int) []byte { return fmt.Appendf(dst, "%d/%d", i, n) })
		})
	}
	publishers.Wait()
	return float64(n) / time.Since(begun).Seconds()
}

// countAwaySession returns what is missing of the n messages, and how many came
// behind a later one of the same publisher. After a silence of that length no
// more are expected.
func countAwaySession(t testing.TB, address string, n int, silence time.Duration) (lost, disorder int) {
	t.Helper()
	c := connect(t, address, packet.Connect{ClientID: "away"})
	if !c.SessionPresent {
		return n, 0
	}
	seen, next := map[string]bool{}, make([]int, 10)
	for len(seen) < n {
		p, err := nextWithin(c, silence)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatalf("after %v: %v", next, err)
		}
		var publisher, i int
		if _, err := fmt.Sscanf(string(p.Payload), "%d/%d", &publisher, &i); err != nil {
			t.Fatalf("a payload that nobody sent: %q", p.Payload)
		}
		if seen[string(p.Payload)] {
			continue // QoS 1
		}
		seen[string(p.Payload)] = true
		if i < next[publisher] {
			disorder++
		}
		next[publisher] = max(next[publisher], i+1)
	}
	return n - len(seen), disorder
}

func nextWithin(c *client.Client, d time.Duration) (p packet.Publish, err error) {
	if err := c.Conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return p, err
	}
	return c.NextPublish()
}
