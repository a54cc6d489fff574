package edge

import (
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/edge/packet"
)

// A flood of QoS 1 from several publishers, each of which is quicker than the
// subscriber, which reads and acknowledges all the time.
func TestASubscriberThatKeepsReadingIsNotDisconnectedForAFlood(t *testing.T) {
	for qos := byte(0); qos <= 2; qos++ {
		inTime(t, func(b *timed) {
			b.srv.limits.MaxOutboundBytes = 64 << 10
			sub, _ := b.connect("sub")
			sub.subscribe(1, "#", int(qos))
			const publishers, each = 3, 300
			payload := strings.Repeat("x", 1000)
			done := make(chan struct{})
			for i := range publishers {
				p, _ := b.connect(string(rune('a' + i)))
				go func() { // what it is answered
					for {
						if _, _, err := p.next(); err != nil {
							return
						}
					}
				}()
				go func() {
					defer func() { done <- struct{}{} }()
					for n := range each {
						p.publish("a", payload, qos, uint16(n+1)*uint16(min(qos, 1)))
					}
				}()
			}
			for n := 0; n < publishers*each; {
				h, body, err := sub.next()
				if err != nil {
					t.Fatalf("after %d messages: %v", n, err)
				}
				var a packet.Ack
				var p packet.Publish
				switch h.Type {
				case packet.PUBREL:
					if err := a.Decode(body, sub.v); err != nil {
						t.Fatal(err)
					}
					sub.ack(packet.PUBCOMP, a.PacketID)
					continue
				case packet.PUBLISH:
				default:
					t.Fatalf("received %v", h.Type)
				}
				if err := p.Decode(h.Flags, body, sub.v); err != nil {
					t.Fatal(err)
				}
				n++
				switch p.QoS {
				case 1:
					sub.ack(packet.PUBACK, p.PacketID)
				case 2:
					sub.ack(packet.PUBREC, p.PacketID)
				}
			}
			for range publishers {
				<-done
			}
			if st := b.srv.Stats(); st.DroppedQoS0+st.SlowDisconnected > 0 {
				t.Errorf("QoS %d: %d dropped, %d disconnected", qos, st.DroppedQoS0, st.SlowDisconnected)
			}
		})
	}
}

func TestASubscriberThatDoesNotReadIsWaitedForOnce(t *testing.T) {
	inTime(t, func(b *timed) {
		b.srv.limits.MaxOutboundBytes = 64 << 10
		stuck, _ := b.connect("stuck")
		stuck.subscribe(1, "#", 0)
		another, _ := b.connect("another")
		another.subscribe(1, "#", 0)
		p, _ := b.connect("pub")
		payload := strings.Repeat("x", 1000)
		begun := time.Now()
		for range 500 {
			p.publish("a", payload, 0, 0)
		}
		p.expectNothing()
		if took := time.Since(begun); took != crowdWait {
			t.Errorf("two subscribers that do not read held the publisher up for %v, want %v", took, crowdWait)
		}
		if n := b.srv.Stats().DroppedQoS0; n == 0 {
			t.Error("nothing was dropped")
		}
		time.Sleep(2 * crowdRest * crowdWait)
		begun = time.Now()
		for range 500 {
			p.publish("a", payload, 0, 0)
		}
		p.expectNothing()
		if took := time.Since(begun); took > 0 {
			t.Errorf("held up again, for %v", took)
		}
	})
}

func TestASubscriberThatReadsFarTooSlowlyIsNotWaitedForLong(t *testing.T) {
	inTime(t, func(b *timed) {
		b.srv.limits.MaxOutboundBytes = 1 << 20
		slow, _ := b.connect("slow")
		slow.subscribe(1, "#", 0)
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			buf := make([]byte, 16<<10)
			for {
				select {
				case <-stop:
					return
				case <-time.After(crowdWait / 2):
				}
				if _, err := slow.nc.Read(buf); err != nil {
					return
				}
			}
		}()
		p, _ := b.connect("pub")
		payload := strings.Repeat("x", 10_000)
		begun := time.Now()
		for range 300 {
			p.publish("a", payload, 0, 0)
		}
		p.expectNothing()
		if took := time.Since(begun); took == 0 || took > crowdMost {
			t.Errorf("3 MB took %v, want at most %v", took, crowdMost)
		}
	})
}

