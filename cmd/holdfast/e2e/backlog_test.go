package e2e

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
)

// BenchmarkBacklog fills the queue of a real gateway with a million messages
// while its upstream is away, kills it, starts it again, lets the backlog drain,
// and prints what that costs in time, memory and disk.
func BenchmarkBacklog(b *testing.B) {
	for b.Loop() {
		backlog(b, 1_000_000)
	}
}

func backlog(t testing.TB, n int) {
	t.Helper()
	up := newDrainTarget(t)
	g := newHoldfast(t, fmt.Sprintf(outRoute, up.address))
	g.start()
	for i := range 100 {
		connect(t, g.address, packet.Connect{ClientID: fmt.Sprintf("idle%d", i), CleanStart: true})
	}
	peak := watchMemory(t, g)
	begun := time.Now()
	var fill sync.WaitGroup
	const publishers = 10
	for i := range publishers {
		c := connect(t, g.address, packet.Connect{ClientID: fmt.Sprintf("p%d", i), CleanStart: true})
		fill.Go(func() { publishFast(t, c, n/publishers, backlogPayload) })
	}
	fill.Wait()
	took := time.Since(begun)
	t.Logf("filled: %d messages of 200 bytes acknowledged in %v, %.0f/s; store %.0f MB; peak anonymous memory %.0f MB",
		n, took.Round(time.Millisecond), float64(n)/took.Seconds(), mb(diskUsage(t, g)), mb(peak()))

	g.end(syscall.SIGKILL)
	begun = time.Now()
	g.start()
	t.Logf("started after kill -9 with the backlog in %v", time.Since(begun).Round(time.Millisecond))
	peak = watchMemory(t, g)
	for i := range 100 {
		connect(t, g.address, packet.Connect{ClientID: fmt.Sprintf("idle%d", i), CleanStart: true})
	}
	probe := connect(t, g.address, packet.Connect{ClientID: "probe", CleanStart: true})
	// About as long as the drain takes, so that each meets as much of what else
	// the machine does.
	begun = time.Now()
	idle := pubackTimes(t, probe, func() bool { return time.Since(begun) < 20*time.Second })

	begun = time.Now()
	up.open(t)
	// How long the bridge waits before it tries again is its back-off, which depends
	// on how long the upstream was away, and is no part of the drain.
	eventually(t, "the drain has begun", func() bool { return up.received.Load() > 0 }, g.tail)
	t.Logf("the bridge has come back after %v", time.Since(begun).Round(time.Millisecond))
	begun = time.Now()
	cpu := cpuTime(t, g.process)
	busy := pubackTimes(t, probe, func() bool { return g.bridge().Queued > 100 })
	eventually(t, "the backlog has drained", func() bool { return g.bridge().Queued == 0 }, g.tail)
	drained := time.Now()
	took, cpu = drained.Sub(begun), cpuTime(t, g.process)-cpu
	t.Logf("drained: %d messages in %v, %.0f/s; processor time for each %.1f us; peak anonymous memory %.0f MB",
		n, took.Round(time.Millisecond), float64(n)/took.Seconds(), float64(cpu.Microseconds())/float64(n), mb(peak()))
	for _, p := range []struct {
		when string
		took []time.Duration
	}{{"idle", idle}, {"during the drain", busy}} {
		t.Logf("PUBACK %s: %d, p50 %v p99 %v worst %v", p.when, len(p.took),
			percentile(p.took, 50), percentile(p.took, 99), percentile(p.took, 100))
	}
	st, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the longest drop of chunks stopped the store for %.1f ms", st.Storage.LongestDrop*1000)
	// What is given back comes in steps; the figure is what is left when nothing
	// more has come for a while.
	for left := int64(-1); left != diskUsage(t, g); {
		left = diskUsage(t, g)
		<-time.After(3 * time.Second)
	}
	t.Logf("%.1f MB of disk are left %v after the drain", mb(diskUsage(t, g)), time.Since(drained).Round(time.Millisecond))
	if c := g.drained().Books(); c.Accepted < uint64(n) {
		t.Errorf("accepted %d", c.Accepted)
	}
}

func mb(n int64) float64 { return float64(n) / 1e6 }

// backlogPayload is the payload of the backlog: 200 bytes.
func backlogPayload(dst []byte, _ int) []byte { return append(dst, strings.Repeat("x", 200)...) }

