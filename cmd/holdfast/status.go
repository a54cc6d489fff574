package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/console"
	"holdfast/cmd/holdfast/gateway"
	"holdfast/configs"
)

func newStatusCommand() *cobra.Command {
	var file, socket string
	var asJSON, watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running gateway is doing, and what is wrong",
		Long: `Show what the running gateway is doing: links, queues, modems, disk and books,
each fact with its age. At the end are warnings, each with what to do.`,
		Example: `  holdfast status -c /etc/holdfast/gateway.toml
  holdfast status --watch
  holdfast status --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var cfg *configs.Config
			if socket == "" {
				var err error
				if cfg, err = loadToolConfig(cmd, file); err != nil {
					return err
				}
				socket = cfg.SocketPath()
			}
			out := cmd.OutOrStdout()
			fetch := func() (st gateway.Status, err error) {
				return st, console.FetchStatus(cmd.Context(), socket, &st)
			}
			st, err := fetch()
			switch {
			case err != nil:
				return explainAbsence(cfg, err)
			case asJSON:
				enc := json.NewEncoder(out)
				enc.SetIndent("", "  ")
				return enc.Encode(st)
			case watch:
				return watchStatus(cmd.Context(), out, st, max(every, 100*time.Millisecond), fetch)
			}
			return show(out, st, nil, "")
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file of the gateway")
	cmd.Flags().StringVar(&socket, "socket", "", "the gateway's unix socket, instead of that of the configuration")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole status as JSON")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again and again, with rates, until interrupted")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "time between two looks with --watch")
	cmd.MarkFlagsMutuallyExclusive("json", "watch")
	return cmd
}

// watchStatus shows st and what comes after it, until ctx ends. A gateway that
// is being restarted is waited for.
func watchStatus(ctx context.Context, out io.Writer, st gateway.Status, every time.Duration, fetch func() (gateway.Status, error)) error {
	clear := ""
	if isTerminal(out) {
		clear = "\x1b[H\x1b[2J"
	}
	if err := show(out, st, nil, clear); err != nil {
		return err
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		next, err := fetch()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			fmt.Fprintln(out, "WARNING", err)
			continue
		}
		if err := show(out, next, &st, clear); err != nil {
			return err
		}
		st = next
	}
}

// show writes one screen at once, in colours on a terminal. before is an earlier
// status, for rates; nil if there is none.
func show(out io.Writer, st gateway.Status, before *gateway.Status, first string) error {
	var b bytes.Buffer
	printStatus(&b, st, before)
	text := b.String()
	if isTerminal(out) && os.Getenv("NO_COLOR") == "" {
		text = coloured(text)
	}
	_, err := io.WriteString(out, first+text)
	return err
}
