package configs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const bridgeTables = "\n[[bridge.upstream]]\nurl = \"tcp://h\"\n[[bridge.route]]\ndirection = \"out\"\ntopic = \"#\"\n"

func TestSecretsAreNeverPrinted(t *testing.T) {
	const word = "hunter2"
	c := mustLoad(t, "[[bridge]]\nname = \"a\"\nusername = \"u\"\npassword = \""+word+"\"\n"+bridgeTables)
	if got := c.Bridges[0].Password.Reveal(); got != word {
		t.Fatalf("password %q", got)
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("config", "all", c, "bridge", c.Bridges[0], "password", c.Bridges[0].Password)
	}
	printed := log.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{c, *c, c.Bridges, c.Bridges[0].Password, &c.Bridges[0].Password} {
			printed += fmt.Sprintf(verb, v)
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	printed += string(text)
	for _, form := range []string{word, fmt.Sprintf("%x", word), fmt.Sprint([]byte(word))} {
		if strings.Contains(printed, form) {
			t.Errorf("the secret is in what was printed, as %q", form)
		}
	}
	if NewSecret("").IsSet() || NewSecret("").String() != "" || NewSecret("x").String() != "hidden" {
		t.Error("an empty secret looks like one that is set")
	}
}

func TestEnvironmentStandsInLogins(t *testing.T) {
	text := "[[bridge]]\nname = \"a${NAME}\"\nusername = \"u-${NAME}\"\npassword = \"${PASS}${PASS}$${PASS}$x${}\"\nclient_id = \"${NAME}-{bridge}\"" + bridgeTables
	_, _, err := loadText(t, text, map[string]string{"NAME": "n", "PASS": "p"})
	if err == nil || !strings.Contains(err.Error(), `test.toml:2: bridge.name: "a${NAME}" cannot be a name`) {
		t.Errorf("a variable in a key that has none: %v", err)
	}
	c, _, err := loadText(t, strings.Replace(text, "a${NAME}", "a", 1), map[string]string{"NAME": "n", "PASS": "p"})
	if err != nil {
		t.Fatal(err)
	}
	b := c.Bridges[0]
	if b.Username != "u-n" || b.Password.Reveal() != "pp${PASS}$x${}" || b.ClientID != "n-{bridge}" {
		t.Errorf("username %q, password %q, client_id %q", b.Username, b.Password.Reveal(), b.ClientID)
	}
}

func TestPasswordFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("good", " pass word \r\n", 0o600)
	write("open", "pass\n\n", 0o644)
	write("empty", "\n", 0o600)
	write("large", strings.Repeat("x", maxSecretFile+1), 0o600)
	config := filepath.Join(dir, "gateway.toml")
	for _, c := range []struct{ file, secret, says string }{
		{"good", " pass word ", ""},
		{"open", "pass\n", config + ":4: bridge.password_file: every user of this machine can read the file; run chmod 600 " + dir + "/open"},
		{filepath.Join(dir, "good"), " pass word ", ""},
		{"empty", "", config + ":4: bridge.password_file: " + dir + "/empty is empty; put the secret there, readable by the gateway"},
		{"large", "", dir + "/large is larger than 64KiB"},
		{"none", "", "no such file or directory; put the secret there"},
		{".", "", " is not a regular file; put the secret there"},
	} {
		write("gateway.toml", fmt.Sprintf("[[bridge]]\nname = \"a\"\nusername = \"u\"\npassword_file = %q\n", c.file)+bridgeTables, 0o644)
		got, warnings, err := Load(config)
		said := strings.Join(warnings, "\n")
		if err != nil {
			said += err.Error()
		}
		if (err != nil) != (c.secret == "") || !strings.Contains(said, c.says) || (c.says == "" && said != "") {
			t.Errorf("%s: said %q, want %q", c.file, said, c.says)
		} else if err == nil && got.Bridges[0].Password.Reveal() != c.secret {
			t.Errorf("%s: %q, want %q", c.file, got.Bridges[0].Password.Reveal(), c.secret)
		}
	}
}

func TestOpenFileWithPasswordIsWarnedOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.toml")
	text := "[[bridge]]\nname = \"a\"\nusername = \"u\"\npassword = \"%s\"\n" + bridgeTables
	t.Setenv("PASS", "x")
	for password, want := range map[string]int{"word": 1, "${PASS}": 0, "": 0} {
		if err := os.WriteFile(file, fmt.Appendf(nil, text, password), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, warnings, err := Load(file); err != nil || len(warnings) != want {
			t.Errorf("password %q: %q, %v", password, warnings, err)
		}
	}
}
