package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/queues"
)

func newQueuePurgeCommand(f *queueFlags) *cobra.Command {
	var olderThan time.Duration
	var yes bool
	cmd := &cobra.Command{
		Use:   "purge NAME",
		Short: "Drop the messages of a queue",
		Long: `Drop the messages of a queue for good, counted as dropped(purged). What is being
sent at this moment is left to its bridge. To keep a copy, export them instead.`,
		Example: `  holdfast queue purge cloud --older-than 24h -c gateway.toml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("older-than") && olderThan <= 0 {
				return usageError{errors.New("--older-than: an age like 24h or 30m, more than zero")}
			}
			return f.with(cmd, func(ctx context.Context, c *queues.Client) error {
				what := "all messages of " + args[0]
				if olderThan > 0 {
					what = fmt.Sprintf("the messages of %s that are older than %v", args[0], olderThan)
				}
				if err := confirm(cmd, yes, "Drop "+what+" for good?"); err != nil {
					return err
				}
				p, err := c.Purge(ctx, args[0], olderThan)
				if err == nil || p.Messages > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "dropped %s of %s\n", count(int(p.Messages), "message"), args[0])
				}
				if p.InFlight > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s being sent now, and not dropped\n", are(int(p.InFlight), "message"))
				}
				if p.Left > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s too scattered among younger ones to be dropped at once: purge again later\n", are(int(p.Left), "message"))
				}
				return err
			})
		},
	}
	cmd.Flags().DurationVar(&olderThan, "older-than", 0, "only what was received before this long (24h, 30m)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// confirm asks on a terminal; elsewhere the answer must be on the command line.
func confirm(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(cmd.InOrStdin()) {
		return usageError{errors.New("nobody is there to be asked: add --yes if it is meant")}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	answer, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

func newQueueQuarantineCommand(f *queueFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "Look after messages that could not be sent",
		Long: `A message that the far broker refuses, or that ends the connection every time, is
set aside so that the queue goes on. The first 256 of a queue are kept.`,
		Example: `  holdfast queue quarantine ls cloud -c gateway.toml`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newQuarantineLsCommand(f),
		newUnquarantineCommand(f, false), newUnquarantineCommand(f, true),
	)
	return cmd
}

func newQuarantineLsCommand(f *queueFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls NAME",
		Short:   "List what is in quarantine, and why",
		Example: `  holdfast queue quarantine ls cloud -c gateway.toml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd, func(ctx context.Context, c *queues.Client) error {
				list, err := c.Quarantine(ctx, args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), list)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "ID\tSET ASIDE\tRECEIVED\tROUTE\tTOPIC\tQOS\tBYTES\tREASON")
				for _, a := range list {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", a.ID, clock(a.Since), clock(a.Received), printable(a.Route), printable(a.Topic), a.QoS, a.Size, printable(a.Reason))
				}
				return w.Flush()
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}

// clock is a moment for people; - if it is not known.
func clock(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func newUnquarantineCommand(f *queueFlags, drop bool) *cobra.Command {
	var all, yes bool
	cmd := &cobra.Command{
		Use:     "retry NAME {ID... | --all}",
		Short:   "Put messages back at the end of their lanes",
		Example: `  holdfast queue quarantine retry cloud normal-17 -c gateway.toml`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, ids := args[0], args[1:]
			if all == (len(ids) > 0) {
				return usageError{errors.New("which messages? Give their IDs (holdfast queue quarantine ls), or --all")}
			}
			return f.with(cmd, func(ctx context.Context, c *queues.Client) error {
				did := "back in the queue"
				if drop {
					did = "dropped"
					if err := confirm(cmd, yes, "Drop messages of the quarantine of "+name+" for good?"); err != nil {
						return err
					}
				}
				n, err := c.Unquarantine(ctx, name, drop, ids)
				if err == nil || n.Messages > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s %s\n", are(int(n.Messages), "message"), did)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all that are kept")
	if drop {
		cmd.Use, cmd.Short = "drop NAME {ID... | --all}", "Drop messages for good, counted as dropped(quarantined)"
		cmd.Example = `  holdfast queue quarantine drop cloud --all --yes -c gateway.toml`
		cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	}
	return cmd
}
