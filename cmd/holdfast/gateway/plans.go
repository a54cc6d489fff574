package gateway

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"holdfast/bridge"
	"holdfast/configs"
	"holdfast/modem"
)

// tickPlans is how often the counters of the data plans are read, besides what the
// bridges make of it.
const tickPlans = 10 * time.Second

// plans are the data plans by what they are of: a modem, an interface of the board,
// or one upstream over its own connections. A reload changes their terms; one that
// is in the configuration no more lets everything go, and nobody asks it.
type plans struct {
	mu     sync.Mutex
	plans  map[string]*bridge.Plan
	meters map[string]*bridge.SocketMeter // of upstreams
	used   map[string]bool                // in the configuration
}

// planOf is what the data plan of an upstream is of, and its terms; "" if there is
// none.
func (g *Gateway) planOf(bridgeName string, u configs.Upstream) (key string, limits bridge.PlanLimits) {
	size, day, hard := u.DataPlan, u.DataPlanDay, u.DataPlanHard
	switch {
	case u.Interface != "":
		key = "interface " + u.Interface
	default:
		key = "upstream " + bridgeName + " " + upstreamName(u)
	}
	if m := g.cfg.ModemOf(u); m != nil {
		key, size, day, hard = "modem "+m.Name, m.DataPlan, m.DataPlanDay, m.DataPlanHard
	}
	if size == 0 {
		return "", limits
	}
	return key, bridge.PlanLimits{Bytes: uint64(size), FirstDay: day, Hard: hard}
}

// setPlans makes the data plans of bridges, and gives those that there are already
// their terms.
func (g *Gateway) setPlans(bridges []configs.Bridge) {
	p := &g.plans
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = map[string]bool{}
	for _, b := range bridges {
		for _, u := range b.Upstreams {
			key, limits := g.planOf(b.Name, u)
			if key == "" {
				continue
			}
			p.used[key] = true
			if plan := p.plans[key]; plan != nil {
				plan.SetLimits(limits)
				continue
			}
			if p.plans == nil {
				p.plans, p.meters = map[string]*bridge.Plan{}, map[string]*bridge.SocketMeter{}
			}
			p.plans[key] = bridge.NewPlan(bridge.PlanOptions{
				Name: key, Limits: limits, Count: g.counterLocked(key), Clock: g.clock.now,
				File:   filepath.Join(g.cfg.Gateway.DataDir, "plan", fileName(key)),
				Logger: g.log.With("part", "bridge"),
			})
		}
	}
}

// fileName is the name of the file of something: what cannot be in one is in hex.
func fileName(key string) string {
	var name strings.Builder
	for _, c := range []byte(key) {
		if strings.IndexByte("-_.", c) >= 0 || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			name.WriteByte(c)
		} else {
			name.WriteString("%" + strconv.FormatUint(uint64(c)+0x100, 16)[1:])
		}
	}
	const longest = 200 // of the 255 bytes of a name
	s := name.String()
	return s[:min(len(s), longest)] + ".json"
}

// counterLocked is where the bytes of a plan are counted.
func (g *Gateway) counterLocked(key string) func() bridge.Counted {
	kind, name, _ := strings.Cut(key, " ")
	switch kind {
	case "modem":
		i := slices.IndexFunc(g.modems, func(m *modem.Modem) bool { return m.Status().Name == name })
		m := g.modems[i]
		if c := g.cfg.Modems[i]; c.Interface != "" {
			return func() bridge.Counted {
				counted := countInterface("/sys", c.Interface)
				counted.First = countModem(m).First
				return counted
			}
		}
		return func() bridge.Counted { return countModem(m) }
	case "interface":
		return func() bridge.Counted { return countInterface("/sys", name) }
	}
	meter := bridge.NewSocketMeter()
	g.plans.meters[key] = meter
	return meter.Count
}

// countModem is what a modem has carried: its meter takes back what it has estimated
// when it knows better. Months before the last two do not change any more.
func countModem(m *modem.Modem) bridge.Counted {
	c := bridge.Counted{Parts: map[string]uint64{}, Estimated: true}
	for i, month := range m.Status().Traffic.Months {
		if i < 2 {
			c.Parts[month.Month] = month.Out + month.In
		}
		if i == 0 {
			c.First = month.Out + month.In
		}
	}
	return c
}

// countInterface is what the kernel has counted for an interface of the board since
// it was made; nothing if there is none now.
func countInterface(sys, name string) bridge.Counted {
	folder := filepath.Join(sys, "class/net", filepath.Base(name))
	number := func(file string) (uint64, error) {
		b, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			return 0, err
		}
		return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	}
	index, err1 := number("ifindex")
	out, err2 := number("statistics/tx_bytes")
	in, err3 := number("statistics/rx_bytes")
	if err1 != nil || err2 != nil || err3 != nil {
		return bridge.Counted{}
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without it a restart shows by a smaller count
	life := strings.TrimSpace(string(boot)) + " " + strconv.FormatUint(index, 10)
	return bridge.Counted{Parts: map[string]uint64{life: out + in}}
}

// planFor is the plan of an upstream, and what counts its connections; nil if there
// is none.
func (g *Gateway) planFor(bridgeName string, u configs.Upstream) (*bridge.Plan, *bridge.SocketMeter) {
	key, _ := g.planOf(bridgeName, u)
	g.plans.mu.Lock()
	defer g.plans.mu.Unlock()
	return g.plans.plans[key], g.plans.meters[key]
}

// all are the plans by name; with retired also those that the configuration does not
// have any more, which are counted on.
func (p *plans) all(retired bool) (list []*bridge.Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, plan := range p.plans {
		if retired || p.used[key] {
			list = append(list, plan)
		}
	}
	slices.SortFunc(list, func(a, b *bridge.Plan) int { return strings.Compare(a.Status().Name, b.Status().Name) })
	return list
}

// keepPlans reads the counters until ctx ends, and then writes them down.
func (g *Gateway) keepPlans(ctx context.Context) {
	tick := time.NewTicker(tickPlans)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, p := range g.plans.all(true) {
				p.Tick()
			}
		case <-ctx.Done():
			for _, p := range g.plans.all(true) {
				p.Close()
			}
			return
		}
	}
}
