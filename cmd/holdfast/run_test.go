package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"syscall"
	"testing"

	"holdfast/configs"
)

// slowReload is a gateway whose bridges take until the end of ctx to end.
type slowReload struct {
	failed  chan error
	reading chan struct{}
	ended   bool // only of the one that reloads, until untilEnd has returned
}

func (s *slowReload) Failed() <-chan error { return s.failed }

func (s *slowReload) Reload(ctx context.Context, _ *configs.Config) error {
	close(s.reading)
	<-ctx.Done()
	s.ended = true
	return ctx.Err()
}

// TestAReloadDoesNotHoldUpTheEnd: SIGTERM and a part that has failed come while a
// bridge that has changed does not end.
func TestAReloadDoesNotHoldUpTheEnd(t *testing.T) {
	t.Parallel()
	broken := errors.New("a part is broken")
	for name, want := range map[string]error{"SIGTERM": nil, "a part has failed": broken} {
		ctx, terminate := context.WithCancel(t.Context())
		defer terminate()
		g := &slowReload{failed: make(chan error, 1), reading: make(chan struct{})}
		hangup := make(chan os.Signal, 1)
		hangup <- syscall.SIGHUP
		done := make(chan error, 1)
		go func() {
			done <- untilEnd(ctx, g, slog.New(slog.DiscardHandler), hangup, func() (*configs.Config, error) { return configs.Default(), nil })
		}()
		<-g.reading
		if want == nil {
			terminate()
		} else {
			g.failed <- want
		}
		if err := <-done; err != want {
			t.Errorf("%s: %v", name, err)
		}
		if !g.ended {
			t.Errorf("%s: the gateway would be shut down while it reloads", name)
		}
	}
}
