package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"holdfast/configs"
	"holdfast/edge/password"
)

func passwdWith(t *testing.T, in io.Reader, args ...string) (stdout string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRootCommand()
	root.SetArgs(append([]string{"passwd"}, args...))
	root.SetIn(in)
	root.SetOut(&out)
	root.SetErr(&errs)
	err = root.ExecuteContext(context.Background())
	return out.String() + errs.String(), err
}

func TestPasswdWritesAHash(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gateway.toml")
	if err := os.WriteFile(file, []byte("# mine\n[log]\nlevel = \"warn\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := file + ".link"
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	var before string
	for i, word := range []string{"open sesame", " two\x00\"$ "} {
		out, err := passwdWith(t, strings.NewReader(word+"\nnot this\n"), "-c", link, "pump")
		if err != nil || strings.Contains(out, "sesame") || !strings.Contains(out, "User pump") {
			t.Fatal(err, out)
		}
		c, warnings, err := configs.Load(file)
		if err != nil || len(warnings) > 0 || len(c.Access.Users) != 1 || c.Log.Level != "warn" {
			t.Fatal(err, warnings)
		}
		h, err := password.Parse(c.Access.Users[0].Password.Reveal())
		if err != nil || !h.Matches([]byte(word)) {
			t.Errorf("%d: the hash is not of the password, %v", i, err)
		}
		if h.String() == before {
			t.Error("the password has not changed")
		}
		before = h.String()
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v %v: strangers can read it", info.Mode(), err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced by a file")
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*"))
	if len(left) != 2 {
		t.Errorf("files %q were left", left)
	}
	if out, err := passwdWith(t, strings.NewReader("x\n"), "--print", "pump"); err != nil || !strings.HasPrefix(out, "[[access.user]]\nname = \"pump\"\npassword = \"$argon2id$") {
		t.Errorf("%v %s", err, out)
	}
}

func TestPasswdRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good, bad := write("good.toml", "[log]\n"), write("bad.toml", "[lg]\n")
	for name, tc := range map[string]struct {
		in   string
		args []string
		says string
	}{
		"no password":               {"\n", []string{"-c", good, "pump"}, "the password is empty"},
		"nothing at all":            {"", []string{"-c", good, "pump"}, "the password is empty"},
		"one that is too long":      {strings.Repeat("x", password.Longest+1), []string{"-c", good, "pump"}, "MQTT has room for"},
		"no such file":              {"x\n", []string{"-c", filepath.Join(dir, "none"), "pump"}, "check the path after -c"},
		"a file with faults":        {"x\n", []string{"-c", bad, "pump"}, "nothing is written"},
		"a name that cannot be one": {"x\n", []string{"-c", good, "two\nlines"}, "nothing is written"},
	} {
		before, _ := os.ReadFile(good)
		if out, err := passwdWith(t, strings.NewReader(tc.in), tc.args...); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v %s", name, err, out)
		}
		if after, _ := os.ReadFile(good); string(after) != string(before) {
			t.Errorf("%s: the file has changed", name)
		}
	}
}

// typing is a terminal on which a person types the lines, each when it is asked
// for; it returns all that the terminal has shown.
func typing(t *testing.T, lines ...string) (word []byte, shown string, err error) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	asked := make(chan string, 10)
	go func() {
		for _, l := range lines {
			<-asked
			io.WriteString(master, l)
		}
	}()
	word, err = newPassword(t.Context(), slave, asking{asked}, "pump")
	io.WriteString(slave, "end")
	slave.Close()
	all, _ := io.ReadAll(master) // until nobody has the other side open
	return word, string(all), err
}

// asking tells of each question.
type asking struct{ asked chan string }

func (a asking) Write(b []byte) (int, error) {
	if strings.Contains(string(b), ": ") {
		a.asked <- string(b)
	}
	return len(b), nil
}

func TestPasswordsAreNotShownOnTheTerminal(t *testing.T) {
	t.Parallel()
	word, shown, err := typing(t, "sesame\n", "sesame\n")
	if err != nil || string(word) != "sesame" {
		t.Errorf("%q, %v", word, err)
	}
	if shown != "end" {
		t.Errorf("the terminal has shown %q", shown)
	}
	if _, _, err = typing(t, "sesame\n", "Sesame\n"); err == nil || !strings.Contains(err.Error(), "two passwords") {
		t.Error(err)
	}
}

func TestATerminalIsAsBeforeAfterAnInterrupt(t *testing.T) {
	t.Parallel()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newPassword(ctx, slave, io.Discard, "pump"); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Error(err)
	}
	now, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil || now.Lflag&unix.ECHO == 0 {
		t.Errorf("the terminal does not show what is typed any more: %v", err)
	}
	io.WriteString(master, "\n") // for the reader that the process would have ended
}

// typist is a person who takes a while: do happens before the password comes.
type typist struct {
	io.Reader
	do func()
}

func (t typist) Read(b []byte) (int, error) {
	t.do()
	return t.Reader.Read(b)
}

func TestPasswdKeepsWhatWasWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "gateway.toml")
	write := func(level string) {
		if err := os.WriteFile(file, []byte("log.level = \""+level+"\"\n"), 0o600); err != nil {
			t.Error(err)
		}
	}
	write("info")
	in := typist{strings.NewReader("sesame\n"), func() { write("debug") }}
	if out, err := passwdWith(t, in, "-c", file, "pump"); err != nil {
		t.Fatal(err, out)
	}
	c, _, err := configs.Load(file)
	if err != nil || c.Log.Level != "debug" || len(c.Access.Users) != 1 {
		t.Errorf("%v: %+v", err, c)
	}
}
