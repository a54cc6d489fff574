package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/gateway"
)

// errDamaged makes fsck end with 1.
var errDamaged = errors.New("the store is damaged; start the gateway and it does what is said above, or copy the folder first")

func newFsckCommand() *cobra.Command {
	var file, dir string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Look for damage in the data of a stopped gateway",
		Long: `Look at every byte that a stopped gateway has on disk, tell what is damaged and
what the next start does about it. Nothing is changed.

It ends with 0 if all is well, and with 1 if there is damage.`,
		Example: `  holdfast fsck -c /etc/holdfast/gateway.toml
  holdfast fsck --data-dir /var/lib/holdfast --verbose`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				cfg, err := loadToolConfig(cmd, file)
				if err != nil {
					return err
				}
				dir = cfg.Gateway.DataDir
			}
			return fsck(cmd.OutOrStdout(), cmd.ErrOrStderr(), dir, verbose)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file of the gateway")
	cmd.Flags().StringVar(&dir, "data-dir", "", "its data folder, instead of that of the configuration")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "tell also what was looked at")
	return cmd
}

func fsck(stdout, stderr io.Writer, dir string, verbose bool) error {
	began, told := time.Now(), false
	r, err := gateway.CheckStore(dir, func(done, total int64) {
		if told = told || time.Since(began) > time.Second; told && total > 0 {
			fmt.Fprintf(stderr, "\r%d of %d MB read", done>>20, total>>20)
		}
	})
	if told {
		fmt.Fprintln(stderr)
	}
	if err != nil {
		return err
	}
	loss := false
	for _, f := range r.Findings {
		loss = loss || f.Loss
		fmt.Fprintf(stdout, "%s: %s\n    at the next start: %s\n", f.File, f.Problem, f.Action)
	}
	if verbose {
		fmt.Fprintf(stdout, "%s: %s, %s, %s, %s of messages in tables; %s set aside before (%s)\n", dir,
			count(r.Tables, "table"), count(r.Memtables, "memtable"), count(r.Rows, "row"),
			batches(r.Batches), count(r.SetAside, "file"), size(r.SetAsideBytes))
	}
	if loss {
		fmt.Fprintln(stdout, "What cannot be read is counted as lost in the books of its route.")
		return errDamaged
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(stdout, "Nothing is lost.")
		return errDamaged
	}
	fmt.Fprintln(stdout, "No damage was found.")
	return nil
}

func batches(n int) string {
	if n == 1 {
		return "1 batch"
	}
	return fmt.Sprintf("%d batches", n)
}
