package e2e

import (
	endian "encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	vocabulary "holdfast"
	"holdfast/edge/packet"
)

// The load of the broker table: MQTT 3.1.1 over TCP in as few system calls and
// with as little work as is possible, since it has the machine together with the
// broker that it measures.
const (
	loadPayload = 128
	loadWindow  = 100 // unacknowledged messages of one publisher of QoS 1 and 2
	loadChunk   = 64 << 10
	loadWarm    = 300 * time.Millisecond
	loadTime    = 1500 * time.Millisecond
)

// load is what goes through a broker, as fast as it will take it.
type load struct {
	qos                     byte
	publishers, subscribers int
}

// outcome is what one run of a load, or of another measurement, has shown.
type outcome map[string]float64

// run puts the load on the broker that listens there, and measures what
// subscribers receive, what the process takes for it, and how many subscribers it
// has disconnected.
func (l load) run(b *testing.B, p *process, address string) outcome {
	b.Helper()
	var received, sent, cut atomic.Int64
	var ending atomic.Bool
	var subscribers, publishers sync.WaitGroup
	var conns []net.Conn
	for i := range l.subscribers {
		c := connect(b, address, packet.Connect{ClientID: fmt.Sprint("sub", i), CleanStart: true})
		if err := c.Subscribe(vocabulary.Subscription{Filter: "bench/#", QoS: l.qos}); err != nil {
			b.Fatal(err)
		}
		conns = append(conns, c.Conn)
		subscribers.Go(func() {
			if consume(c.Conn, &received, nil) != nil && !ending.Load() {
				cut.Add(1)
			}
		})
	}
	for i := range l.publishers {
		c := connect(b, address, packet.Connect{ClientID: fmt.Sprint("pub", i), CleanStart: true})
		topic := fmt.Sprintf("bench/sensor/%d", i)
		publishers.Go(func() {
			if l.qos == 0 {
				failUnless(b, &ending, flood(c.Conn, topic, &sent, &ending))
			} else {
				failUnless(b, &ending, converse(c.Conn, topic, l.qos, &sent, &ending))
			}
		})
	}
	pause(loadWarm)
	begun, before, cpu := time.Now(), received.Load(), cpuTime(b, p)
	pause(loadTime)
	took, n := time.Since(begun), received.Load()-before
	cpu = cpuTime(b, p) - cpu
	ending.Store(true)
	publishers.Wait()
	// What is still on its way comes now; a silence means that there is no more.
	all := sent.Load() * int64(l.subscribers)
	for last := int64(-1); last != received.Load() && received.Load() < all; {
		last = received.Load()
		pause(300 * time.Millisecond)
	}
	lost := all - received.Load()
	for _, nc := range conns {
		nc.Close()
	}
	subscribers.Wait()
	out := outcome{
		"cut":   float64(cut.Load()),
		"msg/s": float64(n) / took.Seconds(),
		"%lost": float64(lost) / float64(max(all, 1)) * 100,
	}
	if n > 0 {
		out["us/msg"] = float64(cpu.Microseconds()) / float64(n)
	}
	return out
}

// failUnless reports an error that is not the end of the measurement.
func failUnless(b *testing.B, ending *atomic.Bool, err error) {
	if err != nil && !ending.Load() {
		b.Error(err)
	}
}

func pause(d time.Duration) { <-time.After(d) }

// flood publishes with QoS 0, many packets in a write.
func flood(nc net.Conn, topic string, sent *atomic.Int64, ending *atomic.Bool) error {
	p := packet.Publish{Topic: []byte(topic), Payload: make([]byte, loadPayload)}
	var out []byte
	n := int64(0)
	for ; len(out) < loadChunk/4; n++ {
		out, _ = p.Append(out, packet.V311)
	}
	for !ending.Load() {
		if _, err := nc.Write(out); err != nil {
			return err
		}
		sent.Add(n)
	}
	return nil
}

