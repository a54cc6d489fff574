package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExplainTellsWhatTheBridgesWouldDo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.toml")
	text := `gateway.id = "7"
[[bridge]]
name = "cloud"
[[bridge.upstream]]
url = "ssl://broker.example"
data_plan = "100MB"
[[bridge.route]]
name = "alarms"
direction = "out"
topic = "alarm/#"
remote_prefix = "site/{id}/"
priority = "high"
sample = "1m"
on_change = true
stamp = true
[[bridge.route]]
direction = "out"
topic = "raw/#"
encoding = "base64-always"
[[bridge.route]]
direction = "out"
topic = "#"
[[bridge]]
name = "other"
[[bridge.upstream]]
url = "tcp://other.example"
[[bridge.route]]
direction = "in"
topic = "#"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := call(t, "explain", "-c", file, "alarm/a", "--size", "100", "--every", "10s")
	const want = `alarm/a
  bridge cloud: by route "alarms" to site/7/alarm/a, QoS 1, RETAIN as published, high priority
    at most one in 1m0s, the newest
    only if its payload is not that of the one before
    in JSON with time and sequence number
    about 324 bytes on the link for each; at one every 1m0s 14.0 MB a month, 14.0 % of the data plan
    route "out #" would match too, but the first has it
  bridge other: no route takes it
`
	if code != 0 || stdout != want {
		t.Errorf("exit %d, %s\n%s\nwant\n%s", code, stderr, stdout, want)
	}
	_, stdout, _ = call(t, "explain", "-c", file, "raw/a", "--size", "100")
	const coded = `  bridge cloud: by route "out raw/#" to raw/a, QoS 1, RETAIN as published, normal priority
    its payload in base64
    about 352 bytes on the link for each`
	if !strings.Contains(stdout, coded) {
		t.Errorf("%s\nwithout\n%s", stdout, coded)
	}
	for _, args := range [][]string{{"explain"}, {"explain", "a/#"}, {"explain", "a", "--size", "-1"}, {"explain", "a", "b"}} {
		if code, _, stderr := call(t, args...); code != 2 || !strings.HasPrefix(stderr, "holdfast: ") {
			t.Errorf("holdfast %q: exit %d, %q", args, code, stderr)
		}
	}
}
