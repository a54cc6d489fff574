package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/edge/packet"
)

// The brokers that are built to compare with.
const (
	natsServer = "github.com/nats-io/nats-server/v2@v2.15.2"
	mochi      = "github.com/mochi-mqtt/server/v2/cmd@v2.7.9"
)

// broker is one that stands in the table: how a fresh one is made, that keeps
// acknowledged messages as well as it can if durable is set.
type broker struct {
	name string
	make func(b *testing.B, durable bool) (*process, string)
}

// brokers are this one and those that it is compared with, of which two are built
// from the versions that are named here.
func brokers(b *testing.B) []broker {
	nats := goTool(b, natsServer, "nats-server")
	mochi := goTool(b, mochi, "cmd")
	return []broker{
		{"holdfast", func(b *testing.B, _ bool) (*process, string) {
			g := newHoldfast(b, "[limits]\nmax_connections = 5000\nmax_connect_rate = 0\nmax_session_messages = 1000000\nmax_session_bytes = \"1GiB\"\n")
			return g.process, g.address
		}},
		{"mosquitto", func(b *testing.B, _ bool) (*process, string) {
			m := newMosquitto(b)
			return m.process, m.address
		}},
		{"mochi", func(b *testing.B, _ bool) (*process, string) {
			address := freePort(b)
			return newProcess(b, mochi, "-tcp", address, "-ws", freePort(b), "-info", freePort(b)), address
		}},
		{"nats-server", func(b *testing.B, durable bool) (*process, string) {
			sync := ""
			if durable {
				sync = ", sync_interval: always"
			}
			return newNATS(b, nats, sync)
		}},
	}
}

// newNATS is a nats-server with this in its jetstream block besides the folder.
func newNATS(b *testing.B, server, jetstream string) (*process, string) {
	b.Helper()
	address, dir := freePort(b), b.TempDir()
	file := filepath.Join(dir, "nats.conf")
	config := fmt.Sprintf("server_name: one\nlisten: %q\njetstream { store_dir: %q%s }\nmqtt { listen: %q }\n",
		freePort(b), filepath.Join(dir, "data"), jetstream, address)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	return newProcess(b, server, "-c", file), address
}

// BenchmarkBrokers prints the table of docs/bench.md: each row for every broker,
// one after the other in each round, the median of all rounds (-benchtime 5x), and
// the processor time of the broker for each message.
func BenchmarkBrokers(b *testing.B) {
	all := brokers(b)
	for _, row := range []struct {
		name    string
		durable bool
		run     func(b *testing.B, p *process, address string) outcome
	}{
		{"QoS0-10to1", false, load{qos: 0, publishers: 10, subscribers: 1}.run},
		{"QoS0-1to100", false, load{qos: 0, publishers: 1, subscribers: 100}.run},
		{"QoS1-10to1", false, load{qos: 1, publishers: 10, subscribers: 1}.run},
		{"QoS2-10to1", false, load{qos: 2, publishers: 10, subscribers: 1}.run},
		{"QoS1-away", true, fillAway},
		{"QoS1-at-5000/s", false, latency},
		{"memory", false, memory},
	} {
		b.Run(row.name, func(b *testing.B) {
			results := make(map[string]map[string][]float64)
			for b.Loop() {
				for _, r := range all {
					p, address := r.make(b, row.durable)
					p.start()
					awaitPort(b, p, address)
					for unit, v := range row.run(b, p, address) {
						if results[r.name] == nil {
							results[r.name] = make(map[string][]float64)
						}
						results[r.name][unit] = append(results[r.name][unit], v)
					}
					p.end(syscall.SIGKILL)
				}
			}
			b.ReportMetric(0, "ns/op")
			for _, r := range all {
				for _, unit := range slices.Sorted(maps.Keys(results[r.name])) {
					v := median(results[r.name][unit])
					b.ReportMetric(v, r.name+":"+unit)
				}
			}
		})
	}
}

func median(v []float64) float64 {
	slices.SortFunc(v, cmp.Compare)
	return v[len(v)/2]
}

// fillAway is the rate at which messages for a session that is away are
// acknowledged. A broker that syncs for each of them gets fewer.
func fillAway(b *testing.B, p *process, address string) outcome {
	n := offlineMessages
	if strings.Contains(p.name, "nats") {
		n /= 20
	}
	cpu := cpuTime(b, p)
	rate := fillAwaySession(b, address, n)
	cpu = cpuTime(b, p) - cpu
	return outcome{"acked/s": rate, "us/msg": float64(cpu.Microseconds()) / float64(n)}
}

// memory is what a broker takes without clients, and for each of 2,000 that do
// nothing, some seconds after they came.
func memory(b *testing.B, p *process, address string) outcome {
	const clients = 2000
	pause(time.Second)
	idle := residentMemory(b, p)
	for i := range clients {
		c := connect(b, address, packet.Connect{ClientID: fmt.Sprint("idle", i), CleanStart: true})
		defer func(nc net.Conn) { nc.Close() }(c.Conn)
	}
	pause(time.Second)
	return outcome{"MB-idle": mb(idle), "KB/client": float64(residentMemory(b, p)-idle) / clients / 1000}
}

// cpuTime is the time that the process has had of the processor, by proc(5).
func cpuTime(b testing.TB, p *process) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may have spaces in it
	f := strings.Fields(rest)
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err := cmp.Or(err1, err2); err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * time.Second / 100 // ticks of 10 ms, wherever Go runs
}

func residentMemory(b *testing.B, p *process) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
