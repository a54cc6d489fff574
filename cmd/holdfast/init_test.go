package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"holdfast/configs"
	"holdfast/edge/password"
	"holdfast/modem/sim"
)

// initWith runs init with what a user types.
func initWith(t testing.TB, typed string, args ...string) (stdout string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRootCommand()
	root.SetArgs(append([]string{"init"}, args...))
	root.SetIn(strings.NewReader(typed))
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(context.Background())
	return out.String() + errs.String(), err
}

func TestInitAsksAndWritesAConfigurationThatIsGood(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.toml")
	out, err := initWith(t, "barn-7\nyes\ntcp://broker.example:1883\nbarn\ns3\"${cret}\nsensors/# alarms/+\n/dev/ttyUSB2\ninternet\n", "-c", file)
	if err != nil {
		t.Fatal(err, out)
	}
	for _, want := range []string{"Name of this gateway", "gateway.toml: ok", "holdfast run -c " + file} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if strings.Contains(out, "cret") {
		t.Error("the password is shown")
	}
	c, warnings, err := configs.Load(file)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	b := c.Bridges[0]
	if c.Gateway.ID != "barn-7" || c.Listeners[0].Address != ":1883" || c.Access.Anonymous != configs.AnonymousAlways ||
		b.Upstreams[0].URL != "tcp://broker.example:1883" || b.Upstreams[0].Via != "lte" || b.Username != "barn" || b.Password.Reveal() != `s3"${cret}` ||
		len(b.Routes) != 2 || b.Routes[1].Topic != "alarms/+" || c.Modems[0].Port != "/dev/ttyUSB2" || c.Modems[0].APN != "internet" {
		text, _ := os.ReadFile(file)
		t.Errorf("%s", text)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestInitWithoutQuestions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.toml")
	out, err := initWith(t, "", "--yes", "-c", file)
	if err != nil || strings.Contains(out, "?") {
		t.Fatal(err, out)
	}
	c, _, err := configs.Load(file)
	if err != nil || c.Listeners[0].Address != "127.0.0.1:1883" || len(c.Bridges)+len(c.Modems) != 0 {
		t.Fatalf("%v %+v", err, c)
	}
}

// The end of the input is the end of the questions, not of init.
func TestInitTakesTheDefaultsAtTheEndOfTheInput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.toml")
	if out, err := initWith(t, "x1\n", "-c", file); err != nil {
		t.Fatal(err, out)
	}
	if c, _, err := configs.Load(file); err != nil || c.Gateway.ID != "x1" {
		t.Fatal(c, err)
	}
}

