package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/gateway"
	"holdfast/cmd/holdfast/queues"
)

// queueFlags say on which gateway the commands work.
type queueFlags struct {
	file, socket string
}

func newQueueCommand() *cobra.Command {
	f := new(queueFlags)
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look into the queues on disk, and take them apart",
		Long: `Look into the queues on disk, and take them apart.

The commands work on the running gateway, over its unix socket, or, when none
runs, on its data folder. They say on standard error which of the two it was.
Every message that they move or remove is in the books of its route.

A queue is named after its bridge. Those of durable sessions are session/CLIENT;
they can be looked at and copied.`,
		Example: `  holdfast queue ls -c gateway.toml
  holdfast queue export cloud -o backlog.ndjson -c gateway.toml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVarP(&f.file, "config", "c", "", "configuration file of the gateway")
	cmd.PersistentFlags().StringVar(&f.socket, "socket", "", "the unix socket of a running gateway, instead of that of the configuration")
	cmd.AddCommand(
		newQueueLsCommand(f), newQueuePeekCommand(f), newQueueExportCommand(f),
		newQueueImportCommand(f), newQueuePurgeCommand(f), newQueueQuarantineCommand(f),
	)
	return cmd
}

// with does something with the queues of the running gateway, or of its folder.
func (f *queueFlags) with(cmd *cobra.Command, do func(context.Context, *queues.Client) error) (err error) {
	ctx := cmd.Context()
	socket := f.socket
	var offline func() (*queues.Client, error)
	if socket == "" {
		cfg, err := loadToolConfig(cmd, f.file)
		if err != nil {
			return err
		}
		socket = cfg.SocketPath()
		offline = func() (*queues.Client, error) { return gateway.Offline(cfg, newLogger(cfg.Log)) }
	}
	c, err := queues.Dial(ctx, socket)
	if errors.Is(err, queues.ErrNobody) && offline != nil {
		c, err = offline()
	}
	if err != nil {
		return err
	}
	// Closing the store of a folder writes what was changed last.
	defer func() { err = errors.Join(err, c.Close()) }()
	fmt.Fprintln(cmd.ErrOrStderr(), "on", c.How)
	return do(ctx, c)
}

func newQueueLsCommand(f *queueFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List the queues",
		Example: `  holdfast queue ls -c gateway.toml --json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.with(cmd, func(ctx context.Context, c *queues.Client) error {
				list, err := c.List(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(cmd.OutOrStdout(), list)
				}
				return printQueues(cmd.OutOrStdout(), list)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printQueues(out io.Writer, list []queues.Info) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "QUEUE\tMESSAGES\tSIZE\tOLDEST\tHIGH/NORMAL/LOW\tQUARANTINE\t")
	for _, q := range list {
		var notes []string
		if q.Retired {
			notes = append(notes, "no longer in the configuration")
		}
		if q.Busy != "" {
			notes = append(notes, q.Busy+" is under way")
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d/%d/%d\t%d\t%s\n", printable(q.Queue), q.Depth, size(q.Bytes), ago(q.Oldest),
			q.Lanes["high"], q.Lanes["normal"], q.Lanes["low"], q.Quarantined, strings.Join(notes, "; "))
	}
	return w.Flush()
}

// ago is the age of a moment; - if it is not known.
func ago(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return age(*t).String()
}

// printable is text from outside without what could confuse a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

func newQueuePeekCommand(f *queueFlags) *cobra.Command {
	var n int
	var lane string
	var payload bool
	cmd := &cobra.Command{
		Use:   "peek NAME",
		Short: "Show the first messages of a queue, and take none",
		Long: `Show the first messages of a queue as it would hand them out, and take none of
them. Payloads are not shown unless --payload is given, and then only their first
bytes, so quoted that they cannot confuse a terminal.`,
		Example: `  holdfast queue peek cloud -n 20 --lane high --payload -c gateway.toml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n < 1 {
				return usageError{errors.New("-n: how many messages? At least 1")}
			}
			return f.with(cmd, func(ctx context.Context, c *queues.Client) error {
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprint(w, "LANE\tSEQ\tAGE\tROUTE\tTOPIC\tQOS\tBYTES")
				if payload {
					fmt.Fprint(w, "\tPAYLOAD")
				}
				fmt.Fprintln(w)
				err := c.Peek(ctx, args[0], lane, n, func(l *queues.Line) {
					received := &l.Msg.Received
					if received.IsZero() {
						received = nil
					}
					fmt.Fprintf(w, "%v\t%d\t%s\t%s\t%s\t%d\t%d", l.Lane, l.Seq, ago(received), printable(l.Route), printable(l.Msg.Topic), l.Msg.QoS, len(l.Msg.Payload))
					if payload {
						fmt.Fprintf(w, "\t%s", queues.Preview(l.Msg, 60))
					}
					fmt.Fprintln(w)
				})
				return errors.Join(err, w.Flush())
			})
		},
	}
	cmd.Flags().IntVarP(&n, "number", "n", 10, "how many messages")
	cmd.Flags().StringVar(&lane, "lane", "", "only of this lane: high, normal or low")
	cmd.Flags().BoolVar(&payload, "payload", false, "show the beginning of each payload")
	return cmd
}
