package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/child"
	"holdfast/cmd/holdfast/gateway"
	"holdfast/configs"
	"holdfast/modem/sim"
)

func newDemoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole job on this machine, with an outage and a kill -9",
		Long: `Show the whole job on this machine, without hardware, network or root: five
sensors publish to a gateway, which forwards through a simulated LTE CAT1 module
to a broker that stands for the cloud. The radio link goes down, messages pile
up on disk, the gateway is killed with SIGKILL and started again, the link comes
back and the backlog drains. It takes about half a minute and ends with the
books: the exit status is 0 only if everything that was accepted was delivered.`,
		Example: `  holdfast demo`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), cmd.OutOrStdout(), keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the folder with the data and the gateway's log")
	return cmd
}

// demo is the stage: everything that is not the gateway, which runs as a
// process of its own so that it can be killed.
type demo struct {
	out     io.Writer
	dir     string
	started time.Time

	cloud   *gateway.Gateway
	module  *sim.Module
	broker  string // the gateway's address
	sensors []*sensor
	watch   *watcher
	gw      *child.Gateway
}

func runDemo(ctx context.Context, out io.Writer, keep bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	d := &demo{out: out, started: time.Now()}
	if d.dir, err = os.MkdirTemp("", "holdfast-demo-"); err != nil {
		return err
	}
	if keep {
		fmt.Fprintln(out, "data and log:", d.dir)
	} else {
		defer os.RemoveAll(d.dir)
	}
	defer func() {
		if stopErr := d.strike(); err == nil {
			err = stopErr
		}
	}()
	if err := d.build(); err != nil {
		return err
	}
	return d.play(ctx)
}

// build sets the stage: cloud, module, configuration.
func (d *demo) build() error {
	quiet := slog.New(slog.DiscardHandler)
	cfg := configs.Default()
	cfg.Gateway.ID = "cloud"
	cfg.Gateway.DataDir = filepath.Join(d.dir, "cloud")
	cfg.Listeners[0].Address = "127.0.0.1:0"
	cfg.Console.Address = ""
	var err error
	if d.cloud, err = gateway.Start(cfg, thisVersion(), quiet); err != nil {
		return fmt.Errorf("start the cloud's broker: %w", err)
	}
	if d.module, err = sim.New(sim.Options{Baud: 115200, Logger: quiet}); err != nil {
		return fmt.Errorf("start the simulated module: %w", err)
	}
	if d.broker, err = child.FreeAddress(); err != nil {
		return err
	}
	file := filepath.Join(d.dir, "gateway.toml")
	if err := os.WriteFile(file, []byte(d.config()), 0o600); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	d.gw = &child.Gateway{Binary: self, Config: file, Log: filepath.Join(d.dir, "gateway.log"), Socket: d.socket()}
	return nil
}

func (d *demo) config() string {
	return fmt.Sprintf(`[gateway]
id = "demo"
data_dir = %q

[console]
address = ""
socket = %q

[[listener]]
address = %q

[[modem]]
name = "lte"
port = %q

[[bridge]]
name = "cloud"
  [[bridge.upstream]]
  url = "tcp://%s"
  via = "lte"
  [[bridge.route]]
  name = "sensors"
  direction = "out"
  topic = "sensors/#"
  remote_prefix = "site/{id}/"
`, filepath.Join(d.dir, "gateway"), d.socket(), d.broker, d.module.Path(), d.cloud.Addresses()[0])
}

func (d *demo) socket() string { return filepath.Join(d.dir, "gw.sock") }

// strike takes the stage down and waits for everything on it.
func (d *demo) strike() error {
	for _, s := range d.sensors {
		s.stop()
	}
	var errs []error
	if d.gw != nil {
		errs = append(errs, d.gw.Stop())
	}
	if d.watch != nil {
		d.watch.stop()
	}
	if d.module != nil {
		errs = append(errs, d.module.Close())
	}
	if d.cloud != nil {
		errs = append(errs, d.cloud.Shutdown(context.Background()))
	}
	return errors.Join(errs...)
}