// converse publishes with QoS 1 or 2 and keeps its window full until the end,
// and until everything is acknowledged then.
func converse(nc net.Conn, topic string, qos byte, sent *atomic.Int64, ending *atomic.Bool) error {
	p := packet.Publish{Topic: []byte(topic), QoS: qos, Payload: make([]byte, loadPayload)}
	var out []byte
	for i := range loadWindow {
		p.PacketID = uint16(i + 1)
		out, _ = p.Append(out, packet.V311)
	}
	sent.Add(loadWindow)
	open := loadWindow
	in := newChunks(nc)
	for open > 0 {
		if len(out) > 0 {
			if _, err := nc.Write(out); err != nil {
				return err
			}
		}
		out = out[:0]
		err := in.each(func(h packet.Header, body []byte) {
			id := endian.BigEndian.Uint16(body)
			a := packet.Ack{PacketID: id}
			switch {
			case h.Type == packet.PUBREC:
				out = a.Append(out, packet.PUBREL, packet.V311)
			case ending.Load():
				open--
			default: // PUBACK or PUBCOMP: its packet identifier is free again
				p.PacketID = id
				out, _ = p.Append(out, packet.V311)
				sent.Add(1)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// consume counts what comes, and answers it. If note is not nil, it gets each payload.
func consume(nc net.Conn, received *atomic.Int64, note func(payload []byte)) error {
	in := newChunks(nc)
	var out []byte
	for {
		out = out[:0]
		n := int64(0)
		err := in.each(func(h packet.Header, body []byte) {
			if h.Type == packet.PUBREL {
				a := packet.Ack{PacketID: endian.BigEndian.Uint16(body)}
				out = a.Append(out, packet.PUBCOMP, packet.V311)
				return
			}
			n++
			body = body[2+endian.BigEndian.Uint16(body):] // behind the topic name
			qos := h.Flags >> 1 & 3
			if qos > 0 {
				a := packet.Ack{PacketID: endian.BigEndian.Uint16(body)}
				answer := packet.PUBACK
				if qos == 2 {
					answer = packet.PUBREC
				}
				out = a.Append(out, answer, packet.V311)
				body = body[2:]
			}
			if note != nil {
				note(body)
			}
		})
		received.Add(n)
		if err == nil && len(out) > 0 {
			_, err = nc.Write(out)
		}
		if err != nil {
			return err
		}
	}
}

// chunks reads many packets at once.
type chunks struct {
	nc   net.Conn
	buf  []byte
	have int
}

func newChunks(nc net.Conn) *chunks { return &chunks{nc: nc, buf: make([]byte, loadChunk)} }

// each reads once and calls f for every whole packet that is there.
func (c *chunks) each(f func(h packet.Header, body []byte)) error {
	n, err := c.nc.Read(c.buf[c.have:])
	if err != nil {
		return err
	}
	c.have += n
	rest := c.buf[:c.have]
	for {
		h, n, err := packet.ReadHeader(rest)
		if err != nil {
			return err
		}
		if n == 0 || len(rest) < n+h.Remaining {
			break
		}
		if h.Remaining < 2 {
			return fmt.Errorf("%w: %v without a body", io.ErrUnexpectedEOF, h.Type)
		}
		f(h, rest[n:n+h.Remaining])
		rest = rest[n+h.Remaining:]
	}
	c.have = copy(c.buf, rest)
	return nil
}

// latency is QoS 1 from one publisher to one subscriber at a steady rate far
// below what a broker can do: how long a message takes from one to the other.
func latency(b *testing.B, p *process, address string) outcome {
	b.Helper()
	return latencyAcross(b, p, address, address)
}

// latencyAcross is latency with the subscriber at another broker.
func latencyAcross(b *testing.B, p *process, address, far string) outcome {
	b.Helper()
	const rate = 5000 // messages a second
	start := time.Now()
	var received atomic.Int64
	var ending atomic.Bool
	var running sync.WaitGroup
	var took []time.Duration
	sub := connect(b, far, packet.Connect{ClientID: "sub", CleanStart: true})
	if err := sub.Subscribe(vocabulary.Subscription{Filter: "bench/#", QoS: 1}); err != nil {
		b.Fatal(err)
	}
	running.Go(func() {
		failUnless(b, &ending, consume(sub.Conn, &received, func(payload []byte) {
			took = append(took, time.Since(start)-time.Duration(endian.BigEndian.Uint64(payload)))
		}))
	})
	pub := connect(b, address, packet.Connect{ClientID: "pub", CleanStart: true})
	running.Go(func() {
		in := newChunks(pub.Conn)
		for {
			if err := in.each(func(packet.Header, []byte) {}); err != nil {
				failUnless(b, &ending, err)
				return
			}
		}
	})
	m := packet.Publish{Topic: []byte("bench/sensor"), QoS: 1, Payload: make([]byte, loadPayload)}
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	cpu, begun := cpuTime(b, p), time.Now()
	for sent := 0; time.Since(begun) < loadWarm+loadTime; <-tick.C {
		for due := int(time.Since(begun).Seconds() * rate); sent < due; sent++ {
			m.PacketID = packetID(sent)
			endian.BigEndian.PutUint64(m.Payload, uint64(time.Since(start)))
			if err := pub.Send(m.Append(nil, packet.V311)); err != nil {
				b.Fatal(err)
			}
		}
	}
	cpu = cpuTime(b, p) - cpu
	pause(100 * time.Millisecond)
	ending.Store(true)
	pub.Conn.Close()
	sub.Conn.Close()
	running.Wait()
	slices.Sort(took)
	return outcome{
		"us-p50": float64(percentile(took, 50).Microseconds()),
		"us-p99": float64(percentile(took, 99).Microseconds()),
		"us/msg": float64(cpu.Microseconds()) / float64(max(len(took), 1)),
	}
}
