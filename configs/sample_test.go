package configs

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// loadText loads a configuration that is in no file, with an environment of
// its own and no other files.
func loadText(t testing.TB, text string, env map[string]string) (*Config, []string, error) {
	t.Helper()
	return load("test.toml", []byte(text), false, outside{
		lookupEnv:  func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		readSecret: func(string) (string, bool, error) { return "", false, os.ErrNotExist },
		readPEM:    func(string) (string, bool, error) { return "", false, os.ErrNotExist },
	})
}

func mustLoad(t testing.TB, text string) *Config {
	t.Helper()
	c, _, err := loadText(t, text, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sample(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// uncommented takes the "#" from every line of the sample that is TOML.
func uncommented(t testing.TB) string {
	t.Helper()
	return regexp.MustCompile(`(?m)^#([a-z0-9_]+ = |\[)`).ReplaceAllString(sample(t, "gateway.toml"), "$1")
}

func TestGatewaySampleIsDefault(t *testing.T) {
	c := mustLoad(t, sample(t, "gateway.toml"))
	c.source = nil
	want := Default()
	if strconv.IntSize == 32 {
		// The sample has the default of boards with 64 bits, and says so.
		want.Storage.MaxBytes = c.Storage.MaxBytes
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("gateway.toml says\n%+v, the default is\n%+v", c, want)
	}
}

func TestDefaultIsValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	if c := mustLoad(t, ""); !reflect.DeepEqual(c.Listeners, Default().Listeners) {
		t.Errorf("an empty file has listeners %v", c.Listeners)
	}
}

func TestGatewaySampleHasEveryKey(t *testing.T) {
	c := mustLoad(t, uncommented(t))
	schema(reflect.TypeFor[Config](), "", func(table string, f reflect.StructField) {
		key := join(strings.Trim(table, "[]"), f.Tag.Get("toml"))
		for path := range c.source.lines {
			if keyOf(path) == key {
				return
			}
		}
		t.Errorf("gateway.toml does not explain %s", key)
	})
}

// TestGatewaySampleShowsDefaultsOfLists compares the commented elements of
// lists with those that an element starts from.
func TestGatewaySampleShowsDefaultsOfLists(t *testing.T) {
	c := mustLoad(t, uncommented(t))
	var m Modem
	m.setDefaults()
	m.Name, m.Port = c.Modems[0].Name, c.Modems[0].Port
	var u User
	u.setDefaults()
	u.Name = c.Access.Users[0].Name
	if !reflect.DeepEqual(c.Access.Users[0], u) {
		t.Errorf("user: gateway.toml says\n%+v, the default is\n%+v", c.Access.Users[0], u)
	}
	var b Bridge
	b.setDefaults()
	b.Name = c.Bridges[0].Name
	b.Upstreams, b.Routes = c.Bridges[0].Upstreams, c.Bridges[0].Routes
	var r Route
	r.setDefaults()
	shown := b.Routes[0]
	r.Name, r.Direction, r.Topic = shown.Name, shown.Direction, shown.Topic
	if !reflect.DeepEqual(c.Modems[0], m) {
		t.Errorf("modem: gateway.toml says\n%+v, the default is\n%+v", c.Modems[0], m)
	}
	if !reflect.DeepEqual(c.Bridges[0], b) {
		t.Errorf("bridge: gateway.toml says\n%+v, the default is\n%+v", c.Bridges[0], b)
	}
	if !reflect.DeepEqual(shown, r) {
		t.Errorf("route: gateway.toml says\n%+v, the default is\n%+v", shown, r)
	}
}

func TestEverySampleLoads(t *testing.T) {
	t.Setenv("CLOUD_PASSWORD", "secret")
	names, err := filepath.Glob("*.toml")
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		c, _, err := Load(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := c.Resolve(Identity{ID: "board-1"}); err != nil {
			t.Error(err)
		}
	}
}
