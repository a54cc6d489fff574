package e2e

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/edge/packet"
)

// offlineMessages is how many messages the experiment below acknowledges.
const offlineMessages = 200_000

// TestNothingThatAnAwaySessionWasPromisedIsLostByAKill is the experiment that
// every other broker fails or does slowly: QoS 1 messages acknowledged for a
// durable session that is away, kill -9 right after the last PUBACK, restart,
// count. The rate is printed beside that of a mosquitto that promises nothing.
func TestNothingThatAnAwaySessionWasPromisedIsLostByAKill(t *testing.T) {
	g := newHoldfast(t, "[limits]\nmax_session_messages = 1000000\nmax_session_bytes = \"1GiB\"\n")
	g.start()
	rate := fillAwaySession(t, g.address)
	g.end(syscall.SIGKILL)
	g.start()
	c := connect(t, g.address, packet.Connect{ClientID: "away"})
	if !c.SessionPresent {
		t.Fatal("the session is gone")
	}
	next := make([]int, 10)
	for range offlineMessages {
		p, err := c.NextPublish()
		if err != nil {
			t.Fatalf("after %v: %v", next, err)
		}
		var publisher, i int
		if _, err := fmt.Sscanf(string(p.Payload), "%d/%d", &publisher, &i); err != nil {
			t.Fatalf("a payload that nobody sent: %q", p.Payload)
		}
		if next[publisher] != i {
			t.Fatalf("publisher %d: message %d where %d was due", publisher, i, next[publisher])
		}
		next[publisher]++
	}
	m := newMosquitto(t)
	m.start()
	t.Logf("%d acknowledged with fsync at %.0f/s, 0 lost, in order; mosquitto without persistence %.0f/s",
		offlineMessages, rate, fillAwaySession(t, m.address))
}

// fillAwaySession publishes from ten clients, 100 in flight each, and returns
// the rate of acknowledgements.
func fillAwaySession(t *testing.T, address string) float64 {
	t.Helper()
	away := connect(t, address, packet.Connect{ClientID: "away"})
	subscribeAndLeave(t, away, "s/#")
	var publishers sync.WaitGroup
	begun := time.Now()
	for i := range 10 {
		c := connect(t, address, packet.Connect{ClientID: fmt.Sprintf("p%d", i), CleanStart: true})
		publishers.Go(func() {
			publishFast(t, c, offlineMessages/10, func(dst []byte, n int) []byte { return fmt.Appendf(dst, "%d/%d", i, n) })
		})
	}
	publishers.Wait()
	return offlineMessages / time.Since(begun).Seconds()
}
