package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	vocabulary "holdfast"
	"holdfast/edge/packet"
)

// What the bridges are compared with: a payload of 50 bytes on a topic of 40.
const (
	bridgedTopic   = "bench/site-0001/building-07/sensor-00042"
	bridgedPayload = 50
	bridgedBacklog = 50_000
)

// bridgeMaker makes a broker with a bridge in MQTT 5 to upstream, for QoS 1.
type bridgeMaker struct {
	name string
	make func(b *testing.B, upstream string) (p *process, address string)
}

func bridgeMakers() []bridgeMaker {
	return []bridgeMaker{
		{"holdfast", func(b *testing.B, upstream string) (*process, string) {
			g := newHoldfast(b, fmt.Sprintf("[[bridge]]\nname = \"far\"\nprotocol = \"5\"\n[[bridge.upstream]]\nurl = \"tcp://%s\"\n[[bridge.route]]\ndirection = \"out\"\ntopic = \"bench/#\"\n", upstream))
			return g.process, g.address
		}},
		{"mosquitto", func(b *testing.B, upstream string) (*process, string) {
			m := newMosquitto(b, "connection far", "address "+upstream, "bridge_protocol_version mqttv50", "topic bench/# out 1",
				"restart_timeout 1", "notifications false", "cleansession false",
				"max_inflight_messages 100") // 0 would be told to the far broker, which refuses it; ours has 100 too
			return m.process, m.address
		}},
	}
}

// BenchmarkBridges puts the bridge beside mosquitto's own: the drain of a backlog of
// QoS 1 to a mosquitto, with the processor time for each message and the bytes of MQTT
// that cross, both ways, counted by a proxy; and the latency across the bridge at
// 5,000 messages a second.
func BenchmarkBridges(b *testing.B) {
	results := make(map[string]map[string][]float64)
	for b.Loop() {
		for _, kind := range bridgeMakers() {
			if results[kind.name] == nil {
				results[kind.name] = make(map[string][]float64)
			}
			for unit, v := range drainAcross(b, kind) {
				results[kind.name][unit] = append(results[kind.name][unit], v)
			}
			for unit, v := range liveAcross(b, kind) {
				results[kind.name][unit] = append(results[kind.name][unit], v)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for _, name := range slices.Sorted(maps.Keys(results)) {
		for _, unit := range slices.Sorted(maps.Keys(results[name])) {
			b.ReportMetric(median(results[name][unit]), name+":"+unit)
		}
	}
	b.ReportMetric(median(results["holdfast"]["bytes/msg"])/median(results["mosquitto"]["bytes/msg"]), "bytes-ratio")
}

// drainAcross fills a queue while the far broker is away, and drains it.
func drainAcross(b *testing.B, kind bridgeMaker) outcome {
	far := newMosquitto(b)
	proxy := newCutter(b, far.address)
	near, address := kind.make(b, proxy.address())
	near.start()
	awaitPort(b, near, address)
	defer near.end(syscall.SIGKILL)
	c := connect(b, address, packet.Connect{ClientID: "filler", CleanStart: true})
	fill(b, c.Send, c.Next, bridgedBacklog)

	far.start()
	defer far.end(syscall.SIGKILL)
	sub := connect(b, far.address, packet.Connect{ClientID: "sub", CleanStart: true})
	if err := sub.Subscribe(vocabulary.Subscription{Filter: "bench/#", QoS: 0}); err != nil {
		b.Fatal(err)
	}
	var received atomic.Int64
	var begun time.Time
	var cpu time.Duration
	first, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		n := 0
		ended <- consume(sub.Conn, new(atomic.Int64), func([]byte) {
			if n++; n == 1 {
				begun, cpu = time.Now(), cpuTime(b, near)
				close(first)
			}
			received.Store(int64(n))
		})
	}()
	eventually(b, "the backlog has arrived", func() bool { return received.Load() >= bridgedBacklog }, near.tail)
	took := time.Since(begun)
	cpu = cpuTime(b, near) - cpu
	carried := proxy.carried.Load()
	sub.Conn.Close()
	<-first
	<-ended
	return outcome{
		"drained/s": bridgedBacklog / took.Seconds(),
		"us/msg":    float64(cpu.Microseconds()) / bridgedBacklog,
		"bytes/msg": float64(carried) / bridgedBacklog,
	}
}

// fill publishes n messages with QoS 1 and waits for their acknowledgements.
func fill(b *testing.B, send func([]byte, error) error, next func() (packet.Header, []byte, error), n int) {
	b.Helper()
	p := packet.Publish{Topic: []byte(bridgedTopic), QoS: 1, Payload: []byte(strings.Repeat("x", bridgedPayload))}
	for sent, acked := 0, 0; acked < n; acked++ {
		for ; sent < n && sent-acked < loadWindow; sent++ {
			p.PacketID = packetID(sent)
			if err := send(p.Append(nil, packet.V311)); err != nil {
				b.Fatal(err)
			}
		}
		if _, _, err := next(); err != nil {
			b.Fatal(err)
		}
	}
}

func liveAcross(b *testing.B, kind bridgeMaker) outcome {
	far := newMosquitto(b)
	far.start()
	defer far.end(syscall.SIGKILL)
	near, address := kind.make(b, far.address)
	near.start()
	awaitPort(b, near, address)
	defer near.end(syscall.SIGKILL)
	// Until something has come across, the bridge is not connected.
	probe := connect(b, far.address, packet.Connect{ClientID: "probe", CleanStart: true})
	if err := probe.Subscribe(vocabulary.Subscription{Filter: "bench/#", QoS: 1}); err != nil {
		b.Fatal(err)
	}
	c := connect(b, address, packet.Connect{ClientID: "probe", CleanStart: true})
	fill(b, c.Send, c.Next, 1)
	if _, err := probe.NextPublish(); err != nil {
		b.Fatal(err)
	}
	probe.Conn.Close()
	out := outcome{}
	for unit, v := range latencyAcross(b, near, address, far.address) {
		out["live-"+unit] = v
	}
	return out
}
