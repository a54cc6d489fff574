package e2e

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	vocabulary "holdfast"
	"holdfast/edge/packet"
)

// TestHalfOfTwoThousandClientsAreRude: they connect at the same moment. Half of them
// send nothing, garbage, half a packet, or subscribe to everything and read nothing.
// The others log in, subscribe, publish with QoS 1 and get their message, all of them.
func TestHalfOfTwoThousandClientsAreRude(t *testing.T) {
	t.Parallel()
	const clients = 2000
	// Each of the two processes has a descriptor for every client.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max < clients+500 {
		t.Skipf("no more than %d files can be open (ulimit -Hn), error %v", limit.Max, err)
	}
	g := newHoldfast(t, "[limits]\nmax_connections = 2500\n")
	g.start()
	var all, rude sync.WaitGroup
	over := make(chan struct{})
	var mu sync.Mutex
	var took []time.Duration
	left := map[departure]int{}
	for i := range clients {
		if i%2 == 0 {
			rude.Go(func() { beRude(g.address, i/2, over) })
			continue
		}
		all.Go(func() {
			begun := time.Now()
			why := follow(g.address, patience, func(s *script) {
				c := s.connect(packet.V311, fmt.Sprint("polite", i))
				topic := fmt.Sprint("polite/", i)
				c.sub(topic, 1)
				c.publish(topic, "x", 1, 1)
				// PUBACK and the message come in either order.
				for range 2 {
					h, _, err := c.next()
					if err != nil || h.Type != packet.PUBACK && h.Type != packet.PUBLISH {
						leave("%v, %v", h.Type, err)
					}
				}
				c.bye()
			})
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(begun))
			if why != "" {
				left[why]++
			}
		})
	}
	all.Wait()
	for why, n := range left {
		t.Errorf("%d of %d polite clients: %s", n, clients/2, why)
	}
	slices.Sort(took)
	st, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d polite clients among %d: p50 %v, p99 %v, longest %v; %.0f MB of anonymous memory, %d connected at the end",
		clients/2, clients, percentile(took, 50), percentile(took, 99), percentile(took, 100), mb(anonymousMemory(g.cmd.Process.Pid)), st.Broker.Clients)
	close(over)
	rude.Wait()
}

// beRude is a client that nobody wants, until it is over.
func beRude(address string, kind int, over <-chan struct{}) {
	nc, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer nc.Close()
	connect, _ := (&packet.Connect{Version: packet.V311, CleanStart: true, ClientID: fmt.Sprint("rude", kind)}).Append(nil)
	subscribe, _ := (&packet.Subscribe{PacketID: 1, Filters: []vocabulary.Subscription{{Filter: "#", QoS: 1}}}).Append(nil, packet.V311)
	publish, _ := (&packet.Publish{Topic: []byte("rude"), Payload: []byte(strings.Repeat("x", 1000))}).Append(nil, packet.V311)
	switch kind % 6 {
	case 0: // nothing
	case 1:
		nc.Write([]byte("GET / HTTP/1.1\r\nHost: gateway\r\n\r\n"))
	case 2:
		nc.Write(connect[:len(connect)-3])
	case 3: // a subscriber that never reads, of everything
		nc.Write(append(connect, subscribe...))
	case 4: // garbage behind a login and some messages
		for range 20 {
			connect = append(connect, publish...)
		}
		nc.Write(append(connect, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF))
	case 5: // there and gone
		nc.Write(connect)
		return
	}
	<-over
}
