package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"holdfast/configs"
	"holdfast/edge/password"
)

// answers are what a configuration is made of.
type answers struct {
	id                           string
	lan                          bool
	user, userHash               string // of devices in the network
	upstream, username, password string
	topics                       []string
	modem, apn                   string // modem is its port; "" is none
	dataDir, socket              string // "" is the default
}

func newInitCommand() *cobra.Command {
	var a answers
	var file, passwordFile, userPasswordFile string
	var yes, force, tryModem bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Ask what a gateway needs to know, and write its configuration",
		Long: `Ask what a gateway needs to know, write a configuration with comments, check it,
and try the module, if there is one, from its port to the far broker (holdfast modem
doctor), which takes up to a few minutes. What is given by a flag is not asked for;
with --yes nothing is.

Without -c the file is /etc/holdfast/gateway.toml where the package is installed,
and gateway.toml in this folder elsewhere. One that is there and says more than that
of the package is replaced only with --force or after a question. It is kept beside
the new one with .old at its end.
Only its owner and its group can read the file, since it may have a password in it.`,
		Example: `  holdfast init
  holdfast init --yes -c gateway.toml --id barn-7 --upstream tcp://broker.example:1883 --topic 'sensors/#'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				file = newConfigFile(os.Stat)
			}
			var err error
			if a.password, err = passwordIn(passwordFile, "--password-file"); err != nil {
				return err
			}
			word, err := passwordIn(userPasswordFile, "--user-password-file")
			if err != nil {
				return err
			}
			if err := a.setUserPassword(word); err != nil {
				return err
			}
			q := &questions{in: bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 1<<20)), out: cmd.OutOrStdout(), given: cmd.Flags().Changed, silent: yes}
			if f, ok := cmd.InOrStdin().(*os.File); ok {
				q.terminal = f
			}
			return initialize(cmd, q, &a, file, force, tryModem)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "config", "c", "", "the file to write")
	f.StringVar(&a.id, "id", "", "name of this gateway (default: the board's serial number or address)")
	f.BoolVar(&a.lan, "lan", false, "let every device in the network connect, without a password")
	f.StringVar(&a.user, "user", "", "user name of devices in the network, which need a password then")
	f.StringVar(&userPasswordFile, "user-password-file", "", "a file with their password")
	f.StringVar(&a.upstream, "upstream", "", "the far broker, as in tcp://broker.example:1883 (default: none)")
	f.StringVar(&a.username, "username", "", "user name at the far broker")
	f.StringVar(&passwordFile, "password-file", "", "a file with the password at the far broker")
	f.StringSliceVar(&a.topics, "topic", []string{"#"}, "topics to send to the far broker; may be given several times")
	f.StringVar(&a.modem, "modem", "", "serial port of an LTE module, or auto to look for one (default: none)")
	f.StringVar(&a.apn, "apn", "", "access point of the SIM's operator (default: what the module has)")
	f.BoolVarP(&yes, "yes", "y", false, "ask nothing: take the flags and the defaults")
	f.BoolVar(&force, "force", false, "replace a file that is there")
	f.BoolVar(&tryModem, "doctor", true, "try the module at the end")
	return cmd
}

// passwordIn reads a password from the file that a flag names; "" without one.
func passwordIn(file, flag string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the password: %w; check %s", err, flag)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// setUserPassword keeps the hash of a password; of none, nothing.
func (a *answers) setUserPassword(word string) error {
	if word == "" {
		return nil
	}
	h, err := password.New([]byte(word))
	if err == nil {
		a.userHash = h.String()
	}
	return err
}

// newConfigFile is where a configuration goes that nobody has named.
func newConfigFile(stat func(string) (os.FileInfo, error)) string {
	if _, err := stat(filepath.Dir(installedConfig)); err == nil {
		return installedConfig
	}
	return "gateway.toml"
}

func initialize(cmd *cobra.Command, q *questions, a *answers, file string, force, tryModem bool) error {
	out := cmd.OutOrStdout()
	if file == installedConfig {
		a.dataDir, a.socket = "/var/lib/holdfast", "/run/holdfast/holdfast.sock"
	}
	if _, err := os.Stat(file); err == nil {
		old, _, err := configs.Load(file)
		// That of the package may be replaced: it says nothing that is not the default.
		force = force || err == nil && old.OnlyDefaults()
		if !force && !q.yesNo("replace", file+" is there already. Replace it (it is kept as "+file+".old)?", false) {
			return fmt.Errorf("%s is there already and stays as it is; give --force to replace it, or another file with -c", file)
		}
		// Its data stay where they are.
		if err == nil {
			a.dataDir, a.socket = old.Gateway.DataDir, old.Console.Socket
		}
	}
	if err := a.ask(q, file); err != nil {
		return err
	}
	if err := writeConfig(file, a.config()); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s is written.\n", file)
	if err := checkFile(out, cmd.ErrOrStderr(), file); err != nil {
		return err
	}
	if a.modem != "" && tryModem && q.yesNo("doctor", "Try the module now, from its port to the far broker (up to a few minutes)?", true) {
		fmt.Fprintln(out, "\nTrying the module ...")
		f := modemFlags{file: file}
		if err := f.doctor(cmd, []string{"lte"}); err != nil {
			if !errors.Is(err, errUnwell) {
				fmt.Fprintln(out, err)
			}
			// The configuration stands: a SIM or an antenna may come later.
			fmt.Fprintf(out, "\nWhen that is put right, try again with a gateway that is stopped: holdfast modem doctor -c %s\n", file)
		}
	}
	if file == installedConfig {
		fmt.Fprint(out, "\nNext:\n  sudo systemctl restart holdfast\n  holdfast pub -t sensors/1 -m 21.5 -q 1    # a first message\n  sudo holdfast status\n")
	} else {
		fmt.Fprintf(out, "\nNext:\n  holdfast run -c %s\n  holdfast pub -t sensors/1 -m 21.5 -q 1    # a first message\n  holdfast status -c %s\n", file, file)
	}
	return nil
}

// ask completes the answers for a configuration in file. What somebody has typed and
// makes no configuration is asked for again.
func (a *answers) ask(q *questions, file string) error {
	makes := func(key string, put func(a *answers, s string)) func(string) error {
		return func(s string) error {
			b := *a
			put(&b, s)
			return faultOf(file, b.config(), key)
		}
	}
	a.id = q.text("id", "Name of this gateway (empty: the board's own)", a.id,
		makes("gateway.id", func(a *answers, s string) { a.id = s }))
	a.lan = q.yesNo("lan", "Devices without a password may connect from the whole network (no: from this board only)?", a.lan)
	if !a.lan {
		a.user = q.text("user", "User name for devices in the network, with a password (empty: this board only)", a.user,
			makes("access.user.name", func(a *answers, s string) { a.user = s }))
		if a.user != "" && a.userHash == "" {
			if err := a.setUserPassword(q.secret("user-password-file", "Their password", "")); err != nil {
				return err
			}
		}
	}
	switch {
	case a.user != "" && a.lan:
		return usageError{errors.New("--lan lets devices in without a password, and --user asks for one: give one of the two")}
	case a.user != "" && a.userHash == "":
		return usageError{errors.New("a user needs a password: give --user-password-file too")}
	}
	a.upstream = q.text("upstream", "Far broker, as in tcp://broker.example:1883 (empty: none)", a.upstream,
		makes("bridge.upstream.url", func(a *answers, s string) { a.upstream = s }))
	if a.upstream != "" {
		if err := a.askUpstream(q, makes); err != nil {
			return err
		}
	}
	if a.modem != "" && a.upstream == "" {
		return usageError{errors.New("a module needs a far broker to connect to: give --upstream too")}
	}
	return nil
}

// askUpstream asks for what belongs to a far broker.
func (a *answers) askUpstream(q *questions, makes func(key string, put func(a *answers, s string)) func(string) error) error {
	a.username = q.text("username", "User name there (empty: none)", a.username, nil)
	if a.username != "" {
		a.password = q.secret("password-file", "Password there", a.password)
	}
	split := func(a *answers, s string) {
		a.topics = strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' })
	}
	split(a, q.text("topic", "Topics to send there, with spaces between them", strings.Join(a.topics, " "), makes("bridge.route.topic", split)))

	found := ""
	look := func() (err error) {
		fmt.Fprintln(q.out, "Looking for a module that answers AT ...")
		if found, err = findModem(serialPorts(), answersAT); err == nil {
			fmt.Fprintln(q.out, "There is one on", found)
		}
		return err
	}
	isPort := makes("modem.port", func(a *answers, s string) { a.modem = s })
	a.modem = q.text("modem", `Serial port of an LTE module, or "auto" to look for one (empty: none)`, a.modem, func(s string) error {
		if s == "auto" {
			return look()
		}
		return isPort(s)
	})
	if a.modem == "auto" {
		if found == "" {
			if err := look(); err != nil {
				return err
			}
		}
		a.modem = lastingName(found)
	}
	if a.modem != "" {
		a.apn = q.text("apn", "Access point (APN) of the SIM's operator (empty: what the module has)", a.apn, nil)
	}
	return nil
}

// questions asks for what no flag has given. At the end of the input the rest
// has its defaults.
type questions struct {
	in       *bufio.Reader
	out      io.Writer
	terminal *os.File // nil if it is none
	given    func(flag string) bool
	silent   bool
}

// text asks until somebody has typed what wrong, which may be nil, has nothing
// against.
func (q *questions) text(flag, question, or string, wrong func(string) error) string {
	if q.silent || q.given(flag) {
		return or
	}
	if or != "" {
		question += " [" + or + "]"
	}
	for {
		fmt.Fprint(q.out, question+": ")
		line, end := q.in.ReadString('\n')
		if end != nil {
			fmt.Fprintln(q.out)
		}
		answer := cmp.Or(strings.TrimSpace(line), or)
		if answer == "" || wrong == nil {
			return answer
		}
		err := wrong(answer)
		if err == nil || end != nil {
			return answer
		}
		fmt.Fprintf(q.out, "  That will not do: %v\n", err)
	}
}

func (q *questions) yesNo(flag, question string, or bool) bool {
	if q.silent || q.given(flag) {
		return or
	}
	words := map[bool]string{true: "yes", false: "no"}
	return strings.HasPrefix(strings.ToLower(q.text(flag, question, words[or], nil)), "y")
}

// secret asks without showing what is typed, where that is possible.
func (q *questions) secret(flag, question, or string) string {
	if q.silent || q.given(flag) || q.terminal == nil {
		return q.text(flag, question, or, nil)
	}
	fd := int(q.terminal.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return q.text(flag, question, or, nil)
	}
	quiet := *was
	quiet.Lflag &^= unix.ECHO
	if unix.IoctlSetTermios(fd, unix.TCSETS, &quiet) == nil {
		defer func() {
			_ = unix.IoctlSetTermios(fd, unix.TCSETS, was)
			fmt.Fprintln(q.out)
		}()
	}
	return q.text(flag, question, or, nil)
}
