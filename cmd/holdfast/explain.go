package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/gateway"
	"holdfast/configs"
	"holdfast/edge/topic"
)

func newExplainCommand() *cobra.Command {
	var file string
	var size int
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "explain TOPIC",
		Short: "Tell what the bridges would do with a message",
		Long: `Tell, from the configuration, which bridges take messages of a local topic, by
which route, under which name, and about what that costs on the link.

The cost is that of single messages with the headers of TCP/IP and TLS, both ways.
A backlog costs less for each message. Logins and keep-alives are not in it.`,
		Example: `  holdfast explain -c /etc/holdfast/gateway.toml sensors/t1 --size 60 --every 10s`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := topic.ValidName(args[0]); err != nil {
				return usageError{fmt.Errorf("%q cannot be the topic of a message: %w", args[0], err)}
			}
			if size < 0 || every < 0 {
				return usageError{errors.New("--size and --every must not be negative")}
			}
			cfg, err := loadToolConfig(cmd, file)
			if err != nil {
				return err
			}
			explain(cmd.OutOrStdout(), args[0], gateway.Explain(cfg, args[0], size), every)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file (TOML)")
	cmd.Flags().IntVar(&size, "size", 50, "bytes of the payload")
	cmd.Flags().DurationVar(&every, "every", time.Minute, "how often such a message comes; 0 leaves the month out")
	return cmd
}

// month is the one of data plans.
const month = 30 * 24 * time.Hour

func explain(w io.Writer, name string, bridges []gateway.Explanation, every time.Duration) {
	fmt.Fprintf(w, "%s\n", name)
	for _, b := range bridges {
		if len(b.Routes) == 0 {
			fmt.Fprintf(w, "  bridge %s: no route takes it\n", b.Bridge)
			continue
		}
		for _, r := range b.Routes {
			if !r.Owner {
				fmt.Fprintf(w, "    route %q would match too, but the first has it\n", r.Route)
				continue
			}
			retain := "without RETAIN"
			if r.Retain {
				retain = "RETAIN as published"
			}
			fmt.Fprintf(w, "  bridge %s: by route %q to %s, QoS %d, %s, %s priority\n", b.Bridge, r.Route, r.Remote, r.QoS, retain, r.Lane)
			switch r.Encoding.String() {
			case configs.Base64:
				fmt.Fprintln(w, "    its payload in base64 where the way cannot carry it as it is")
			case configs.Base64Always:
				fmt.Fprintln(w, "    its payload in base64")
			}
			thinned(w, r)
			fmt.Fprintf(w, "    about %d bytes on the link for each", b.Bytes)
			if every > 0 {
				every := max(every, r.Sample) // at most so often
				cost := float64(b.Bytes) * float64(month) / float64(every)
				fmt.Fprintf(w, "; at one every %v %.1f MB a month", every, cost/1e6)
				if b.Plan > 0 {
					fmt.Fprintf(w, ", %.1f %% of the data plan", cost/float64(b.Plan)*100)
				}
			}
			fmt.Fprintln(w)
		}
	}
	if len(bridges) == 0 {
		fmt.Fprintln(w, "  no bridge: messages stay in the local broker")
	}
}

// thinned tells what a route leaves out of its messages or puts into them.
func thinned(w io.Writer, r gateway.RouteExplanation) {
	if r.Sample > 0 {
		fmt.Fprintf(w, "    at most one in %v, the newest\n", r.Sample)
	}
	if r.OnChange {
		fmt.Fprintln(w, "    only if its payload is not that of the one before")
	}
	if r.Stamp {
		fmt.Fprintln(w, "    in JSON with time and sequence number")
	}
}
