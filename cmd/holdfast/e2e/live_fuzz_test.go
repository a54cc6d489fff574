package e2e

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	vocabulary "holdfast"
	"holdfast/edge/packet"
)

var (
	garbageFor  = flag.Duration("garbage-for", 2*time.Second, "how long clients send packets made by chance")
	garbageSeed = flag.Uint64("garbage-seed", 0, "repeats what they send; 0 is another one each time")
)

// TestPacketsMadeByChanceLeaveNothingBehind: clients send packets of every type with
// contents made by chance, many of them damaged, on connections that have logged in,
// and some never read. Meanwhile another client gets each of its messages, and
// afterwards nothing of them is left in the memory.
func TestPacketsMadeByChanceLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	const clients = 6
	g := newHoldfast(t, `
[limits]
max_connect_rate = 0
max_session_bytes = "1MiB"
max_retained_messages = 1000
`)
	g.start()
	first := newChance(1, 0)
	first.attack(g.address) // what is made once is made
	eventually(t, "nobody is connected", func() bool { return connected(g) == 0 })
	before, memory := goroutines(t, g), anonymousMemory(g.cmd.Process.Pid)
	seed := *garbageSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	end := time.Now().Add(*garbageFor)
	var sent, answered atomic.Int64
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			chance := newChance(seed, uint64(i))
			for time.Now().Before(end) {
				sent.Add(int64(chance.attack(g.address)))
			}
		})
	}
	var longest time.Duration // until one message has come; for the log
	over := make(chan struct{})
	polite := make(chan departure, 1)
	go func() {
		polite <- follow(g.address, *garbageFor+patience, func(s *script) {
			// A machine that is busy with other things may stop everybody for a minute.
			patient := func(c *packet.Connect) { c.KeepAlive = 0 }
			c, p := s.connect(packet.V5, "polite", patient), s.connect(packet.V5, "polite too", patient)
			c.sub("polite", 2)
			for i := 0; ; i++ {
				select {
				case <-over:
					c.bye()
					p.bye()
					return
				default:
				}
				begun := time.Now()
				p.deliver("polite", fmt.Sprint(i), byte(i%3), uint16(i%3))
				c.receive("polite", fmt.Sprint(i), byte(i%3))
				answered.Add(1)
				longest = max(longest, time.Since(begun))
			}
		})
	}()
	all.Wait()
	close(over)
	if why := <-polite; why != "" {
		t.Errorf("seed %d: the polite client, after %d messages: %s", seed, answered.Load(), why)
	}
	eventually(t, "nobody is connected", func() bool { return connected(g) == 0 }, g.tail)
	now := 0
	eventually(t, "their goroutines have ended", func() bool {
		now = goroutines(t, g)
		return now <= before
	}, func() string { return fmt.Sprintf("seed %d: %d goroutines, %d before", seed, now, before) })
	after := anonymousMemory(g.cmd.Process.Pid)
	if after > 200<<20 {
		t.Errorf("seed %d: %.0f MB of memory, %.0f MB before", seed, mb(after), mb(memory))
	}
	t.Logf("seed %d: %d packets; %d messages of a client beside them, the longest in %v; %d goroutines, %d before; %.0f MB of memory, %.0f MB before",
		seed, sent.Load(), answered.Load(), longest, now, before, mb(after), mb(memory))
}

func connected(g *holdfast) int {
	st, err := g.status()
	if err != nil {
		return -1
	}
	return st.Broker.Clients
}

// goroutines is how many the gateway has, by its own metrics.
func goroutines(t *testing.T, g *holdfast) int {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", g.socket)
		},
	}}
	resp, err := client.Get("http://gateway/metrics")
	if err != nil {
		t.Fatalf("%v\n%s", err, g.tail())
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\ngo_goroutines ")
	value, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("go_goroutines: %v", err)
	}
	return n
}

// chance makes packets.
type chance struct {
	*rand.Rand
	which uint64
}

func newChance(seed, which uint64) chance { return chance{rand.New(rand.NewPCG(seed, which)), which} }

func (c chance) in(n int) bool { return c.IntN(n) == 0 }

func pick[T any](c chance, of ...T) T { return of[c.IntN(len(of))] }

func (c chance) topic() string {
	return pick(c, "a", "a/b", "a/b/c", "/", "x/"+fmt.Sprint(c.IntN(50)), "$SYS/broker/uptime", "", "a/+", strings.Repeat("/", c.IntN(300)), "ä/ö", "\xff")
}

func (c chance) filter() string {
	return pick(c, "#", "a/#", "+/b", "a/b/c", "$share/g/a/#", "$share/h/#", "$SYS/#", "x/+", "$share//a", "a#", c.topic())
}

func (c chance) bytes(most int) []byte {
	b := make([]byte, c.IntN(most+1))
	for i := range b {
		b[i] = byte(c.Uint32())
	}
	return b
}

