package gateway

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"go.yaml.in/yaml/v3"

	"holdfast"
	"holdfast/bridge"
	"holdfast/modem"
)

// fullStatus has everything that can be there.
func fullStatus() Status {
	counts := map[string]holdfast.Counts{"up": {
		Accepted: 9, Imported: 1, Delivered: 3, Unconfirmed: 1, Exported: 1, Lost: 1, Queued: 2,
		Dropped: map[string]uint64{"full": 1}, Quarantined: map[string]uint64{"refused": 1},
	}}
	return Status{
		Bridges: []BridgeStatus{{
			Name: "cloud", Status: bridge.Status{State: bridge.Connected, RTT: 1500 * time.Millisecond, KeepAlive: 9 * time.Minute, Held: 1},
			Queued: 2, QueuedBytes: 200, QueueLimit: 1000, Oldest: time.Now().Add(-time.Hour), Routes: counts,
		}},
		Retired: []RetiredBridge{{Name: "past", Routes: counts}},
		Storage: StorageStatus{Mode: "disk", Space: "low", Disk: &DiskStatus{Free: 1, Size: 2, Written: 3}},
		Plans:   []bridge.PlanStatus{{Name: "modem lte", Bytes: 500e6, Used: 450e6, Level: bridge.PlanHoldsLow}},
		Modems: []modem.Status{{
			Name: "lte", State: modem.StateReady, Signal: modem.Signal{CSQ: 20, DBm: -73, At: time.Now()},
			Traffic: modem.Traffic{Source: "module", Months: []modem.MonthBytes{{Month: "2026-11", Out: 5, In: 7}}},
		}},
	}
}

// scrape is what Prometheus would get, and the names of the metrics in it.
func scrape(t *testing.T, st Status) (text string, names []string) {
	t.Helper()
	families, err := metricsRegistry(func() Status { return st }).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		names = append(names, f.GetName())
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String(), names
}

func TestMetricsFollowTheConventions(t *testing.T) {
	text, _ := scrape(t, fullStatus())
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, want := range []string{
		"holdfast_bridge_connected{bridge=\"cloud\"} 1\n",
		"holdfast_bridge_rtt_seconds{bridge=\"cloud\"} 1.5\n",
		"holdfast_queue_limit_bytes{bridge=\"cloud\"} 1000\n",
		"holdfast_route_dropped_total{bridge=\"cloud\",reason=\"full\",route=\"up\"} 1\n",
		"holdfast_route_lost_total{bridge=\"past\",route=\"up\"} 1\n",
		"holdfast_storage_space_level 1\n",
		"holdfast_storage_on_disk 1\n",
		"holdfast_modem_signal_dbm{modem=\"lte\"} -73\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if !regexp.MustCompile(`holdfast_queue_oldest_age_seconds\{bridge="cloud"\} 36\d\d`).MatchString(text) {
		t.Error("the age of the oldest message is not an hour")
	}
}

func TestAnEmptyGatewayHasMetrics(t *testing.T) {
	text, _ := scrape(t, Status{})
	if !strings.Contains(text, "holdfast_clients 0\n") || strings.Contains(text, "bridge=") {
		t.Error(text)
	}
}

// Whatever the rules and the dashboard ask for must be there.
func TestRulesAndDashboardUseMetricsThatExist(t *testing.T) {
	_, names := scrape(t, fullStatus())
	metric := regexp.MustCompile(`\b(?:holdfast|process)_[a-z_]+`)
	known := func(where, expr string) {
		t.Helper()
		found := metric.FindAllString(expr, -1)
		if len(found) == 0 {
			t.Errorf("%s: %q asks for nothing", where, expr)
		}
		for _, m := range found {
			if !slices.Contains(names, m) {
				t.Errorf("%s: there is no metric %s", where, m)
			}
		}
		if strings.Count(expr, "(") != strings.Count(expr, ")") || strings.Count(expr, "{") != strings.Count(expr, "}") {
			t.Errorf("%s: %q is not closed", where, expr)
		}
	}
	b, err := os.ReadFile("../../../docs/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations struct{ Summary, Action string }
			}
		}
	}
	if err := yaml.Unmarshal(b, &rules); err != nil {
		t.Fatal(err)
	}
	if len(rules.Groups) != 1 || len(rules.Groups[0].Rules) < 5 {
		t.Fatalf("%+v", rules)
	}
	for _, r := range rules.Groups[0].Rules {
		known(r.Alert, r.Expr)
		if r.Annotations.Summary == "" || r.Annotations.Action == "" {
			t.Errorf("%s does not say what to do", r.Alert)
		}
	}
	if b, err = os.ReadFile("../../../docs/grafana.json"); err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			known(p.Title, target.Expr)
		}
	}
}
