package configs

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestFaults compares every word that is said about the files in testdata.
func TestFaults(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.toml")
	if len(files) == 0 {
		t.Fatal("no files in testdata")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, warnings, err := load(filepath.Base(file), []byte(sample(t, file)), false, outside{
				lookupEnv: func(string) (string, bool) { return "", false },
				readSecret: func(path string) (string, bool, error) {
					return "", false, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
				},
			})
			if err == nil {
				t.Fatal("no fault was found")
			}
			got := err.Error() + "\n"
			for _, w := range warnings {
				got += "warning: " + w + "\n"
			}
			golden := strings.TrimSuffix(file, ".toml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := sample(t, golden); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestThreeMistakesHaveThreeLines(t *testing.T) {
	_, _, err := loadText(t, "[limits]\nmax_conections = 10\nconnect_timeout = 5\n\n[log]\nlevel = \"loud\"\n", nil)
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != 3 {
		t.Fatalf("want three faults, got %v", err)
	}
	for i, line := range []int{2, 3, 6} {
		if faults[i].Line != line || faults[i].File != "test.toml" {
			t.Errorf("fault %d is at %s:%d, want line %d", i, faults[i].File, faults[i].Line, line)
		}
	}
}

func TestLoadTakesValues(t *testing.T) {
	c := mustLoad(t, "\xef\xbb\xbf"+`
limits = { max_connections = 0x10, max_packet_size = 1_024, connect_timeout = "1m30s" }
storage.max_bytes = "1.5 GiB"
listener = [{ address = "[::1]:1883" }, { address = "localhost:1884" }]
[console]
address = ""
`)
	if c.Limits.MaxConnections != 16 || c.Limits.MaxPacketSize != KiB || c.Limits.ConnectTimeout != 90*time.Second {
		t.Errorf("limits: %+v", c.Limits)
	}
	if c.Storage.MaxBytes != 3*GiB/2 || c.Console.Address != "" {
		t.Errorf("storage %v, console %q", c.Storage.MaxBytes, c.Console.Address)
	}
	if len(c.Listeners) != 2 || c.Listeners[1].Address != "localhost:1884" || c.Listeners[1].Transport != TransportTCP {
		t.Errorf("listeners: %+v", c.Listeners)
	}
}

// TestAQueueIsNotLargerThanTheStore: a bound that is left out is never more than
// there is, which on a 32-bit board is less than the default.
func TestAQueueIsNotLargerThanTheStore(t *testing.T) {
	const bridge = "[[bridge]]\nname = %q\n[bridge.queue]\n%s\n[[bridge.upstream]]\nurl = \"tcp://h\"\n[[bridge.route]]\ndirection = \"out\"\ntopic = \"a/#\"\n"
	for _, x := range []struct {
		store  string
		queues []string
		want   []Size
	}{
		{"4GiB", []string{"", ""}, []Size{GiB, GiB}},
		{"512MiB", []string{""}, []Size{512 * MiB}},
		{"512MiB", []string{"max_bytes = \"112MiB\"", ""}, []Size{112 * MiB, 512 * MiB}},
		{"512MiB", []string{"max_bytes = \"1GiB\""}, []Size{GiB}},
	} {
		text := fmt.Sprintf("[storage]\nmax_bytes = %q\n", x.store)
		for i, q := range x.queues {
			text += fmt.Sprintf(bridge, fmt.Sprint("b", i), q)
		}
		c, warnings, err := loadText(t, text, nil)
		if err != nil {
			t.Fatal(err)
		}
		written := Size(0)
		for i, b := range c.Bridges {
			if b.Queue.MaxBytes != x.want[i] {
				t.Errorf("%+v: bridge %d has %v", x, i, b.Queue.MaxBytes)
			}
			if x.queues[i] != "" {
				written += b.Queue.MaxBytes
			}
		}
		if said := strings.Contains(fmt.Sprint(warnings), "storage.max_bytes"); said != (written > c.Storage.MaxBytes) {
			t.Errorf("%+v: warnings %q", x, warnings)
		}
	}
}

// TestABoundIsRaisedWithTheOneThatItMustHold has a file from before the one of the
// two keys was there: the gateway must start with it.
func TestABoundIsRaisedWithTheOneThatItMustHold(t *testing.T) {
	for text, want := range map[string]int{
		"limits.max_retained_messages = 500000":                                      500_000,
		"limits.max_retained_messages = 1000":                                        Default().Limits.MaxRetainedWaiting,
		"limits = { max_retained_messages = 500000, max_retained_waiting = 500001 }": 500_001,
	} {
		c := mustLoad(t, text)
		if c.Limits.MaxRetainedWaiting != want {
			t.Errorf("%s: %d, want %d", text, c.Limits.MaxRetainedWaiting, want)
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	_, _, err := loadText(t, "[limits]\nmax_retained_messages = 500000\nmax_retained_waiting = 499999", nil)
	if err == nil || !strings.Contains(err.Error(), "test.toml:3: limits.max_retained_waiting: 499999 are too few") {
		t.Errorf("both are written: %v", err)
	}
	c := Default()
	c.Limits.MaxRetained = 500_000
	if err := c.Validate(); err == nil {
		t.Error("a program has written both")
	}
}

func TestRoutesAreNamedAfterDirectionAndTopic(t *testing.T) {
	c := mustLoad(t, sample(t, "minimal.toml"))
	if got := c.Bridges[0].Routes[0].Name; got != "out sensors/#" {
		t.Errorf("name %q", got)
	}
}

func TestFilesThatAreNoConfiguration(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct{ path, want string }{
		"missing":   {filepath.Join(dir, "none.toml"), "there is no such file; check the path after -c"},
		"a folder":  {dir, "is a folder; give the file in it"},
		"too large": {write("large", strings.Repeat("#", MaxFile+1)), "is larger than 1MiB; this is no configuration"},
		"UTF-16":    {write("utf16", "\xff\xfe[\x00l\x00o\x00g\x00]\x00"), "the file is not UTF-8 text; save it as UTF-8"},
		"binary":    {write("binary", "[log]\n\x00\xff"), ":2: the file is not UTF-8 text; save it as UTF-8"},
	} {
		_, _, err := Load(c.path)
		var faults Faults
		if !errors.As(err, &faults) || !strings.HasPrefix(err.Error(), c.path+":") || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

// TestHostileFilesAreReadQuickly has the shapes for which readers of TOML take
// time in the square of the size, or more stack than there is.
func TestHostileFilesAreReadQuickly(t *testing.T) {
	const size = MaxFile - 64
	for name, text := range map[string]string{
		"brackets":      "x = " + strings.Repeat("[", size),
		"inline tables": "x = " + strings.Repeat("{a=", size/3),
		"dotted key":    strings.Repeat("a.", size/2) + "a = 1",
		"dotted header": "[" + strings.Repeat("a.", size/2) + "a]",
		"long key":      strings.Repeat("a", size) + " = 1",
		"many tables":   strings.Repeat("[[bridge]]\n[bridge.queue]\n", 4000),
		"many keys":     strings.Repeat("a\n", size/2),
		"many unknown":  "[limits]\n" + strings.Repeat("[[max_conections]]\n", size/19),
	} {
		began := time.Now()
		done := make(chan error, 1)
		go func() { _, _, err := loadText(t, text, nil); done <- err }()
		select {
		case err := <-done:
			t.Logf("%s: %v", name, time.Since(began))
			if err == nil {
				t.Errorf("%s: no fault was found", name)
			} else if len(err.Error()) > 64<<10 {
				t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: not done after a minute", name)
		}
	}
}
