package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pages are those that users read.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("../../../docs/*.md")
	if err != nil || len(names) < 5 {
		t.Fatal(names, err)
	}
	all := map[string]string{}
	for _, name := range append(names, "../../../README.md") {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(name)] = string(b)
	}
	return all
}

// Every configuration that is shown must be one that the gateway takes.
func TestConfigurationsInTheDocsAreGood(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```toml\n(.*?)^```")
	n := 0
	for page, text := range pages(t) {
		for _, m := range block.FindAllStringSubmatch(text, -1) {
			n++
			file := filepath.Join(t.TempDir(), "gateway.toml")
			if err := os.WriteFile(file, []byte(m[1]), 0o600); err != nil {
				t.Fatal(err)
			}
			if s := holdfastCommand(t, "", "check", "-c", file); s.code != 0 {
				t.Errorf("%s:\n%s%s", page, m[1], s.errors)
			}
		}
	}
	if n < 5 {
		t.Errorf("only %d configurations were found", n)
	}
}

// shown is a command of ours in a block of code or between backticks.
var shown = regexp.MustCompile("(?m)(?:^ {4}|`)((?:sudo )?(?:\\./build/)?holdfast [a-z][^`\n]*)")

// words splits a command line as a shell does, for what the docs have in them.
func words(line string) (list []string) {
	for _, m := range regexp.MustCompile(`'([^']*)'|(\S+)`).FindAllStringSubmatch(line, -1) {
		if m[2] == "#" {
			break // a comment; a topic of this name is in quotes
		}
		list = append(list, m[1]+m[2])
	}
	return list
}

// Every command that is shown must be one that the program has, with flags that
// it knows: with --help behind it, it is read and not done.
func TestCommandsInTheDocsAreKnown(t *testing.T) {
	n := 0
	for page, text := range pages(t) {
		for _, m := range shown.FindAllStringSubmatch(text, -1) {
			line := words(strings.TrimPrefix(m[1], "sudo "))
			n++
			s := holdfastCommand(t, "", append(line[1:], "--help")...)
			if s.code != 0 || !strings.Contains(s.out, "Usage:\n  holdfast "+line[1]) {
				t.Errorf("%s: %s\n%d %s%s", page, m[1], s.code, s.out, s.errors)
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d commands were found", n)
	}
	if s := holdfastCommand(t, "", "status", "--no-such-flag", "--help"); s.code != 2 {
		t.Errorf("this test would not notice a wrong flag: %d", s.code)
	}
}

// A newcomer's first minutes, as in the README: init, check, run, pub, status.
func TestTheFirstMinutes(t *testing.T) {
	g := newHoldfast(t, "")
	file := filepath.Join(t.TempDir(), "gateway.toml")
	if s := holdfastCommand(t, "barn-7\nno\n\n", "init", "-c", file); s.code != 0 || !strings.Contains(s.out, "gateway.toml: ok") {
		t.Fatal(s)
	}
	g.start()
	_, port, _ := strings.Cut(g.address, ":")
	if s := holdfastCommand(t, "", "pub", "-p", port, "-t", "sensors/1", "-m", "21.5", "-q", "1"); s.code != 0 {
		t.Fatal(s)
	}
	g.leadsTo("1 messages in")
	if s := holdfastCommand(t, "", "queue", "ls", "-c", g.file()); s.code != 0 {
		t.Fatal(s)
	}
}
