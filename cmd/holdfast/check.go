package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"holdfast/configs"
)

func newCheckCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Tell every mistake in a configuration, with its line",
		Long: `Read a configuration as the gateway would and tell every mistake in it at once,
with its line, then what the gateway would do. Nothing is started or changed.

The exit status is 0 if the gateway would start with it, and 2 if not.`,
		Example: `  holdfast check -c /etc/holdfast/gateway.toml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				file = whichConfig(os.Stat, configs.Default().Gateway.DataDir, installedConfig)
			}
			if file == "" {
				return usageError{errors.New("which file? Write holdfast check -c FILE")}
			}
			return checkFile(cmd.OutOrStdout(), cmd.ErrOrStderr(), file)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file (TOML)")
	return cmd
}

// checkFile tells every mistake in a file, or what the gateway would do with it.
func checkFile(stdout, stderr io.Writer, file string) error {
	c, warnings, err := configs.Load(file)
	for _, w := range warnings {
		fmt.Fprintln(stderr, "warning:", w)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: ok\n", file)
	return summarize(stdout, c)
}

// summarize tells what the gateway would do with c.
func summarize(out io.Writer, c *configs.Config) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", what, fmt.Sprintf(format, args...))
	}
	line("  data", "%s, at most %v", c.Gateway.DataDir, c.Storage.MaxBytes)
	if c.Storage.Sync == configs.SyncSpill {
		line("  sync", "spill: a message is written if it is not acknowledged within %v", c.Storage.SpillAfter)
	} else {
		line("  sync", "always: a message is written before it is acknowledged")
	}
	for _, l := range c.Listeners {
		address := l.Address
		if l.Interface != "" {
			address += " over " + l.Interface
		}
		line("  listener", "%s (%s), without a password: %s", address, l.Transport, c.Access.Anonymous)
	}
	if n := len(c.Access.Users); n > 0 {
		line("  users", "%d", n)
	}
	if c.Console.Address != "" {
		line("  console", "http://%s", c.Console.Address)
	}
	for _, m := range c.Modems {
		line("  modem", "%s on %s, %d baud%s", m.Name, m.Port, m.Baud, plan(m.DataPlan, m.DataPlanHard))
	}
	for _, b := range c.Bridges {
		line("  bridge", "%s as %s, up to %v on disk, then %s", b.Name, b.ClientID, b.Queue.MaxBytes, b.Queue.WhenFull)
		for _, u := range b.Upstreams {
			// Load has found the address good.
			address, _ := u.Address()
			if u.Via != "" {
				address += " through modem " + u.Via
			}
			if u.Interface != "" {
				address += " over " + u.Interface
			}
			if u.TLS() {
				address += ", TLS"
			}
			line("    upstream", "%s%s", address, plan(u.DataPlan, u.DataPlanHard))
		}
		for _, r := range b.Routes {
			arrow := map[string]string{configs.Out: "->", configs.In: "<-", configs.Both: "<->"}[r.Direction]
			line("    route", "%s %s %s, QoS %d, %s priority", r.LocalPrefix+r.Topic, arrow, r.RemotePrefix+r.Topic, r.QoS, r.Priority)
		}
	}
	if len(c.Bridges) == 0 {
		line("  bridge", "none: messages stay in the local broker")
	}
	return w.Flush()
}

// plan tells of a data plan, if there is one.
func plan(size configs.Size, hard bool) string {
	switch {
	case size == 0:
		return ""
	case hard:
		return fmt.Sprintf(", %v a month and nothing beyond", size)
	}
	return fmt.Sprintf(", %v a month, then high priority only", size)
}