func TestInitWritesAUser(t *testing.T) {
	dir := t.TempDir()
	word := filepath.Join(dir, "word")
	if err := os.WriteFile(word, []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(file string) (string, error){
		"asked": func(file string) (string, error) { return initWith(t, "x\nno\npu\"mp\nsesame\n\n", "-c", file) },
		"flags": func(file string) (string, error) {
			return initWith(t, "", "--yes", "--user", "pu\"mp", "--user-password-file", word, "-c", file)
		},
	} {
		file := filepath.Join(dir, name+".toml")
		out, err := do(file)
		if err != nil || strings.Contains(out, "sesame") {
			t.Fatal(name, err, out)
		}
		c, warnings, err := configs.Load(file)
		if err != nil || len(warnings) > 0 || len(c.Access.Users) != 1 || c.Listeners[0].Address != ":1883" || c.Access.Anonymous != configs.AnonymousLoopback {
			t.Fatalf("%s: %v %v %+v", name, err, warnings, c)
		}
		u := c.Access.Users[0]
		if h, err := password.Parse(u.Password.Reveal()); err != nil || u.Name != "pu\"mp" || !h.Matches([]byte("sesame")) {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
}

func TestInitReplacesNothingUnasked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.toml")
	old := "[gateway]\ndata_dir = \"/srv/holdfast\"\n[log]\nlevel = \"warn\"\n"
	if err := os.WriteFile(file, []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, typed := range []string{"\n", "no\n", ""} {
		out, err := initWith(t, typed, "-c", file)
		if err == nil || !strings.Contains(err.Error(), "--force") {
			t.Errorf("%q: %v\n%s", typed, err, out)
		}
	}
	if b, _ := os.ReadFile(file); string(b) != old {
		t.Errorf("%s", b)
	}
	for range 2 { // .old is there already the second time
		if out, err := initWith(t, "", "-c", file, "--force", "--yes", "--id", "new"); err != nil {
			t.Fatal(err, out)
		}
	}
	c, _, err := configs.Load(file)
	if err != nil || c.Gateway.ID != "new" || c.Gateway.DataDir != "/srv/holdfast" {
		t.Errorf("%v %+v", err, c)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode is %v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(file + ".old"); err != nil {
		t.Error(err)
	}
}

// The configuration that the package has installed says nothing that would be lost.
func TestInitReplacesTheConfigurationOfThePackage(t *testing.T) {
	installed, err := os.ReadFile("../../scripts/package/gateway.toml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "gateway.toml")
	if err := os.WriteFile(file, installed, 0o640); err != nil {
		t.Fatal(err)
	}
	if out, err := initWith(t, "", "--yes", "-c", file, "--id", "barn-7"); err != nil {
		t.Fatal(err, out)
	}
	c, _, err := configs.Load(file)
	if err != nil || c.Gateway.ID != "barn-7" || c.Gateway.DataDir != "/var/lib/holdfast" || c.Console.Socket != "/run/holdfast/holdfast.sock" {
		t.Errorf("%v %+v", err, c)
	}
	if b, err := os.ReadFile(file + ".old"); err != nil || string(b) != string(installed) {
		t.Errorf("%v %s", err, b)
	}
	if out, err := initWith(t, "", "--yes", "-c", file); err == nil {
		t.Error("one that was made by init is replaced unasked:", out)
	}
}

// A slip of the finger does not cost what was typed before it.
func TestInitAsksAgainForWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.toml")
	out, err := initWith(t, "barn 7\nbarn-7\nno\n\nbroker.example\ntcp://broker.example:1883\n\nsensors/#/x\nsensors/#\nttyUSB2\n/dev/no-such-port\n\nno\n", "-c", file)
	if err != nil {
		t.Fatal(err, out)
	}
	c, _, err := configs.Load(file)
	if err != nil || c.Gateway.ID != "barn-7" || c.Bridges[0].Upstreams[0].URL != "tcp://broker.example:1883" ||
		c.Bridges[0].Routes[0].Topic != "sensors/#" || c.Modems[0].Port != "/dev/no-such-port" {
		t.Errorf("%v %+v\n%s", err, c, out)
	}
	for _, want := range []string{"cannot be an identifier", "write it as \"tcp://host:1883\"", "# must be the last level", "as in \"/dev/ttyUSB2\""} {
		if !strings.Contains(out, "That will not do: ") || !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

// The module is tried at the end; what is wrong with it does not undo the rest.
func TestInitTriesTheModule(t *testing.T) {
	flags := []string{"--yes", "--upstream", "tcp://broker.example:1883", "--modem", "/dev/no-such-port"}
	out, err := initWith(t, "", append(flags, "-c", filepath.Join(t.TempDir(), "gateway.toml"))...)
	if err != nil || !strings.Contains(out, "there is no port /dev/no-such-port") || !strings.Contains(out, "holdfast modem doctor -c ") || !strings.Contains(out, "Next:") {
		t.Error(err, out)
	}
	out, err = initWith(t, "", append(flags, "--doctor=false", "-c", filepath.Join(t.TempDir(), "gateway.toml"))...)
	if err != nil || strings.Contains(out, "no port") {
		t.Error(err, out)
	}
}

func TestInitWritesNoConfigurationThatIsWrong(t *testing.T) {
	dir := t.TempDir()
	for args, want := range map[string]string{
		"--upstream=broker.example":           "bridge.upstream.url: ",
		"--upstream=tcp://b:1 --topic=a#":     "bridge.route.topic: ",
		"--id=a/b":                            "gateway.id: ",
		"--modem=/dev/ttyUSB2":                "give --upstream too",
		"--password-file=/no/such/file --lan": "check --password-file",
		"--user=pump":                         "give --user-password-file too",
		"--user=pump --lan":                   "give one of the two",
		"--user=pump --user-password-file=/x": "check --user-password-file",
	} {
		_, err := initWith(t, "", append(strings.Fields(args), "--yes", "-c", filepath.Join(dir, "gateway.toml"))...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

func TestAModuleIsFoundByLooking(t *testing.T) {
	module, err := sim.New(sim.Options{Baud: 115200})
	if err != nil {
		t.Fatal(err)
	}
	defer module.Close()
	silent := func(string) error { return errors.New("no answer to AT") }
	port, err := findModem([]string{"/dev/no-such-port", module.Path()}, answersAT)
	if err != nil || port != module.Path() {
		t.Errorf("%q %v", port, err)
	}
	if _, err := findModem([]string{"/dev/ttyUSB0"}, silent); err == nil || !strings.Contains(err.Error(), "/dev/ttyUSB0: no answer to AT") || !strings.Contains(err.Error(), "TX and RX") {
		t.Error(err)
	}
	if _, err := findModem(nil, silent); err == nil || !strings.Contains(err.Error(), "UART enabled") {
		t.Error(err)
	}
}

// Whatever a user types comes out of the file as it was meant.
func FuzzInitWritesWhatWasMeant(f *testing.F) {
	f.Add("user", "pass")
	f.Add("a\"b\\c", "${HOME}\x7f\t$${x}\u2028")
	f.Fuzz(func(t *testing.T, user, password string) {
		if !utf8.ValidString(user) || !utf8.ValidString(password) || user == "" {
			t.Skip()
		}
		a := answers{username: user, password: password, upstream: "tcp://broker.example:1883", topics: []string{"#"}}
		file := filepath.Join(t.TempDir(), "gateway.toml")
		if err := writeConfig(file, a.config()); err != nil {
			var usage usageError
			if errors.As(err, &usage) {
				return // refused in words, and not written
			}
			t.Fatal(err)
		}
		c, _, err := configs.Load(file)
		if err != nil || c.Bridges[0].Username != user || c.Bridges[0].Password.Reveal() != password {
			t.Errorf("%q %q became %+v, %v", user, password, c, err)
		}
	})
}
