package gateway

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTLSGoesByTheLatestTimeThatIsKnownUntilTheClockIsSynchronised(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	for _, tc := range []struct {
		name                         string
		system, build, noted, module time.Time
		synchronised                 bool
		want                         time.Time
		source                       string
		trusted                      bool
	}{
		{"a board without a battery", time.Unix(0, 0), day(3), day(5), time.Time{}, false, day(5), "last run", false},
		{"and without a note", time.Unix(0, 0), day(3), time.Time{}, time.Time{}, false, day(3), "build", false},
		{"with a module in a network", time.Unix(0, 0), day(3), day(5), day(7), false, day(7), "module", true},
		{"whose network is wrong", time.Unix(0, 0), day(3), day(5), time.Unix(0, 0).AddDate(10, 0, 0), false, day(5), "last run", false},
		{"a battery that is still good", day(9), day(3), day(5), day(7), false, day(9), "system", false},
		{"a note that was wrong", day(9), day(3), day(25), day(7), true, day(9), "system", true},
	} {
		dir := t.TempDir()
		if !tc.noted.IsZero() {
			then := &clock{system: func() (time.Time, bool) { return tc.noted, true }, file: filepath.Join(dir, "clock")}
			if err := then.note(); err != nil {
				t.Fatal(err)
			}
		}
		c := newClock(dir, tc.build, func() (time.Time, bool) { return tc.module, !tc.module.IsZero() })
		c.system = func() (time.Time, bool) { return tc.system, tc.synchronised }
		c.started = time.Now()
		got := c.status()
		_, trusted := c.now()
		// Time goes on while the test runs.
		if got.Now.Before(tc.want) || got.Now.After(tc.want.Add(time.Hour)) || got.Source != tc.source || trusted != tc.trusted || got.Synchronised != tc.synchronised {
			t.Errorf("%s: %+v, trusted %v; want %v by %s, %v", tc.name, got, trusted, tc.want, tc.source, tc.trusted)
		}
	}
}

func TestATimeThatIsNotReliedOnIsNotNoted(t *testing.T) {
	dir := t.TempDir()
	c := newClock(dir, time.Time{}, nil)
	c.system = func() (time.Time, bool) { return time.Now(), false }
	if err := c.note(); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("%v, %v", files, err)
	}
}

func TestADamagedNoteOfTheTimeIsNoNote(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"", "junk", string(make([]byte, 1<<16)), "2026-11-05"} {
		if err := os.WriteFile(filepath.Join(dir, "clock"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := newClock(dir, time.Unix(1e9, 0), nil)
		if c.source != "build" {
			t.Errorf("%q was taken", text[:min(len(text), 20)])
		}
	}
}
