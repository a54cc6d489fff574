package main

import (
	"bufio"
	"bytes"
	"context"
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

func newPasswdCommand() *cobra.Command {
	var file string
	var show bool
	cmd := &cobra.Command{
		Use:   "passwd USER",
		Short: "Set the password of a user of the local broker",
		Long: `Set the password with which devices log in as a user, and add the user if it is
not there. The password is asked for twice without being shown, or is the first
line of the standard input if that is no terminal. What is written into the
configuration is a hash of it (argon2id), and nothing else is changed there.

A new user may use every topic: narrow that down with publish and subscribe of
[[access.user]]. To remove a user, delete its lines.

A running gateway takes the change over on SIGHUP: systemctl reload holdfast, or
kill -HUP. A device with the old password is disconnected then.`,
		Example: `  sudo holdfast passwd pump
  echo 'open sesame' | holdfast passwd -c gateway.toml pump
  holdfast passwd --print pump`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" && !show {
				file = whichConfig(os.Stat, configs.Default().Gateway.DataDir, installedConfig)
			}
			if file == "" && !show {
				return usageError{errors.New("which configuration? Write holdfast passwd -c FILE USER, or --print to see what to add to one")}
			}
			return setPassword(cmd, file, args[0], show)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "the configuration to change")
	cmd.Flags().BoolVar(&show, "print", false, "change nothing: print the lines for a configuration")
	return cmd
}

func setPassword(cmd *cobra.Command, file, user string, show bool) error {
	var text []byte
	if !show {
		// Whoever may not write it is told so before a password is typed.
		var err error
		if file, err = filepath.EvalSymlinks(file); err != nil {
			return fmt.Errorf("find the configuration: %w; check the path after -c", err)
		}
		if _, err = os.ReadFile(file); err != nil {
			return fmt.Errorf("read the configuration: %w; check the path after -c, or run this with sudo", err)
		}
	}
	word, err := newPassword(cmd.Context(), cmd.InOrStdin(), cmd.ErrOrStderr(), user)
	if err != nil {
		return err
	}
	hash, err := password.New(word)
	if err != nil {
		return fmt.Errorf("%w; nothing is changed", err)
	}
	if !show {
		// It may have been edited while the password was typed.
		if text, err = os.ReadFile(file); err != nil {
			return fmt.Errorf("read the configuration again: %w; nothing is changed", err)
		}
	}
	changed, added, err := configs.SetPassword(string(text), user, hash.String())
	if err != nil {
		return fmt.Errorf("change %s: %w", file, err)
	}
	out := cmd.OutOrStdout()
	if show {
		_, err := fmt.Fprint(out, strings.TrimPrefix(changed, "\n"))
		return err
	}
	if err := replaceConfig(file, changed, false); err != nil {
		return err
	}
	what := "has a new password"
	if added {
		what = "is added, with all topics"
	}
	fmt.Fprintf(out, "User %s %s in %s.\n", user, what, file)
	if file == installedConfig {
		fmt.Fprintln(out, "Next: sudo systemctl reload holdfast")
	} else {
		fmt.Fprintln(out, "A running gateway takes it over on SIGHUP.")
	}
	return nil
}

// newPassword asks for a password twice without showing it, or reads a line from
// what is no terminal.
func newPassword(ctx context.Context, in io.Reader, out io.Writer, user string) ([]byte, error) {
	f, ok := in.(*os.File)
	if ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
			ok = false
		}
	}
	if !ok {
		return readLine(bufio.NewReader(io.LimitReader(in, password.Longest+2)))
	}
	lines := bufio.NewReader(f)
	ask := func(question string) ([]byte, error) {
		return readHidden(ctx, f, lines, out, fmt.Sprintf("%s of user %s: ", question, user))
	}
	first, err := ask("New password")
	if err != nil {
		return nil, err
	}
	if len(first) == 0 {
		return nil, errors.New("the password is empty; nothing is changed")
	}
	again, err := ask("Once more, the password")
	if err == nil && !bytes.Equal(first, again) {
		err = errors.New("these are two passwords; nothing is changed")
	}
	return first, err
}

// readHidden asks for a line and reads it from a terminal that shows nothing
// meanwhile, and does so again also if it is interrupted.
func readHidden(ctx context.Context, terminal *os.File, lines *bufio.Reader, out io.Writer, question string) ([]byte, error) {
	fd := int(terminal.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("ask the terminal: %w", err)
	}
	quiet := *was
	quiet.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return nil, fmt.Errorf("hide what is typed: %w", err)
	}
	fmt.Fprint(out, question)
	defer fmt.Fprintln(out)
	defer func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, was) }()
	type result struct {
		line []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := readLine(lines)
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return r.line, r.err
	case <-ctx.Done(): // the process ends, and the reader with it
		return nil, errors.New("interrupted; nothing is changed")
	}
}

// readLine reads up to the end of a line or of the input.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
