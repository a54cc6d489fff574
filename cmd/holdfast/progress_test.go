package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
)

func TestProgressIsABarOnATerminalAndLinesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bar, lines bytes.Buffer
		b, l := newProgress(&bar, "exported", 10), newProgress(&lines, "exported", 10)
		b.terminal = true
		for n := range int64(10) {
			b.at(n)
			l.at(n)
			time.Sleep(time.Second)
		}
		b.end(10)
		l.end(10)
		if s := bar.String(); strings.Count(s, "\r") != 10 || !strings.HasSuffix(s, "\r["+strings.Repeat("#", 30)+"] exported 10 of 10, 100 %\x1b[K\n") {
			t.Errorf("%q", s)
		}
		if s := lines.String(); s != "exported 5 of 10, 50 %\nexported 10 of 10, 100 %\n" {
			t.Errorf("%q", s)
		}
	})
}

func TestASafeFileIsThereWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	f, err := newSafeFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("a"))
	f.giveUp()
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v", left)
	}
	if f, err = newSafeFile(path); err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("b"))
	if _, err := os.Lstat(path); err == nil {
		t.Error("it is there before it is safe")
	}
	other, err := newSafeFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.finish(); err != nil {
		t.Fatal(err)
	}
	f.giveUp()
	if err := other.finish(); err == nil {
		t.Error("it was replaced")
	}
	other.giveUp()
	if b, err := os.ReadFile(path); string(b) != "b" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%v", left)
	}
	if _, err := newSafeFile(path); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Error(err)
	}
	if _, err := newSafeFile(filepath.Join(dir, "none", "f")); err == nil {
		t.Error("there is no such folder")
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			return
		}
		if cmd.Short == "" || !strings.Contains(cmd.Example, cmd.CommandPath()) {
			t.Errorf("%s has no short description or no example of its own", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			look(c)
		}
	}
	for _, c := range newRootCommand().Commands() {
		look(c)
	}
}
