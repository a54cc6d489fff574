package edge

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// retainedFor counts what waits in memory for a client because it has subscribed.
func (b *bench) retainedFor(id string) int {
	b.srv.mu.Lock()
	s := b.srv.sessions[id]
	b.srv.mu.Unlock()
	c := s.conn.Load()
	c.retained.mu.Lock()
	defer c.retained.mu.Unlock()
	return len(c.retained.topics) + s.outbox.Len()
}

func TestSubscribingAgainDoesNotMultiplyRetainedMessages(t *testing.T) {
	const kept = 500
	for qos := byte(0); qos <= 2; qos++ {
		t.Run(fmt.Sprintf("with QoS %d", qos), func(t *testing.T) {
			b := startBroker(t, newFakeDisk())
			for i := range kept {
				b.srv.Publish(&holdfast.Message{Topic: fmt.Sprint("r/", i), Payload: make([]byte, 16<<10), QoS: qos, Retain: true}, func(error) {})
			}
			s := b.connect("sub")
			one := packet.Subscribe{PacketID: 1}
			for range 1000 {
				one.Filters = append(one.Filters, holdfast.Subscription{Filter: "#", QoS: qos}, holdfast.Subscription{Filter: "+/#", QoS: qos})
			}
			s.send(one.Append(nil, s.v))
			for range 200 { // and nothing is read
				p := packet.Subscribe{PacketID: 2, Filters: subsOf("r/+", qos)}
				s.send(p.Append(nil, s.v))
			}
			p := packet.Subscribe{PacketID: 3, Filters: subsOf("last", 0)}
			s.send(p.Append(nil, s.v))
			eventually(t, "all was handled", func() bool { return b.srv.Stats().Subscriptions == 4 })
			if n := b.retainedFor("sub"); n > kept+b.srv.limits.MaxInflight {
				t.Errorf("%d messages wait for the client, %d are retained", n, kept)
			}
		})
	}
}

// hookAccess calls hook when a client asks for a filter.
type hookAccess struct {
	Anonymous
	hook func(filter string)
}

func (a hookAccess) Connect(*Login, <-chan struct{}) (Rights, error) { return a, nil }

func (a hookAccess) Publish(string) bool { return true }
func (a hookAccess) Receive(string) bool { return true }

func (a hookAccess) Subscribe(filter string) bool {
	a.hook(filter)
	return true
}

func TestTheLastWordOfATopicIsTheNewest(t *testing.T) {
	for _, kind := range []string{"clean", "durable"} {
		t.Run("for a "+kind+" session that subscribes meanwhile", func(t *testing.T) {
			state := func(payload string) *holdfast.Message {
				return &holdfast.Message{Topic: "a", Payload: []byte(payload), QoS: 1, Retain: true}
			}
			var b *bench
			b = startBroker(t, newFakeDisk(), func(o *Options) {
				o.Access = hookAccess{AnonymousLoopback, func(filter string) {
					if filter == "b" { // "a" was granted already
						b.srv.Publish(state("new"), func(error) {})
					}
				}}
			})
			b.srv.Publish(state("old"), func(error) {})
			s := b.connect("sub", func(p *packet.Connect) { p.CleanStart = kind == "clean" })
			s.subscribe(1, "a", 1, "b", 1)
			var last string
			for range 2 { // live, and retained
				var p packet.Publish
				if err := p.Decode(2, s.expect(packet.PUBLISH), s.v); err != nil {
					t.Fatal(err)
				}
				last = string(p.Payload)
			}
			s.expectNothing()
			if last != "new" {
				t.Errorf("the subscriber was told %q at last", last)
			}
		})
	}
}

