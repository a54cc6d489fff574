package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/bridge"
	"holdfast/cmd/holdfast/gateway"
)

func TestStatusTellsTheBooksAndWarnsOfLosses(t *testing.T) {
	st := gateway.Status{ID: "gw", Bridges: []gateway.BridgeStatus{{
		Name: "cloud", Status: bridge.Status{Since: time.Now()}, Queued: 2, QueuedBytes: 20 << 10,
		Routes: map[string]holdfast.Counts{
			"new": {Accepted: 5, Imported: 1, Delivered: 3, Exported: 1, Queued: 2},
			"old": {Accepted: 1, Dropped: map[string]uint64{"purged": 1}},
		},
		RetiredRoutes: []string{"old"},
	}}, Retired: []gateway.RetiredBridge{{Name: "past", Queued: 1, QueuedBytes: 70, Routes: map[string]holdfast.Counts{"r": {Accepted: 2, Queued: 1, Lost: 1}}}}}
	st.Storage = gateway.StorageStatus{Queued: 3, QueuedBytes: 20<<10 + 70, SetAside: 1, LongestDrop: 0.0421,
		Mode: "disk", Sync: "spill", Commits: 7, Direct: 30}
	var out bytes.Buffer
	printStatus(&out, st, nil)
	for _, want := range []string{
		"; queued 2 (20 KiB), in flight 0\n",
		"\n        new: 5 accepted + 1 imported = 3 delivered + 2 queued + 1 exported\n",
		"\n        old (no longer in the configuration): 1 accepted = 0 delivered + 1 dropped(purged)\n",
		"\nbridge  past: no longer in the configuration; queued 1 (70 bytes)\n",
		"\nstorage 3 queued (20 KiB); 0 lost, 1 damaged file set aside; longest drop stall 42ms\n        sync spill: 7 commits, 30 messages delivered without one\n",
		"\nbooks   8 accepted + 1 imported = 3 delivered + 3 queued + 1 dropped(purged) + 1 exported + 1 lost(corrupt)\n",
		"\nWARNING lost to damage by the books of all time: 1 message",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "do not balance") {
		t.Error("they do balance")
	}
	st.Plans = []bridge.PlanStatus{
		{Name: "modem lte", Bytes: 500e6, Used: 426.5e6, Level: bridge.PlanHoldsLow, Since: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)},
		{Name: "interface wwan0", Bytes: 1e9},
	}
	st.Storage = gateway.StorageStatus{Lost: 4, Failed: "no space left on device"}
	st.Retired[0].Routes["r"] = holdfast.Counts{Accepted: 9}
	out.Reset()
	printStatus(&out, st, nil)
	for _, want := range []string{"\nplan    modem lte: 426.5 MB of 500.0 MB used (85 %) since 2026-11-01; the low lane waits; the next begins on 2026-12-01\n", "WARNING of data plan modem lte 85 % are used: the low lane waits until 2026-12-01", "WARNING nothing is stored", "no space left on device", "WARNING 4 messages could not be read", "WARNING the books do not balance: 16 taken, 7 accounted for"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}
