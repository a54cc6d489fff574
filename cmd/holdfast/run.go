package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/gateway"
	"holdfast/configs"
)

func newRunCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway until it is interrupted",
		Long: `Run the gateway until it is interrupted (SIGINT or SIGTERM).

Without a configuration it serves MQTT on 127.0.0.1:1883 and keeps its data in
./holdfast-data.`,
		Example: `  holdfast run -c /etc/holdfast/gateway.toml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd, file)
			if err != nil {
				return err
			}
			return runGateway(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration file (TOML)")
	return cmd
}

// loadConfig reads, validates and resolves a configuration; an empty path is
// the default one. Warnings go to standard error.
func loadConfig(cmd *cobra.Command, path string) (*configs.Config, error) {
	cfg := configs.Default()
	if path != "" {
		var warnings []string
		var err error
		if cfg, warnings, err = configs.Load(path); err != nil {
			return nil, err
		}
		for _, w := range warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
		}
	}
	id, err := cfg.Identify()
	if err != nil {
		// The identity is good until the next start; a gateway starts anyway.
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", err)
	}
	return cfg, cfg.Resolve(id)
}

func runGateway(ctx context.Context, cfg *configs.Config) error {
	limitMemory()
	log := newLogger(cfg.Log)
	g, err := gateway.Start(cfg, log)
	if err != nil {
		return err
	}
	manager := serviceManager{log}
	manager.tell(daemon.SdNotifyReady)
	stopWatch := manager.watch(g)
	var failed error
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case failed = <-g.Failed():
		log.Error("stopping: a part has failed", "error", failed)
	}
	manager.tell(daemon.SdNotifyStopping)
	stopWatch()
	// The signal's context has ended; stopping gets time of its own.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return errors.Join(failed, g.Shutdown(stop))
}

func newLogger(l configs.Log) *slog.Logger {
	o := &slog.HandlerOptions{Level: l.Slog()}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}
