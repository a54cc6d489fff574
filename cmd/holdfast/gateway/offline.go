package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"holdfast/cmd/holdfast/queues"
	"holdfast/configs"
	"holdfast/storage"
)

// Offline opens the data folder of a gateway that does not run, for work on its
// queues. It must be closed: until then no gateway can start there. Nothing is
// made if there is no store.
func Offline(cfg *configs.Config, log *slog.Logger) (*queues.Client, error) {
	o := storeOptions(cfg, log)
	switch inUse, err := storage.InUse(o.Dir); {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("there is no store in %s; say with -c FILE which gateway is meant", cfg.Gateway.DataDir)
	case err != nil:
		return nil, fmt.Errorf("look at the store in %s: %w", cfg.Gateway.DataDir, err)
	case inUse:
		return nil, fmt.Errorf("a process has the store in %s open, but no gateway answers at %s: it is starting or stopping, or has another console.socket; try again, or give --socket", cfg.Gateway.DataDir, cfg.SocketPath())
	}
	s, err := storage.Open(o)
	if err != nil {
		return nil, err
	}
	if _, _, err := openQueues(s, cfg.Bridges); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return queues.Local("the data folder "+cfg.Gateway.DataDir+" (no gateway runs)", queues.NewServer(s, func() []string { return bridgeNames(cfg) }), s.Close), nil
}

func bridgeNames(cfg *configs.Config) (names []string) {
	for _, b := range cfg.Bridges {
		names = append(names, b.Name)
	}
	return names
}
