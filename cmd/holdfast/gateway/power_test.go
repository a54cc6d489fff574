package gateway

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestThePowerCommandIsRunWithTheModemsName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "said")
	if err := powerCommand("lte", `printf %s "$HOLDFAST_MODEM" > `+file)(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "lte" {
		t.Errorf("it said %q, %v", got, err)
	}
	err := powerCommand("lte", "echo no such relay; exit 3")(context.Background())
	if err == nil || !strings.Contains(err.Error(), "no such relay") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a failure gave %v", err)
	}
}
