package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/configs"
)

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// run executes one command line. It does not print the error that it returns.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	// What fails before a command has begun is the fault of the command line.
	begun := false
	root.PersistentPreRun = func(*cobra.Command, []string) { begun = true }
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !begun {
		return usageError{fmt.Errorf("%s\nSee %s --help", strings.TrimSpace(err.Error()), cmd.CommandPath())}
	}
	return err
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "An MQTT gateway that loses nothing on a bad line",
		Long: `Holdfast is a gateway for sites with a bad line: a local MQTT broker for the
sensors, a queue on disk, and a bridge to a far broker, over the network or an
LTE module. What it has acknowledged is safe.`,
		Example: `  holdfast init                     ask what it needs, and write a configuration
  holdfast check -c gateway.toml    tell every mistake in a configuration
  holdfast run -c gateway.toml      run the gateway`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.AddCommand(
		newInitCommand(),
		newRunCommand(),
		newCheckCommand(),
		newExplainCommand(),
		newStatusCommand(),
		newQueueCommand(),
		newPasswdCommand(),
		newPubCommand(),
		newSubCommand(),
		newFsckCommand(),
		newModemCommand(),
		newSimCommand(),
		newDemoCommand(),
		newCrashCommand(),
		newVersionCommand(),
	)
	root.AddCommand(packCommands()...)
	return root
}

// printError tells err once, on the way out.
func printError(w io.Writer, err error) {
	var faults configs.Faults
	if errors.As(err, &faults) {
		// Each begins with FILE:LINE, where editors and terminals can jump to.
		fmt.Fprintf(w, "%s\nholdfast: %s to correct in the configuration\n", faults, count(len(faults), "fault"))
		return
	}
	fmt.Fprintln(w, "holdfast:", err)
}

// exitCode is 2 if the user has something to correct, 1 for everything else.
func exitCode(err error) int {
	var faults configs.Faults
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &faults), errors.As(err, &usage):
		return 2
	}
	return 1
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
