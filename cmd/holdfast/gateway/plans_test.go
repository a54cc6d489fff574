package gateway

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/bridge"
	"holdfast/configs"
)

func TestAPlanIsThatOfTheModemOrTheInterfaceOrTheUpstream(t *testing.T) {
	t.Parallel()
	g := &Gateway{cfg: &configs.Config{Modems: []configs.Modem{
		{Name: "lte", DataPlan: 500, DataPlanDay: 15, DataPlanHard: true}, {Name: "card", Interface: "usb0", DataPlan: 700, DataPlanDay: 1}, {Name: "free"},
	}}}
	for _, tc := range []struct {
		u      configs.Upstream
		key    string
		limits bridge.PlanLimits
	}{
		{configs.Upstream{URL: "tcp://a", Via: "lte"}, "modem lte", bridge.PlanLimits{Bytes: 500, FirstDay: 15, Hard: true}},
		{configs.Upstream{URL: "tcp://a", Interface: "usb0"}, "modem card", bridge.PlanLimits{Bytes: 700, FirstDay: 1}},
		{configs.Upstream{URL: "tcp://a", Via: "free"}, "", bridge.PlanLimits{}},
		{configs.Upstream{URL: "tcp://a"}, "", bridge.PlanLimits{}},
		{configs.Upstream{URL: "tcp://a", Interface: "wwan0", DataPlan: 9, DataPlanDay: 2}, "interface wwan0", bridge.PlanLimits{Bytes: 9, FirstDay: 2}},
		{configs.Upstream{URL: "tcp://a", DataPlan: 8, DataPlanDay: 2}, "upstream cloud tcp://a", bridge.PlanLimits{Bytes: 8, FirstDay: 2}},
	} {
		if key, limits := g.planOf("cloud", tc.u); key != tc.key || limits != tc.limits {
			t.Errorf("%+v: %q, %+v", tc.u, key, limits)
		}
	}
}

func TestTheCounterOfAnInterfaceIsTheKernels(t *testing.T) {
	t.Parallel()
	sys := t.TempDir()
	put := func(index, out, in int) {
		t.Helper()
		folder := filepath.Join(sys, "class/net/wwan0/statistics")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, n := range map[string]int{"../ifindex": index, "tx_bytes": out, "rx_bytes": in} {
			if err := os.WriteFile(filepath.Join(folder, name), fmt.Appendln(nil, n), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := func() *bridge.Plan {
		return bridge.NewPlan(bridge.PlanOptions{Name: "x", Limits: bridge.PlanLimits{Bytes: 1e6, FirstDay: 1},
			Count: func() bridge.Counted { return countInterface(sys, "wwan0") }})
	}()
	want := func(n uint64) {
		t.Helper()
		p.Tick()
		if used := p.Status().Used; used != n {
			t.Errorf("%d are used, want %d", used, n)
		}
	}
	want(0) // it is not there yet
	put(3, 1000, 2000)
	want(0)
	put(3, 1500, 2600)
	want(1100)
	put(4, 2000, 3000) // plugged in again
	want(6100)
	if c := countInterface("/sys", "lo"); len(c.Parts) != 1 {
		t.Errorf("of lo: %+v", c)
	}
}

// TestAPlanOfAnUpstreamCountsItsConnections also over a reload, which changes its
// terms, and a restart.
func TestAPlanOfAnUpstreamCountsItsConnections(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // a broker that is none: each login costs something
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	text := func(plan string) string {
		return strings.ReplaceAll(bridgeTo("cloud", plan), "tcp://127.0.0.1:1", "tcp://"+l.Addr().String())
	}
	g, load := startWith(t, text(`data_plan = "1MB"`))
	used := func() uint64 {
		t.Helper()
		plans := g.Status().Plans
		if len(plans) != 1 || plans[0].Name != "upstream cloud tcp://"+l.Addr().String() {
			t.Fatalf("%+v", plans)
		}
		for _, p := range g.plans.all(true) {
			p.Tick()
		}
		return g.Status().Plans[0].Used
	}
	for deadline := time.Now().Add(time.Minute); used() < 500; {
		if time.Now().After(deadline) {
			t.Fatal("nothing is counted")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := g.Reload(t.Context(), load(text("data_plan = \"100MB\"\ndata_plan_hard = true"))); err != nil {
		t.Fatal(err)
	}
	if p := g.Status().Plans[0]; p.Bytes != 100_000_000 || !p.Hard || p.Used < 500 {
		t.Errorf("after the reload: %+v", p)
	}
	raw, err := os.ReadFile(filepath.Join(g.cfg.Gateway.DataDir, "plan", fileName(g.Status().Plans[0].Name)))
	if err != nil || !strings.Contains(string(raw), `"used":`) {
		t.Errorf("on disk: %s, %v", raw, err)
	}
	if err := g.Reload(t.Context(), load(text(""))); err != nil {
		t.Fatal(err)
	}
	if plans := g.Status().Plans; len(plans) != 0 {
		t.Errorf("without a plan: %+v", plans)
	}
}

func TestAFileOfAPlanHasANameThatCanBe(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, key := range []string{"modem lte", "modem_lte", "upstream a b/../../c", "upstream a b%2f", "upstream " + strings.Repeat("ä/", 200), ""} {
		name := fileName(key)
		if filepath.Base(name) != name || len(name) > 255 || seen[name] || strings.HasPrefix(name, ".") && key != "" {
			t.Errorf("%q: %q", key, name)
		}
		seen[name] = true
	}
}

// A context that ends writes the plans down.
func TestThePlansAreWrittenDownAtTheEnd(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "plan.json")
	n := uint64(0)
	g := &Gateway{}
	g.plans.plans = map[string]*bridge.Plan{"x": bridge.NewPlan(bridge.PlanOptions{Name: "x", File: file, Limits: bridge.PlanLimits{Bytes: 1e6, FirstDay: 1},
		Count: func() bridge.Counted { n += 100; return bridge.Counted{Parts: map[string]uint64{"a": n}} }})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.keepPlans(ctx)
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
