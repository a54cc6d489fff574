package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWhichGatewayIsMeantWithoutAFile(t *testing.T) {
	dir := t.TempDir()
	data, installed := filepath.Join(dir, "holdfast-data"), filepath.Join(dir, "gateway.toml")
	which := func(want string) {
		t.Helper()
		if got := whichConfig(os.Stat, data, installed); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	which("")
	if err := os.WriteFile(installed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	which(installed)
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	which("")
}
