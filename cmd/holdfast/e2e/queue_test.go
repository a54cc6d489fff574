package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/cmd/holdfast/queues"
	"holdfast/edge/packet"
	"holdfast/storage"
)

// said is what a command has said.
type said struct {
	code        int
	out, errors string
}

// holdfastCommand runs the program to its end.
func holdfastCommand(t testing.TB, stdin string, args ...string) said {
	t.Helper()
	cmd := exec.Command(binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return said{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// queue runs a queue command on the gateway's configuration.
func (g *holdfast) queue(args ...string) said {
	g.t.Helper()
	return holdfastCommand(g.t, "", append(append([]string{"queue"}, args...), "-c", g.file())...)
}

func (g *holdfast) file() string { return filepath.Join(g.dir, "gateway.toml") }

// must runs a queue command that has to succeed.
func (g *holdfast) must(args ...string) said {
	g.t.Helper()
	s := g.queue(args...)
	if s.code != 0 {
		g.t.Fatalf("queue %q: exit %d\n%s%s", args, s.code, s.out, s.errors)
	}
	return s
}

func (g *holdfast) list() map[string]queues.Info {
	g.t.Helper()
	var list []queues.Info
	if err := json.Unmarshal([]byte(g.must("ls", "--json").out), &list); err != nil {
		g.t.Fatal(err)
	}
	byName := map[string]queues.Info{}
	for _, q := range list {
		byName[q.Queue] = q
	}
	return byName
}

// payloads reads a file of an export.
func payloads(t *testing.T, path string) (list []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := queues.NewReader(f); ; {
		l, err := r.Next()
		if err != nil {
			return list
		}
		list = append(list, string(l.Msg.Payload))
	}
}

// numbers are the payloads that publishAll makes.
func numbers(name string, from, to int) (list []string) {
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprintf("%s/%d", name, i))
	}
	return list
}

func (s said) has(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(s.out+s.errors, w) {
			t.Errorf("%q is missing in (exit %d)\n%s%s", w, s.code, s.out, s.errors)
		}
	}
}

// inAnOutage makes a gateway whose bridge has n messages and no way out.
func inAnOutage(t *testing.T, n int) *holdfast {
	t.Helper()
	g := newHoldfast(t, fmt.Sprintf(outRoute, freePort(t)))
	g.start()
	c := connect(t, g.address, packet.Connect{ClientID: "p", CleanStart: true})
	publishAll(t, c, "p", "s/p", n, 200)
	if err := c.Disconnect(); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestABacklogIsCarriedAwayAndDeliveredByAnotherGateway(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("running %v", running), func(t *testing.T) {
			const n = 3000
			g := inAnOutage(t, n)
			how := "on the running gateway"
			if !running {
				g.end(syscall.SIGTERM)
				how = "on the data folder"
			}
			g.must("ls").has(t, how, "cloud  3000 ")
			s := g.must("peek", "cloud", "-n", "2")
			s.has(t, "gw/s/p", "normal  2 ")
			if strings.Contains(s.out, "p/1") || strings.Count(s.out, "\n") != 3 {
				t.Errorf("payloads are shown, or not two messages:\n%s", s.out)
			}
			g.must("peek", "cloud", "--payload", "--lane", "normal").has(t, `"p/9"`)
			copied := g.must("export", "cloud", "-o", "-", "--keep")
			file := filepath.Join(t.TempDir(), "backlog.ndjson")
			g.must("export", "cloud", "-o", file).has(t, "exported 3000 messages")
			if b, _ := os.ReadFile(file); string(b) != copied.out {
				t.Error("the copy and the export differ")
			}
			if s := g.queue("export", "cloud", "-o", file); s.code != 1 {
				t.Errorf("a file was overwritten: %+v", s)
			}
			if d := g.list()["cloud"].Depth; d != 0 {
				t.Errorf("%d are in the queue still", d)
			}
			if !running {
				g.start()
			}
			st, err := g.status()
			if err != nil {
				t.Fatal(err)
			}
			if c := st.Books(); c.Accepted != n || c.Exported != n || !c.Balanced() {
				t.Errorf("%+v", c)
			}

			// The visitor brings it to a gateway with a link.
			up := newMosquitto(t)
			gate := newGate(t, up.address)
			other := newHoldfast(t, fmt.Sprintf(outRoute, gate.address()))
			if s := other.queue("ls"); s.code != 1 || !strings.Contains(s.errors, "there is no store in") {
				t.Errorf("a store is made by a gateway, not by a look at it: %+v", s)
			}
			other.start()
			if !running {
				other.end(syscall.SIGTERM)
			}
			other.must("import", "cloud", file).has(t, "imported 3000 messages")
			again := other.must("export", "cloud", "-o", "-", "--keep")
			if again.out != copied.out {
				t.Error("what was imported differs from what was exported")
			}
			if !running {
				other.start()
			}
			up.start()
			k := newCollector(t)
			k.attach(up.address, "gw/#")
			gate.shut.Store(false)
			k.check(n, "p")
			eventually(t, "the backlog has drained", func() bool { return other.bridge().Queued == 0 }, other.tail)
			st, err = other.status()
			if err != nil {
				t.Fatal(err)
			}
			if c := st.Books(); c.Imported != n || c.Delivered != n || c.Accepted != 0 || !c.Balanced() {
				t.Errorf("%+v", c)
			}
		})
	}
}

