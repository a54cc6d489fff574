package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"holdfast/storage"
)

// call runs one command line as main does.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	err := run(context.Background(), args, &out, &errs)
	if err != nil {
		printError(&errs, err)
	}
	return exitCode(err), out.String(), errs.String()
}

func TestCommandLinesThatMakeNoSense(t *testing.T) {
	for _, args := range [][]string{
		{"chekc"},
		{"check"},
		{"check", "--colour"},
		{"check", "-c"},
		{"check", "-c", "a", "b"},
		{"version", "now"},
	} {
		code, stdout, stderr := call(t, args...)
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "holdfast: ") || strings.Count(stderr, "holdfast: ") != 1 {
			t.Errorf("holdfast %q: exit %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

func TestHelpNamesEveryCommand(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}, {"help"}} {
		code, stdout, stderr := call(t, args...)
		if code != 0 || stderr != "" || !strings.Contains(stdout, "  check ") || !strings.Contains(stdout, "Examples:") {
			t.Errorf("holdfast %q: exit %d, %q, %q", args, code, stdout, stderr)
		}
	}
	for _, cmd := range newRootCommand().Commands() {
		if cmd.Short == "" || (cmd.Example == "" && !cmd.Hidden) {
			t.Errorf("%s has no short description or example", cmd.Name())
		}
	}
}

func TestCheckTellsWhatTheGatewayWouldDo(t *testing.T) {
	t.Setenv("CLOUD_PASSWORD", "hunter2")
	code, stdout, stderr := call(t, "check", "-c", "../../configs/modem.toml")
	const want = `../../configs/modem.toml: ok
  data        ./holdfast-data, at most 4GiB
  sync        always: a message is written before it is acknowledged
  listener    :1883 (tcp), without a password: always
  console     http://127.0.0.1:8080
  modem       lte on /dev/ttyUSB2, 115200 baud
  bridge      cloud as holdfast-{id}-{bridge}, up to 1GiB on disk, then refuse
    upstream  broker.example.com:1883
    upstream  broker.example.com:1883 through modem lte
    route     alarms/# -> site/{id}/alarms/#, QoS 1, high priority
    route     sensors/# -> site/{id}/sensors/#, QoS 1, normal priority
    route     commands/# <- site/{id}/commands/#, QoS 1, normal priority
`
	if code != 0 || stdout != want {
		t.Errorf("exit %d\n%s\nwant\n%s", code, stdout, want)
	}
	if !strings.HasPrefix(stderr, "warning: ../../configs/modem.toml:44: bridge.route.direction: ") || strings.Contains(stdout+stderr, "hunter2") {
		t.Errorf("stderr: %s", stderr)
	}
}

func TestCheckTellsEveryFault(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.toml")
	text := "[limits]\nmax_conections = 10\n\n[log]\nlevel = \"loud\"\n\n[[bridge]]\nname = 5\n" +
		"[[bridge.upstream]]\nurl = \"tcp://h\"\n[[bridge.route]]\ndirection = \"out\"\ntopic = \"#\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := call(t, "check", "-c", file)
	want := file + ":2: limits.max_conections: there is no such key; did you mean max_connections?\n" +
		file + `:5: log.level: "loud" is not one of: debug, info, warn, error; write one of them` + "\n" +
		file + ":8: bridge.name: a whole number is not a string; put it in quotes\n" +
		"holdfast: 3 faults to correct in the configuration\n"
	if code != 2 || stdout != "" || stderr != want {
		t.Errorf("exit %d, %q\n%s\nwant\n%s", code, stdout, stderr, want)
	}
	if code, _, stderr := call(t, "check", "-c", file+".not"); code != 2 || !strings.Contains(stderr, "there is no such file") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestVersion(t *testing.T) {
	code, stdout, _ := call(t, "version")
	if told := strings.Contains(stdout, storage.Uncorrected); code != 0 || told == storage.Corrected() || !strings.HasPrefix(stdout, "holdfast ") || !strings.Contains(stdout, "(go1.") {
		t.Errorf("exit %d, %q", code, stdout)
	}
	settings := []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}}
	for _, c := range []struct {
		linked string
		info   *debug.BuildInfo
		want   string
	}{
		{"v1.2.3", nil, "v1.2.3"},
		{"", nil, "unknown"},
		{"", &debug.BuildInfo{Main: debug.Module{Version: "v0.1.0"}}, "v0.1.0"},
		{"", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: settings}, "commit 0123456789ab with changes"},
		{"", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "unknown"},
	} {
		if got := buildVersion(c.linked, c.info); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
