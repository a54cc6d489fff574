package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestARunningGatewayHasMetrics(t *testing.T) {
	g := newHoldfast(t, "")
	g.start()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", g.socket)
		},
	}}
	get := func(path string) string {
		t.Helper()
		resp, err := client.Get("http://gateway" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %v\n%s", path, resp.Status, err, b)
		}
		return string(b)
	}
	for _, want := range []string{"holdfast_clients 0", "holdfast_storage_on_disk 1", "holdfast_storage_up 1", "holdfast_disk_free_bytes ", "process_resident_memory_bytes "} {
		if text := get("/metrics"); !strings.Contains(text, "\n"+want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := get(path); got != "ok\n" {
			t.Errorf("%s: %q", path, got)
		}
	}
}
