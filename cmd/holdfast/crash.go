package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/crash"
	"holdfast/configs"
)

func newCrashCommand() *cobra.Command {
	o := crash.Options{}
	cmd := &cobra.Command{
		Use:    "crash",
		Hidden: true,
		Short:  "Kill the gateway again and again, and check its promises after each restart",
		Long: `Run the gateway as a process under a mixed load - QoS 0, 1 and 2, durable
sessions online and offline in turns, retained values, a bridge whose line is cut
and frozen, commands coming down - and kill it with SIGKILL at random moments.
After each restart it is checked that every acknowledged message is there or was
delivered, in order and intact, QoS 2 exactly once, and that the books balance.
The exit status is 1 if anything is missing.`,
		Example: `  holdfast crash --rounds 200
  holdfast crash --seed 42 --rounds 20 --kill-max 300ms`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Rounds < 1 || o.KillMin < 0 || o.KillMax < o.KillMin {
				return usageError{fmt.Errorf("--rounds must be at least 1, and --kill-max not below --kill-min")}
			}
			if o.Sync != "" && o.Sync != configs.SyncAlways && o.Sync != configs.SyncSpill {
				return usageError{fmt.Errorf("--sync is always or spill")}
			}
			if !cmd.Flags().Changed("seed") {
				o.Seed = rand.Uint64() >> 32
			}
			var err error
			if o.Binary, err = os.Executable(); err != nil {
				return err
			}
			o.Out = cmd.OutOrStdout()
			return crash.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Rounds, "rounds", 200, "how many times to kill it under load")
	f.Uint64Var(&o.Seed, "seed", 0, "repeat the decisions of a run (default: a random one, printed)")
	f.DurationVar(&o.KillMin, "kill-min", 50*time.Millisecond, "shortest time of load before a kill")
	f.DurationVar(&o.KillMax, "kill-max", 1500*time.Millisecond, "longest time of load before a kill")
	f.StringVar(&o.Dir, "dir", "", "folder for the data (default: a temporary one)")
	f.BoolVar(&o.Keep, "keep", false, "keep the folder with the data and the gateway's log")
	f.DurationVar(&o.Patience, "patience", 30*time.Second, "longest time to wait for what has to come")
	f.StringVar(&o.Sync, "sync", "", "storage.sync of all rounds, always or spill (default: by the seed, in each round)")
	f.BoolVar(&o.EarlyAck, "early-ack", false, "acknowledge before the gateway does: the run must then fail")
	return cmd
}
