package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const unitFile = "../../../scripts/package/holdfast.service"

// systemd itself must like the unit of the package, and find it well locked up.
func TestTheUnitIsCleanAndHardened(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	unit, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	// The program and its manual are where this test has them, not installed.
	text := strings.NewReplacer("/usr/bin/holdfast", binary, "man:holdfast(1) ", "").Replace(string(unit))
	file := filepath.Join(t.TempDir(), "holdfast.service")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	// The threshold is ten times the exposure.
	if out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=20", file).CombinedOutput(); err != nil {
		t.Errorf("security: %v\n%s", err, out)
	}
}

func TestTheConfigurationOfThePackageIsGood(t *testing.T) {
	out, err := exec.Command(binary, "check", "-c", "../../../scripts/package/gateway.toml").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"/var/lib/holdfast", "127.0.0.1:1883", "without a password: loopback"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}