func (c chance) properties() *packet.Properties {
	if c.in(2) {
		return nil
	}
	p := new(packet.Properties)
	set := func(f func()) {
		if c.in(4) {
			f()
		}
	}
	set(func() { p.Message.PayloadUTF8 = true })
	set(func() { p.Message.Expiry, p.Message.HasExpiry = c.Uint32N(5), true })
	set(func() { p.Message.ContentType = "c" })
	set(func() { p.Message.ResponseTopic = c.topic() })
	set(func() { p.Message.CorrelationData = c.bytes(8) })
	set(func() { p.Message.User = []vocabulary.UserProperty{{Name: "n", Value: c.topic()}} })
	set(func() { p.SubscriptionIdentifiers = []uint32{c.Uint32N(3)} })
	set(func() { p.TopicAlias = uint16(c.IntN(40)) })
	set(func() { p.SessionExpiry, p.HasSessionExpiry = c.Uint32N(4), true })
	set(func() { p.ReceiveMaximum = uint16(c.IntN(4)) })
	set(func() { p.MaximumPacketSize = c.Uint32N(500) })
	set(func() { p.TopicAliasMaximum = uint16(c.IntN(5)) })
	set(func() { p.WillDelay = c.Uint32N(3) })
	set(func() { p.ReasonString = "r" })
	return p
}

// only leaves out what may not stand in the packet, mostly.
func (c chance) only(make func(p *packet.Properties) ([]byte, error)) []byte {
	for range 20 {
		if b, err := make(c.properties()); err == nil {
			return b
		}
	}
	b, _ := make(nil)
	return b
}

func (c chance) connect(v packet.Version) []byte {
	return c.only(func(p *packet.Properties) ([]byte, error) {
		id := fmt.Sprintf("chance%d.%d", c.which, c.IntN(3))
		if c.in(50) {
			id = "chance" // of all of them
		}
		login := packet.Connect{Version: v, ClientID: id, CleanStart: c.in(2), KeepAlive: uint16(c.IntN(3)) * 30, Properties: p}
		if c.in(3) {
			login.Will = &packet.Will{Topic: c.topic(), Payload: c.bytes(20), QoS: byte(c.IntN(3)), Retain: c.in(2)}
		}
		return login.Append(nil)
	})
}

// packet is any packet of that version, also one that is not for clients to send.
func (c chance) packet(v packet.Version) []byte {
	id := uint16(c.IntN(6))
	code := pick(c, packet.Success, packet.Success, packet.UnspecifiedError, packet.PacketIdentifierNotFound, packet.QuotaExceeded)
	switch t := packet.Type(c.IntN(16)); t {
	case packet.CONNECT:
		if c.in(4) {
			return c.connect(v)
		}
	case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
		a := packet.Ack{PacketID: id, Code: code}
		return a.Append(nil, t, v)
	case packet.SUBSCRIBE:
		return c.only(func(p *packet.Properties) ([]byte, error) {
			s := packet.Subscribe{PacketID: id, Properties: p}
			for range 1 + c.IntN(3) {
				s.Filters = append(s.Filters, vocabulary.Subscription{Filter: c.filter(), QoS: byte(c.IntN(3)),
					NoLocal: c.in(4), RetainAsPublished: c.in(3), RetainHandling: byte(c.IntN(3))})
			}
			return s.Append(nil, v)
		})
	case packet.UNSUBSCRIBE:
		b, _ := (&packet.Unsubscribe{PacketID: id, Filters: []string{c.filter()}}).Append(nil, v)
		return b
	case packet.DISCONNECT:
		if c.in(4) {
			b, _ := (&packet.Disconnect{Code: code}).Append(nil, v)
			return b
		}
	case packet.AUTH, 0, packet.CONNACK, packet.SUBACK, packet.UNSUBACK, packet.PINGRESP:
		if c.in(8) {
			return append([]byte{byte(t) << 4, 0}, c.bytes(6)...)
		}
	case packet.PINGREQ:
		return packet.AppendPingreq(nil)
	}
	return c.only(func(p *packet.Properties) ([]byte, error) {
		m := packet.Publish{Topic: []byte(c.topic()), Payload: c.bytes(pick(c, 0, 20, 20, 5000)), QoS: byte(c.IntN(3)), Retain: c.in(4), PacketID: id + 1, Properties: p}
		m.Dup = m.QoS > 0 && c.in(3)
		return m.Append(nil, v)
	})
}

// damage changes some bytes of a packet.
func (c chance) damage(b []byte) []byte {
	for range 1 + c.IntN(3) {
		if len(b) == 0 {
			return b
		}
		at := c.IntN(len(b))
		switch c.IntN(4) {
		case 0:
			b[at] ^= 1 << c.IntN(8)
		case 1:
			b = b[:at]
		case 2:
			b = append(b, b[at:]...)
		case 3:
			b[at] = pick[byte](c, 0, 0x7F, 0x80, 0xFF)
		}
	}
	return b
}

// attack is one connection. It returns how many packets were sent.
func (c chance) attack(address string) (sent int) {
	nc, err := net.Dial("tcp", address)
	if err != nil {
		return 0
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	if !c.in(4) {
		go io.Copy(io.Discard, nc) // ends with the connection
	}
	v := pick(c, packet.V31, packet.V311, packet.V5, packet.V5)
	login := c.connect(v)
	if c.in(20) {
		login = c.damage(login)
	}
	if _, err := nc.Write(login); err != nil {
		return 0
	}
	for range 1 + c.IntN(60) {
		b := c.packet(v)
		if c.in(15) {
			b = c.damage(b)
		}
		if at := c.IntN(len(b) + 1); c.in(5) {
			if _, err := nc.Write(b[:at]); err != nil {
				return sent
			}
			b = b[at:]
		}
		if _, err := nc.Write(b); err != nil {
			return sent
		}
		sent++
	}
	return sent
}
