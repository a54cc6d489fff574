package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"holdfast/configs"
)

// startWith starts a gateway with what the configuration says besides where it is.
func startWith(t *testing.T, text string) (g *Gateway, load func(text string) *configs.Config) {
	t.Helper()
	dir := t.TempDir()
	load = func(text string) *configs.Config {
		t.Helper()
		file := filepath.Join(dir, "gateway.toml")
		whole := fmt.Sprintf("[gateway]\nid = \"gw\"\ndata_dir = %q\n[console]\naddress = \"\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n%s", dir, text)
		if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, _, err := configs.Load(file)
		if err == nil {
			err = cfg.Resolve(configs.Identity{ID: "gw"})
		}
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	g, err := Start(load(text), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return g, load
}

// bridgeTo is a bridge whose far broker nobody is.
func bridgeTo(name, more string) string {
	return fmt.Sprintf(`[[bridge]]
name = %q
  [bridge.queue]
  max_messages = 10
  [[bridge.upstream]]
  url = "tcp://127.0.0.1:1"
  %s
  [[bridge.route]]
  direction = "out"
  topic = "s/#"
`, name, more)
}

func TestAReloadThatIsRefusedLeavesAllAsItWas(t *testing.T) {
	t.Parallel()
	g, load := startWith(t, bridgeTo("one", ""))
	set := g.bridges.now()
	names := g.store.Names()
	newModem := load("[[modem]]\nname = \"lte\"\nport = \"/dev/ttyNone\"\n" + bridgeTo("new", "") + bridgeTo("two", "via = \"lte\""))
	badUser := load(bridgeTo("new", ""))
	badUser.Access.Users = []configs.User{{Name: "a"}, {Name: "a"}}
	for what, cfg := range map[string]*configs.Config{"a new modem": newModem, "two users of a name": badUser} {
		if err := g.Reload(t.Context(), cfg); err == nil {
			t.Errorf("%s: taken over", what)
		}
		if now := g.store.Names(); !slices.Equal(now, names) {
			t.Errorf("%s: the queues are %q, not %q", what, now, names)
		}
		if g.bridges.now() != set {
			t.Errorf("%s: other bridges", what)
		}
	}
}

// TestAReloadWaitsForNoBridgeWhenTheGatewayStops: one through a module may take a
// minute to end.
func TestAReloadWaitsForNoBridgeWhenTheGatewayStops(t *testing.T) {
	t.Parallel()
	g, load := startWith(t, "")
	other := load(bridgeTo("other", ""))
	b, err := g.makeBridge(other.Bridges[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, terminate := context.WithCancel(t.Context())
	b.stop, b.ended = terminate, make(chan struct{}) // never closed
	g.bridges.p.Store(&bridgeSet{parts: []*bridgePart{b}})
	if err := g.Reload(ctx, load("")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
