package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// The long form is "make crash".
func TestNothingAcknowledgedIsLostWhenTheGatewayIsKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(binary, "crash", "--rounds", "8", "--kill-max", "700ms", "--dir", t.TempDir()).CombinedOutput()
	if err != nil {
		t.Errorf("%v", err)
	}
	t.Logf("%s", out)
}

func TestKillLoopFailsIfAcknowledgedIsNotSafe(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(binary, "crash", "--rounds", "3", "--seed", "1", "--kill-max", "500ms",
		"--early-ack", "--patience", "1s", "--dir", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "acknowledged") || !strings.Contains(string(out), "the promise was broken") {
		t.Errorf("a proxy has acknowledged before the gateway: %v\n%s", err, out)
	}
}
