package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"holdfast/configs"
)

// variable is what stands for one of the environment, unless it has another $
// before it.
var variable = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// quoted is s as a basic string of TOML, which has the escapes of JSON. It is
// written as it is meant: ${ in it is no variable.
func quoted(s string, env bool) string {
	if env {
		s = variable.ReplaceAllString(s, "$$$0")
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always can be
	// DEL is a control character for TOML, and none for JSON.
	return strings.ReplaceAll(strings.TrimSpace(b.String()), "\x7f", `\u007f`)
}

// config is the configuration, with comments.
func (a *answers) config() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Configuration of a Holdfast gateway, made by holdfast init. Every key that there")
	line("# is, with its default, is explained in gateway.toml of the documentation.")
	line("#\n#     holdfast check    tells every mistake in it, with its line")
	line("\n[gateway]")
	if a.id == "" {
		line("# Empty: the serial number of the board, or the address of its network card.")
	}
	line("id = %s", quoted(a.id, false))
	if a.dataDir != "" {
		line("# All that must survive a restart.\ndata_dir = %s", quoted(a.dataDir, false))
	}
	if a.socket != "" {
		line("\n[console]\n# Who is in the group holdfast may use the command line without being root.\nsocket = %s", quoted(a.socket, false))
	}
	line("\n[[listener]]")
	if a.lan {
		line("# Every network that this board is in.\naddress = \":1883\"")
		line("\n[access]\n# Everyone in the network may connect, without a password: keep strangers out of it.\nanonymous = \"always\"")
	} else if a.user != "" {
		line("# Every network that this board is in.\naddress = \":1883\"")
		line("\n[access]\n# Programs on this board need no password.\nanonymous = \"loopback\"")
		line("\n# holdfast passwd changes the password, and adds more users.\n[[access.user]]\nname = %s\npassword = %s", quoted(a.user, false), quoted(a.userHash, false))
		line("# Where they may publish, and what they may subscribe to: topic filters.\npublish = [\"#\"]\nsubscribe = [\"#\"]")
	} else {
		line("# Programs on this board only. \":1883\" is every network, and needs users\n# (holdfast passwd), or [access] with anonymous = \"always\".\naddress = \"127.0.0.1:1883\"")
	}
	if a.modem != "" {
		line("\n# The LTE module.\n[[modem]]\nname = \"lte\"\nport = %s", quoted(a.modem, false))
		if a.apn != "" {
			line("apn = %s", quoted(a.apn, false))
		}
		line("# The PIN of the SIM, if it has one. Three wrong ones lock it.\n#pin = \"0000\"")
	}
	if a.upstream == "" {
		line("\n# Nothing is forwarded: there is no [[bridge]].")
		return b.String()
	}
	line("\n[[bridge]]\nname = \"cloud\"")
	if a.username != "" {
		line("username = %s", quoted(a.username, true))
	}
	if a.password != "" {
		line("password = %s", quoted(a.password, true))
	}
	line("  [[bridge.upstream]]\n  url = %s", quoted(a.upstream, true))
	if a.modem != "" {
		line("  via = \"lte\"")
	}
	for _, t := range a.topics {
		line("  [[bridge.route]]\n  direction = \"out\"\n  topic = %s", quoted(t, false))
	}
	return b.String()
}

// faultOf is what is wrong with a key in text, as the configuration in file; nil if
// nothing is.
func faultOf(file, text, key string) error {
	_, _, err := configs.Parse(file, []byte(text))
	var faults configs.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			if f.Key == key {
				return errors.New(f.Text)
			}
		}
	}
	return nil
}

// writeConfig is replaceConfig that keeps a file that is there.
func writeConfig(file, text string) error { return replaceConfig(file, text, true) }

// replaceConfig puts text into file, for its owner and its group only, after it
// was found to be a configuration. A file that is there is kept beside it, if keep
// says so; its owner, group and mode stay. A crash leaves the old one or the new
// one.
func replaceConfig(file, text string, keep bool) (err error) {
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, "."+filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w; give another file with -c, or run this with sudo", file, err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	err = errors.Join(err, owned(f, file), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if _, _, err := configs.Load(f.Name()); err != nil {
		var faults configs.Faults
		if errors.As(err, &faults) {
			// They have the lines of a file that nobody will see.
			var words []string
			for _, fault := range faults {
				words = append(words, fault.Key+": "+fault.Text)
			}
			return usageError{fmt.Errorf("nothing is written, since this would be no configuration:\n%s", strings.Join(words, "\n"))}
		}
		return err
	}
	if keep {
		err := os.Link(file, file+".old")
		if errors.Is(err, fs.ErrExist) {
			err = errors.Join(os.Remove(file+".old"), os.Link(file, file+".old"))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keep the old configuration: %w", err)
		}
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return syncDir(dir)
}

// owned gives f the owner and the mode of the file that it replaces. The new one
// of a package is for its service too.
func owned(f *os.File, file string) error {
	if info, err := os.Stat(file); err == nil {
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return f.Chmod(0o600)
		}
		return errors.Join(f.Chown(int(st.Uid), int(st.Gid)), f.Chmod(info.Mode().Perm()&^0o007))
	}
	if file == installedConfig {
		if g, err := user.LookupGroup("holdfast"); err == nil {
			if gid, err := strconv.Atoi(g.Gid); err == nil {
				return errors.Join(f.Chown(-1, gid), f.Chmod(0o640))
			}
		}
	}
	return f.Chmod(0o600)
}
