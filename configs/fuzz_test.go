package configs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// FuzzLoad feeds any bytes to Load. It must not panic, must place every fault
// in a line that exists, and must never take what the TOML library refuses.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"*.toml", "testdata/*.toml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			f.Add([]byte(sample(f, file)))
		}
	}
	f.Add([]byte(uncommented(f)))
	f.Add([]byte("[[bridge]]\nupstream = [{url='tcp://h'}, 1]\nroute.a.\"\" = {}\n[bridge.queue.x]"))
	world := outside{
		lookupEnv:  func(name string) (string, bool) { return "value", len(name)%2 == 0 },
		readSecret: func(string) (string, bool, error) { return "", false, os.ErrNotExist },
		readPEM:    func(string) (string, bool, error) { return "", false, os.ErrNotExist },
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := load("fuzz.toml", data, true, world)
		if err == nil {
			var all map[string]any
			if err := toml.Unmarshal([]byte(strings.TrimPrefix(string(data), "\xef\xbb\xbf")), &all); err != nil {
				t.Fatalf("taken, but %v", err)
			}
			if err := c.Validate(); err != nil {
				t.Fatalf("loaded, but %v", err)
			}
			_ = c.Resolve(Identity{ID: "id"})
			return
		}
		var faults Faults
		if !errors.As(err, &faults) || len(faults) == 0 {
			t.Fatalf("not faults: %v", err)
		}
		lines := strings.Count(string(data), "\n") + 1
		for _, fault := range faults {
			if fault.Line < 0 || fault.Line > lines || fault.Text == "" {
				t.Fatalf("%d lines, but %+v", lines, fault)
			}
			if strings.ContainsFunc(fault.Error(), func(r rune) bool { return r < ' ' }) {
				t.Fatalf("control characters reach the terminal: %q", fault.Error())
			}
		}
	})
}