func TestWhoSubscribesWhileAStateIsPublishedKnowsIt(t *testing.T) {
	srv, err := NewServer(Options{Sink: nowhere{newFakeDisk()}, Store: newFakeDisk(), Access: AnonymousAlways, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	const name = "a"
	for i := range 1000 { // to be looked at between finding and retaining
		srv.router.subscribe(newSession(fmt.Sprint(i), true), holdfast.Subscription{Filter: name, QoS: 1})
	}
	state := func(payload string) {
		srv.Publish(&holdfast.Message{Topic: name, Payload: []byte(payload), QoS: 1, Retain: true}, func(error) {})
	}
	for i := range 300 {
		state("old")
		s := newSession("sub", false)
		s.outbox = newMemoryOutbox(1 << 20)
		c := &conn{srv: srv, sess: s, version: packet.V311, started: true}
		s.conn.Store(c)
		var both sync.WaitGroup
		both.Go(func() { state("new") })
		if i%2 == 0 {
			runtime.Gosched()
		}
		srv.router.subscribe(s, holdfast.Subscription{Filter: name})
		s.subs[name] = holdfast.Subscription{Filter: name}
		found := srv.retained.matching(map[string]holdfast.Subscription{name: {Filter: name}})
		retained := c.appendRetained(nil, found[0])
		both.Wait()
		if !bytes.Contains(retained, []byte("new")) && len(c.out) == 0 {
			t.Fatalf("round %d: the subscriber was never told of the newer state", i)
		}
		srv.router.forget(s)
	}
}

// A store takes only so much at a time: what is more in one change would be refused
// for ever, each time that the client tries it again.
func TestAnyAmountOfRetainedMessagesCanBeSubscribedTo(t *testing.T) {
	t.Parallel()
	disk := newFakeDisk()
	b := startBroker(t, disk)
	const count, size = 30, 100_000
	for i := range count {
		b.srv.Publish(&holdfast.Message{Topic: fmt.Sprintf("big/%d", i), Payload: make([]byte, size), QoS: 1, Retain: true}, func(error) {})
	}
	b.srv.Publish(&holdfast.Message{Topic: "small", Payload: []byte("x"), Retain: true}, func(error) {})
	s := b.connect("sub", durable)
	s.subscribe(1, "#", 1)
	disk.mu.Lock()
	if disk.largest > retainedAtOnce+2*size {
		t.Errorf("one change had %d bytes", disk.largest)
	}
	disk.mu.Unlock()
	got := map[string]bool{}
	for len(got) < count+1 {
		s.nc.SetReadDeadline(time.Now().Add(patience))
		h, body, err := s.next()
		if err != nil || h.Type != packet.PUBLISH {
			t.Fatal(h.Type, err)
		}
		var p packet.Publish
		if err := p.Decode(h.Flags, body, s.v); err != nil || !p.Retain {
			t.Fatal(p.Retain, err)
		}
		got[string(p.Topic)] = true
		if p.QoS == 1 {
			s.ack(packet.PUBACK, p.PacketID)
		}
	}
	s.expectNothing()

	// The connection may end in between, which waits for no disk.
	c := b.connect("other", durable)
	disk.hold()
	p := packet.Subscribe{PacketID: 1, Filters: subsOf("#", 1)}
	c.send(p.Append(nil, c.v))
	eventually(t, "the first are on their way", func() bool { return disk.waiting() == 1 })
	c.nc.Close()
	b.stop()
	disk.letGo()
}

// TestAnOlderWordIsNotKeptInPlaceOfTheLast [MQTT-3.3.1-5]: what cannot be retained
// leaves nothing older behind, which would be taken for the state of today.
func TestAnOlderWordIsNotKeptInPlaceOfTheLast(t *testing.T) {
	disk := newFakeDisk()
	b := startBroker(t, disk, func(o *Options) { o.Limits.MaxRetainedBytes = 2000 })
	p := b.connect("pub")
	for i, topic := range []string{"refused", "refused and cleared", "too large"} {
		p.publish(topic, "old", 1, uint16(i+1), retaining)
		p.expectAck(packet.PUBACK, uint16(i+1))
	}
	disk.set(func() { disk.refuse = holdfast.ErrFull })
	p.publish("refused", "new", 0, 0, retaining)
	p.publish("refused and cleared", "", 0, 0, retaining)
	p.expectNothing()
	disk.set(func() { disk.refuse = nil })
	p.publish("too large", strings.Repeat("new", 1000), 1, 9, retaining)
	p.expectAck(packet.PUBACK, 9)
	s := b.connect("s")
	s.subscribe(1, "#", 0)
	s.expectPublish("refused", "new", 0) // it is in memory
	s.expectNothing()
	b.stop()
	b = startBroker(t, disk)
	s = b.connect("s")
	s.subscribe(1, "#", 0)
	s.expectNothing()
}
