package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/fold"
	"holdfast/cmd/holdfast/gateway"
	"holdfast/configs"
)

func newRunCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway until it is interrupted",
		Long: `Run the gateway until it is interrupted (SIGINT or SIGTERM). On SIGHUP it reads
[access] and the bridges of its configuration again.

Without a configuration it serves MQTT on 127.0.0.1:1883 and keeps its data in
./holdfast-data.`,
		Example: `  holdfast run -c /etc/holdfast/gateway.toml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := readConfig(cmd, file)
			if err != nil {
				return err
			}
			written := cfg.Gateway.ID
			who := identify(cmd, cfg)
			if err := cfg.Resolve(who); err != nil {
				return err
			}
			return runGateway(cmd.Context(), cfg, func() (*configs.Config, error) {
				if file == "" {
					return nil, errors.New("the gateway was started without one")
				}
				next, err := readConfig(cmd, file)
				if err != nil {
					return nil, err
				}
				// The gateway is who it was: another name in the client identifiers
				// would be another session at the far broker.
				if id := next.Gateway.ID; id != written && id != who.ID {
					fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s: gateway.id: this gateway is %s until it is restarted\n", file, who.ID)
				}
				return next, next.Resolve(who)
			})
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file (TOML)")
	return cmd
}

// loadConfig reads, validates and resolves a configuration; an empty path is
// the default one. Warnings go to standard error.
func loadConfig(cmd *cobra.Command, path string) (*configs.Config, error) {
	cfg, err := readConfig(cmd, path)
	if err != nil {
		return nil, err
	}
	return cfg, cfg.Resolve(identify(cmd, cfg))
}

// readConfig is loadConfig without resolving it.
func readConfig(cmd *cobra.Command, path string) (*configs.Config, error) {
	if path == "" {
		return configs.Default(), nil
	}
	cfg, warnings, err := configs.Load(path)
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
	}
	return cfg, nil
}

// identify finds out who this gateway is until it ends.
func identify(cmd *cobra.Command, cfg *configs.Config) configs.Identity {
	who, err := cfg.Identify()
	if err != nil {
		// The identity is good until the next start; a gateway starts anyway.
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", err)
	}
	return who
}

// runGateway runs a gateway until ctx ends. reload reads its configuration again.
func runGateway(ctx context.Context, cfg *configs.Config, reload func() (*configs.Config, error)) error {
	limitMemory()
	folded := fold.New(newLogger(cfg.Log).Handler())
	defer folded.Flush()
	log := slog.New(folded)
	// From here on SIGHUP does not end the process any more.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	g, err := gateway.Start(cfg, thisVersion(), log)
	if err != nil {
		return err
	}
	manager := serviceManager{log}
	manager.tell(daemon.SdNotifyReady)
	stopWatch := manager.watch(g)
	failed := untilEnd(ctx, g, log, hangup, reload)
	again := errors.Is(failed, gateway.ErrDiskBack)
	state := daemon.SdNotifyStopping
	if again {
		state = daemon.SdNotifyReloading
	}
	manager.tell(state)
	stopWatch()
	// The signal's context has ended; stopping gets time of its own.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	err = g.Shutdown(stop)
	if again && ctx.Err() == nil {
		folded.Flush()
		failed = startAgain()
	}
	return errors.Join(failed, err)
}

// startAgain makes this process a new one of the same program, with the same number:
// nobody has to be there to start it. It returns only if that cannot be.
func startAgain() error {
	if err := syscall.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
		return fmt.Errorf("the folder can be written again, restart the gateway: %w", err)
	}
	return nil
}

// reloadable is what untilEnd needs of a gateway.
type reloadable interface {
	Failed() <-chan error
	// Reload must return soon when ctx ends.
	Reload(ctx context.Context, cfg *configs.Config) error
}

// untilEnd returns when the gateway is to be stopped; the error is that of a part
// which has failed. Meanwhile each hangup makes it read its configuration again.
func untilEnd(ctx context.Context, g reloadable, log *slog.Logger, hangup <-chan os.Signal, reload func() (*configs.Config, error)) error {
	for {
		var failed error
		select {
		case <-ctx.Done():
			log.Info("stopping")
			return nil
		case failed = <-g.Failed():
		case <-hangup:
			failed = takeOver(ctx, g, log, reload)
		}
		switch {
		case errors.Is(failed, gateway.ErrDiskBack):
			log.Info("starting again: the folder of the store can be written again")
			return failed
		case failed != nil:
			log.Error("stopping: a part has failed", "error", failed)
			return failed
		}
	}
}

// takeOver has the gateway read its configuration again. Neither the end of ctx nor
// a part that fails waits for bridges that take their time to end; the error is
// that of such a part.
func takeOver(ctx context.Context, g reloadable, log *slog.Logger, reload func() (*configs.Config, error)) (failed error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() {
		cfg, err := reload()
		if err == nil {
			err = g.Reload(ctx, cfg)
		}
		done <- err
	}()
	var err error
	select {
	case err = <-done:
	case failed = <-g.Failed():
		stop()
		err = <-done
	}
	if err != nil && ctx.Err() == nil {
		log.Error("the configuration is not taken over: the one before stays in use", "error", err)
	}
	return failed
}

func newLogger(l configs.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: l.Slog()}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}
