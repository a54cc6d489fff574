package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
)

// wearPayload is the payload of the wear figures, in bytes.
const wearPayload = 128

// BenchmarkWear prints what a message costs an SD card: bytes that reach the
// device for each byte of payload, and flushes for each commit, with 1, 10 and
// 100 messages acknowledged together: while the upstream is away, and while it
// answers, in both modes of storage.sync. Mosquitto stands beside it with autosave
// every second, which acknowledges before anything is written. These figures
// carry over to a card; messages a second do not.
//
// Bytes are write_bytes of proc(5): what the process has caused to be written,
// mapped files included, the file system's journal left out. Flushes are counted
// by strace where it is installed.
func BenchmarkWear(b *testing.B) {
	for _, group := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("always/%d", group), func(b *testing.B) {
			g := newHoldfast(b, fmt.Sprintf(outRoute, "127.0.0.1:9")) // nobody is there
			g.start()
			measureWear(b, g.process, g.address, "s/wear", group)
		})
		for _, sync := range []string{"always", "spill"} {
			b.Run(fmt.Sprintf("%s-upstream-answers/%d", sync, group), func(b *testing.B) {
				up := newMosquitto(b, "persistence false")
				up.start()
				g := newHoldfast(b, fmt.Sprintf("[storage]\nsync = %q\n", sync)+fmt.Sprintf(outRoute, up.address))
				g.start()
				eventually(b, "the bridge is connected", func() bool { return g.bridge().State == "connected" }, g.tail)
				measureWear(b, g.process, g.address, "s/wear", group)
			})
		}
		b.Run(fmt.Sprintf("mosquitto-autosave-1s/%d", group), func(b *testing.B) {
			m := newMosquitto(b, "persistence true", "persistence_location "+b.TempDir()+"/", "autosave_interval 1")
			m.start()
			away := connect(b, m.address, packet.Connect{ClientID: "away"})
			subscribeAndLeave(b, away, "s/#")
			measureWear(b, m.process, m.address, "s/wear", group)
		})
	}
}

// measureWear publishes groups of QoS 1 messages, each group only when the one
// before it is acknowledged, and reports what the process wrote meanwhile.
func measureWear(b *testing.B, p *process, address, topic string, group int) {
	b.Helper()
	c := connect(b, address, packet.Connect{ClientID: "wear", CleanStart: true})
	publishGroups(b, c, topic, group, 20) // what is written once is written
	groups := max(200, 5000/group)
	flushes := countFlushes(b, p.cmd.Process.Pid)
	before := writtenBytes(b, p.cmd.Process.Pid)
	begun := time.Now()
	for b.Loop() {
		publishGroups(b, c, topic, group, groups)
	}
	took := time.Since(begun)
	if took < 3*time.Second {
		<-time.After(3*time.Second - took) // what is written a little later counts too
	}
	messages := float64(groups*group) * float64(b.N)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(writtenBytes(b, p.cmd.Process.Pid)-before)/messages/wearPayload, "written/payload")
	b.ReportMetric(messages/took.Seconds(), "msg/s")
	if n, ok := flushes(); ok {
		b.ReportMetric(float64(n)/float64(groups*b.N), "flushes/group")
	}
}

func publishGroups(b *testing.B, c *client.Client, topic string, group, groups int) {
	b.Helper()
	p := packet.Publish{Topic: []byte(topic), QoS: 1, Payload: bytes.Repeat([]byte{'x'}, wearPayload)}
	for range groups {
		var out []byte
		for i := range group {
			p.PacketID = packetID(i)
			out, _ = p.Append(out, packet.V311)
		}
		if err := c.Send(out, nil); err != nil {
			b.Fatal(err)
		}
		for range group {
			if _, _, err := c.Next(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// writtenBytes is write_bytes of /proc/PID/io.
func writtenBytes(b *testing.B, pid int) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nwrite_bytes: ")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

var straceLine = regexp.MustCompile(`\b(msync|fsync|fdatasync|sync_file_range)\(`)

// countFlushes attaches strace, if there is one, until it is asked for the
// number of calls that make the device write.
func countFlushes(b *testing.B, pid int) (stop func() (int, bool)) {
	b.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		return func() (int, bool) { return 0, false }
	}
	log := filepath.Join(b.TempDir(), "strace")
	cmd := exec.Command(path, "-f", "-q", "-e", "trace=msync,fsync,fdatasync", "-o", log, "-p", strconv.Itoa(pid))
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	eventually(b, "strace is attached", func() bool {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		return strings.Contains(string(status), "TracerPid:\t"+strconv.Itoa(cmd.Process.Pid))
	})
	return func() (int, bool) {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			b.Fatal(err)
		}
		cmd.Wait() // ends by the signal
		text, err := os.ReadFile(log)
		if err != nil {
			b.Fatal(err)
		}
		return len(straceLine.FindAll(text, -1)), true
	}
}