// It is never waited for again before it has caught up: the floor of what giving
// way makes of a publisher does not hang on how slow its subscribers are.
func TestASubscriberBelowTheFloorDoesNotSlowItsPublisherForLong(t *testing.T) {
	inTime(t, func(b *timed) {
		slow, _ := b.connect("slow")
		slow.subscribe(1, "#", 0)
		stop := make(chan struct{})
		defer close(stop)
		go func() { // 160 KiB in a second
			buf := make([]byte, 16<<10)
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
				}
				if _, err := slow.nc.Read(buf); err != nil {
					return
				}
			}
		}()
		p, _ := b.connect("pub")
		payload := strings.Repeat("x", 10_000)
		const messages, each = 2000, 10 * time.Millisecond
		begun := time.Now()
		for range messages {
			p.publish("a", payload, 0, 0)
			time.Sleep(each)
		}
		p.expectNothing()
		if held := time.Since(begun) - messages*each; held == 0 || held > messages*each/crowdRest {
			t.Errorf("in %v the publisher was held up for %v", messages*each, held)
		}
	})
}

// The one that gave way was closed, and with it went when that began.
func TestAWaitThatWasBrokenOffDoesNotCount(t *testing.T) {
	inTime(t, func(b *timed) {
		stuck, gone := b.crowded("stuck"), b.idle("gone")
		gone.crowd.giveWayTo.Store(stuck)
		ended := make(chan struct{})
		go func() { gone.giveWay(); close(ended) }()
		synctest.Wait()
		gone.close(errTakeover)
		<-ended
		b.pass(time.Hour)
		next := b.idle("next")
		next.crowd.giveWayTo.Store(stuck)
		begun := time.Now()
		next.giveWay()
		if took := time.Since(begun); took != crowdWait {
			t.Errorf("the next waited for %v, want %v", took, crowdWait)
		}
		if rest := time.Duration(b.srv.noGivingWay.Load()) - time.Since(b.srv.started); rest != crowdRest*crowdWait {
			t.Errorf("after that nobody waits for %v, want %v", rest, crowdRest*crowdWait)
		}
	})
}

// Who waits for another reads nothing, its own acknowledgements neither: if both
// waited, neither would get on.
func TestOfClientsThatSendToEachOtherOneGoesOn(t *testing.T) {
	inTime(t, func(b *timed) {
		round := []*conn{b.crowded("a"), b.crowded("b"), b.crowded("c")}
		for i, c := range round {
			c.crowd.giveWayTo.Store(round[(i+1)%len(round)])
		}
		begun := time.Now()
		var first, second sync.WaitGroup
		first.Go(round[0].giveWay)
		second.Go(round[1].giveWay)
		synctest.Wait()
		round[2].giveWay()
		if took := time.Since(begun); took > 0 {
			t.Errorf("the last one waited too, for %v", took)
		}
		for _, c := range round[1:] {
			c.mu.Lock()
			c.out = nil
			c.mu.Unlock()
			c.relieve()
		}
		first.Wait()
		second.Wait()
		if took := time.Since(begun); took > 0 || b.srv.noGivingWay.Load() != 0 {
			t.Errorf("the others waited for %v", took)
		}
	})
}

// idle is a connection that nobody reads nor writes.
func (b *timed) idle(id string) *conn {
	near, far := net.Pipe()
	b.Cleanup(func() { near.Close(); far.Close() })
	c := newConn(b.srv, near)
	<-c.pen
	c.clientID = id
	return c
}

// crowded is one that much waits for.
func (b *timed) crowded(id string) *conn {
	c := b.idle(id)
	c.out = make([]byte, c.srv.limits.MaxOutboundBytes)
	return c
}