// The end of either side, at any moment of an export, leaves each message in the
// queue or in the finished file.
func TestKillDuringAnExportLosesNothing(t *testing.T) {
	t.Parallel()
	const n = 20000
	g := inAnOutage(t, n)
	want := numbers("p", 0, n)
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	finished := 0
	for round := range rounds {
		dir := t.TempDir()
		file := filepath.Join(dir, "backlog")
		cmd := exec.Command(binary, "queue", "export", "cloud", "-o", file, "-c", g.file())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		// Later and later: from the first bytes of the file to its last.
		target := int64(round * n * 140 / rounds)
		var early error
		eventually(t, "the export is on its way", func() bool {
			select {
			case early = <-ended:
				ended <- early
				return true
			default:
			}
			parts, _ := filepath.Glob(file + "*")
			for _, p := range parts {
				if info, err := os.Stat(p); err == nil && info.Size() > target {
					return true
				}
			}
			return false
		})
		if round%2 == 0 {
			g.end(syscall.SIGKILL)
			<-ended
			g.start()
		} else {
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			<-ended
		}
		// A hold of a client that is gone ends when its connection does.
		var rest said
		eventually(t, "the queue is free", func() bool {
			q := g.list()["cloud"]
			return q.Busy == ""
		})
		restFile := filepath.Join(dir, "rest")
		rest = g.must("export", "cloud", "--keep", "-o", restFile)
		rest.has(t, "still in the queue")
		have := map[string]bool{}
		for _, p := range payloads(t, restFile) {
			have[p] = true
		}
		inQueue := len(have)
		if _, err := os.Stat(file); err == nil {
			for _, p := range payloads(t, file) {
				have[p] = true
			}
		}
		for _, p := range want {
			if !have[p] {
				t.Fatalf("round %d: %s is lost; %d are in the queue", round, p, inQueue)
			}
		}
		if inQueue != n && inQueue != 0 {
			t.Fatalf("round %d: %d are in the queue: an export is all or nothing", round, inQueue)
		}
		if inQueue == 0 {
			finished++
			g.must("import", "cloud", file)
		}
	}
	st, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	if c := st.Books(); !c.Balanced() || c.Accepted != n || c.Imported != c.Exported || c.Queued != n {
		t.Errorf("%+v", c)
	}
	t.Logf("%d of %d exports came to their end", finished, rounds)
}

func TestAnImportIsStrictAndSaysHowFarItCame(t *testing.T) {
	g := newHoldfast(t, fmt.Sprintf(outRoute, freePort(t))+"  [bridge.queue]\n  max_messages = 30\n  when_full = \"refuse\"\n")
	g.start()
	line := func(i int) string { return fmt.Sprintf(`{"topic":"t","qos":1,"payload":"p/%d","route":"r"}`+"\n", i) }
	var good, bad strings.Builder
	for i := range 40 {
		good.WriteString(line(i))
		bad.WriteString(line(i))
		if i == 10 {
			bad.WriteString("{\"topic\":\"t\",\"qos\":7,\"payload\":\"x\"}\nnonsense\n\n")
		}
	}
	dir := t.TempDir()
	goodFile, badFile := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	if err := errors.Join(os.WriteFile(goodFile, []byte(good.String()), 0o600), os.WriteFile(badFile, []byte(bad.String()), 0o600)); err != nil {
		t.Fatal(err)
	}
	s := g.queue("import", "cloud", badFile)
	s.has(t, badFile+":12: qos is 7", badFile+":13: ", "nothing was imported", "--skip-bad")
	if d := g.list()["cloud"].Depth; s.code != 2 || d != 0 {
		t.Errorf("exit %d, %d in the queue", s.code, d)
	}
	s = holdfastCommand(t, bad.String(), "queue", "import", "cloud", "-", "--socket", g.socket)
	s.has(t, "-:12: qos is 7", "11 messages on disk, up to line 11", "--from-line 12")
	if d := g.list()["cloud"].Depth; s.code != 1 || d != 11 {
		t.Errorf("exit %d, %d in the queue", s.code, d)
	}
	g.must("purge", "cloud", "--yes").has(t, "dropped 11 messages")
	// There is room for 30 of 40: the batch that does not fit is not taken.
	s = g.queue("import", "cloud", badFile, "--skip-bad", "--from-line", "12")
	s.has(t, "imported 29 messages", badFile+":12: ", badFile+":13: ")
	if d := g.list()["cloud"].Depth; s.code != 0 || d != 29 {
		t.Errorf("exit %d, %d in the queue", s.code, d)
	}
	s = g.queue("import", "cloud", goodFile)
	s.has(t, "queue is full", "0 messages on disk, up to line 0")
	if s.code != 1 {
		t.Errorf("exit %d", s.code)
	}
	if s := g.queue("purge", "cloud"); s.code != 2 || !strings.Contains(s.errors, "--yes") {
		t.Errorf("%+v", s)
	}
	if s := g.queue("peek", "clodu"); s.code != 1 || !strings.Contains(s.errors, "there are: cloud") {
		t.Errorf("%+v", s)
	}
	if s := g.queue("import", "clodu", goodFile); s.code != 1 || !strings.Contains(s.errors, "there are: cloud") {
		t.Errorf("%+v", s)
	}
}

