package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	vocabulary "holdfast"
	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
)

// publishAll publishes n messages with QoS 1, window unacknowledged at a time,
// and returns when the last one was acknowledged. Payloads are "NAME/I".
func publishAll(t testing.TB, c *client.Client, name, topic string, n, window int) {
	t.Helper()
	publishRange(t, c, name, topic, 0, n, window)
}

// publishRange is publishAll for the messages from..to-1 of name.
func publishRange(t testing.TB, c *client.Client, name, topic string, from, to, window int) {
	t.Helper()
	n := to - from
	tokens := make(chan struct{}, window)
	acked := make(chan error, 1)
	go func() {
		for want := range n {
			h, body, err := c.Next()
			var a packet.Ack
			if err == nil {
				err = a.Decode(body, packet.V311)
			}
			if err == nil && (h.Type != packet.PUBACK || a.PacketID != packetID(want)) {
				err = fmt.Errorf("%v %d, want PUBACK %d", h.Type, a.PacketID, packetID(want))
			}
			if err != nil {
				acked <- err
				return
			}
			<-tokens
		}
		acked <- nil
	}()
	for i := range n {
		select {
		case tokens <- struct{}{}:
		case err := <-acked:
			t.Fatalf("after %d publishes: %v", i, err)
		}
		p := packet.Publish{Topic: []byte(topic), QoS: 1, PacketID: packetID(i), Payload: fmt.Appendf(nil, "%s/%d", name, from+i)}
		if err := c.Send(p.Append(nil, packet.V311)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-acked; err != nil {
		t.Fatal(err)
	}
}

func packetID(i int) uint16 { return uint16(i%65535) + 1 }

// collector is a subscriber that notes what arrives, by publisher.
type collector struct {
	t  testing.TB
	c  *client.Client
	wg sync.WaitGroup

	mu      sync.Mutex
	first   map[string][]int        // numbers by publisher, without repetitions, in order; guarded by mu
	seen    map[string]map[int]bool // guarded by mu
	again   int                     // repetitions; guarded by mu
	foreign int                     // so many payloads that nobody sent are to be expected
}

func newCollector(t testing.TB) *collector {
	return &collector{t: t, first: make(map[string][]int), seen: make(map[string]map[int]bool)}
}

// attach subscribes on a broker, with a session that outlives the connection,
// and collects until the connection ends.
func (k *collector) attach(address, filter string) {
	k.t.Helper()
	k.c = connect(k.t, address, packet.Connect{ClientID: "collector"})
	if !k.c.SessionPresent {
		if err := k.c.Subscribe(vocabulary.Subscription{Filter: filter, QoS: 1}); err != nil {
			k.t.Fatal(err)
		}
	}
	c := k.c
	k.wg.Go(func() {
		for {
			p, err := c.NextPublish()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
					c.Conn.Close()
				}
				return
			}
			k.note(string(p.Payload))
		}
	})
	k.t.Cleanup(func() { c.Conn.Close(); k.wg.Wait() })
}

// subscribeAndLeave leaves a durable session behind that wants filter.
func subscribeAndLeave(t testing.TB, c *client.Client, filter string) {
	t.Helper()
	if err := c.Subscribe(vocabulary.Subscription{Filter: filter, QoS: 1}); err != nil {
		t.Fatal(err)
	}
	if err := c.Disconnect(); err != nil {
		t.Fatal(err)
	}
}

func (k *collector) note(payload string) {
	name, number, _ := strings.Cut(payload, "/")
	i, err := strconv.Atoi(number)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		if k.foreign--; k.foreign < 0 {
			k.t.Errorf("a payload that nobody sent: %q", payload)
		}
		return
	}
	if k.seen[name] == nil {
		k.seen[name] = make(map[int]bool)
	}
	if k.seen[name][i] {
		k.again++
		return
	}
	k.seen[name][i] = true
	k.first[name] = append(k.first[name], i)
}

func (k *collector) distinct() (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.seen {
		n += len(s)
	}
	return n
}

// check waits for n distinct messages of each publisher and checks that the
// first arrivals were in the publisher's order.
func (k *collector) check(n int, publishers ...string) {
	k.t.Helper()
	start := time.Now()
	eventually(k.t, fmt.Sprintf("%d messages of each of %v have arrived", n, publishers),
		func() bool { return k.distinct() >= n*len(publishers) },
		func() string { return fmt.Sprintf("%d are there", k.distinct()) })
	k.mu.Lock()
	defer k.mu.Unlock()
	inversions := 0
	for _, name := range publishers {
		got := k.first[name]
		if len(got) != n {
			k.t.Errorf("%s: %d distinct messages, want %d", name, len(got), n)
		}
		for i := 1; i < len(got); i++ {
			if got[i] < got[i-1] {
				inversions++
			}
		}
	}
	if inversions > 0 {
		k.t.Errorf("%d messages came before an older one of the same publisher", inversions)
	}
	k.t.Logf("%d distinct messages, %d repetitions, 0 lost, %d inversions; waited %v", n*len(publishers), k.again, inversions, time.Since(start).Round(time.Millisecond))
}
