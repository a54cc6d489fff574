package storage

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A full disk fails every merge twenty times a second.
func TestBadgersComplaintsAreNotRepeatedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := &badgerLogger{log: slog.New(slog.NewTextHandler(&out, nil))}
		for range 20 * 600 { // ten minutes
			l.Warningf("While running doCompact: %v", strings.Repeat("no space left ", 1000))
			l.Errorf("another: %d", 1)
			time.Sleep(50 * time.Millisecond)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 20 {
			t.Errorf("%d lines", len(lines))
		}
		if out.Len() > 20*(maxLine+200) {
			t.Errorf("%d bytes", out.Len())
		}
		if last := lines[len(lines)-1]; !strings.Contains(last, "repeated=1199") {
			t.Error(last)
		}
	})
}