func TestQuarantineIsListedRetriedAndDropped(t *testing.T) {
	g := inAnOutage(t, 5)
	g.end(syscall.SIGTERM)
	store := filepath.Join(g.dir, "data", "store")
	s, err := storage.Open(storage.Options{Dir: store})
	if err != nil {
		t.Fatal(err)
	}
	q, err := s.Queue("bridge/cloud", storage.QueueOptions{Ledger: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		it, _, err := q.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		q.Quarantine(it.ID, "refused")
	}
	// While it is open nobody else works on it.
	g.queue("ls").has(t, "has the store in", "no gateway answers")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	g.must("quarantine", "ls", "cloud").has(t, "normal-1 ", "normal-3 ", "refused", "gw/s/p")
	g.start()
	g.must("quarantine", "retry", "cloud", "normal-2").has(t, "1 message is back in the queue")
	if s := g.queue("quarantine", "drop", "cloud", "normal-2", "--yes"); s.code != 1 || !strings.Contains(s.errors, "not in quarantine") {
		t.Errorf("%+v", s)
	}
	g.must("quarantine", "drop", "cloud", "normal-1", "--yes").has(t, "1 message is dropped")
	g.must("ls").has(t, "0/3/0            1")
	g.must("peek", "cloud", "--payload").has(t, `"p/1"`)
	g.must("quarantine", "retry", "cloud", "--all")
	st, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	c := st.Books()
	if !c.Balanced() || c.Accepted != 5 || c.Queued != 4 || c.Dropped["quarantined"] != 1 || len(c.Quarantined) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestARetiredBridgeKeepsItsBooksAndItsBacklog(t *testing.T) {
	g := inAnOutage(t, 20)
	g.end(syscall.SIGTERM)
	text, err := os.ReadFile(g.file())
	if err != nil {
		t.Fatal(err)
	}
	renamed := strings.Replace(string(text), `name = "cloud"`, `name = "other"`, 1)
	if err := os.WriteFile(g.file(), []byte(renamed), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, running := range []bool{false, true} {
		if running {
			g.start()
		}
		g.must("ls").has(t, "cloud  20 ", "no longer in the configuration")
	}
	holdfastCommand(t, "", "status", "-c", g.file()).has(t, "cloud: no longer in the configuration; queued 20", "books   20 accepted = 0 delivered + 20 queued", "storage 20 queued")
	g.must("purge", "cloud", "--yes")
	g.end(syscall.SIGKILL)
	g.start()
	st, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Retired) != 1 || st.Retired[0].Routes["all"].Dropped["purged"] != 20 || !st.Books().Balanced() {
		t.Errorf("%+v", st.Retired)
	}
}

func TestPublishAndSubscribeFromTheCommandLine(t *testing.T) {
	g := newHoldfast(t, "")
	g.start()
	_, port, _ := strings.Cut(g.address, ":")
	file := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(file, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, qos := range []string{"0", "1", "2"} {
		if s := holdfastCommand(t, "", "pub", "-p", port, "-t", "x/"+qos, "-q", qos, "-r", "-m", "kept "+qos); s.code != 0 {
			t.Fatalf("%+v", s)
		}
	}
	holdfastCommand(t, "", "pub", "-p", port, "-t", "x/f", "-q", "1", "-r", "-f", file)
	holdfastCommand(t, "from standard input", "pub", "-p", port, "-t", "x/s", "-q", "1", "-r")
	s := holdfastCommand(t, "", "sub", "-p", port, "-t", "x/#", "-q", "2", "-C", "5")
	s.has(t, "x/0 kept 0\n", "x/1 kept 1\n", "x/2 kept 2\n", "x/f from a file\n", "x/s from standard input\n")
	if s.code != 0 || strings.Count(s.out, "\n") != 5 {
		t.Errorf("%+v", s)
	}
	g.end(syscall.SIGTERM)
	for _, args := range [][]string{{"pub", "-m", "x"}, {"pub", "-t", "x", "-q", "3"}, {"sub"}} {
		if s := holdfastCommand(t, "", args...); s.code != 2 {
			t.Errorf("%q: %+v", args, s)
		}
	}
	if s := holdfastCommand(t, "", "pub", "-p", port, "-t", "x", "-m", "x"); s.code != 1 || !strings.Contains(s.errors, "is the broker running") {
		t.Errorf("%+v", s)
	}
	if s := holdfastCommand(t, "", "queue", "ls", "--socket", g.socket); s.code != 1 || !strings.Contains(s.errors, "no gateway answers") {
		t.Errorf("%+v", s)
	}
}