// publishFast publishes n messages with QoS 1, 100 in flight, with what payload
// appends for each.
func publishFast(t testing.TB, c *client.Client, n int, payload func(dst []byte, n int) []byte) {
	p := packet.Publish{Topic: []byte("s/backlog"), QoS: 1}
	sent, acked := 0, 0
	for acked < n {
		var out []byte
		for sent < n && sent-acked < 100 {
			p.PacketID, p.Payload = packetID(sent), payload(p.Payload[:0], sent)
			out, _ = p.Append(out, packet.V311)
			sent++
		}
		if len(out) > 0 {
			if err := c.Send(out, nil); err != nil {
				t.Error(err)
				return
			}
		}
		if _, _, err := c.Next(); err != nil {
			t.Error(err)
			return
		}
		acked++
	}
}

// pubackTimes publishes one message after another while goOn and returns how
// long each took to be acknowledged, sorted.
func pubackTimes(t testing.TB, c *client.Client, goOn func() bool) []time.Duration {
	t.Helper()
	var took []time.Duration
	for i := 0; i%50 > 0 || goOn(); i++ {
		p := packet.Publish{Topic: []byte("s/probe"), QoS: 1, PacketID: packetID(i), Payload: []byte("probe")}
		begun := time.Now()
		if err := c.Send(p.Append(nil, packet.V311)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	return took
}

func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*p/100, len(sorted)-1)].Round(time.Microsecond)
}

// watchMemory samples the anonymous memory of the gateway until it is asked for
// the highest value.
func watchMemory(t testing.TB, g *holdfast) (peak func() int64) {
	t.Helper()
	pid := g.cmd.Process.Pid
	stop, highest := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		most := int64(0)
		for {
			most = max(most, anonymousMemory(pid))
			select {
			case <-tick.C:
			case <-stop:
				highest <- most
				return
			}
		}
	}()
	return sync.OnceValue(func() int64 { close(stop); return <-highest })
}

// anonymousMemory reads RssAnon of proc(5), in bytes; 0 if the process is gone.
func anonymousMemory(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "RssAnon:")
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	kb, _ := strconv.ParseInt(f[0], 10, 64)
	return kb << 10
}

// diskUsage is what the blocks of the gateway's store take, besides the reserve
// that it keeps for itself (docs/format.md).
func diskUsage(t testing.TB, g *holdfast) (n int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(g.dir, "data", "store"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // removed while we walk
		}
		if info, err := d.Info(); err == nil && d.Name() != "reserve" {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				n += st.Blocks * 512
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// drainTarget is a far broker that does nothing but acknowledge, as fast as a
// socket allows, so that the gateway is what is measured.
type drainTarget struct {
	address  string
	received atomic.Int64
}

func newDrainTarget(t testing.TB) *drainTarget { return &drainTarget{address: freePort(t)} }

func (d *drainTarget) open(t testing.TB) {
	t.Helper()
	ln, err := net.Listen("tcp", d.address)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer nc.Close()
				if err := d.serve(nc); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
					t.Log("drain target:", err)
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close() }) // connections end with the gateway
}

func (d *drainTarget) serve(nc net.Conn) error {
	buf, have := make([]byte, 256<<10), 0
	var out []byte
	for {
		n, err := nc.Read(buf[have:])
		if err != nil {
			return err
		}
		have += n
		rest := buf[:have]
		out = out[:0]
		for {
			h, n, err := packet.ReadHeader(rest)
			if err != nil {
				return err
			}
			if n == 0 || len(rest) < n+h.Remaining {
				break
			}
			body := rest[n : n+h.Remaining]
			rest = rest[n+h.Remaining:]
			switch h.Type {
			case packet.CONNECT:
				out = append(out, 0x20, 2, 0, 0)
			case packet.PINGREQ:
				out = packet.AppendPingresp(out)
			case packet.PUBLISH:
				var p packet.Publish
				if err := p.Decode(h.Flags, body, packet.V311); err != nil {
					return err
				}
				d.received.Add(1)
				a := packet.Ack{PacketID: p.PacketID}
				out = a.Append(out, packet.PUBACK, packet.V311)
			}
		}
		have = copy(buf, rest)
		if _, err := nc.Write(out); err != nil {
			return err
		}
	}
}
