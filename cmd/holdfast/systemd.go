package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"holdfast/cmd/holdfast/gateway"
)

// serviceManager is who started the gateway, if it wants to be told how it is:
// sd_notify(3). Without one nothing is sent.
type serviceManager struct{ log *slog.Logger }

func (s serviceManager) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("the service manager was not told", "state", state, "error", err)
	}
}

// watchEvery is how often the parts are asked without a watchdog: /healthz says
// what they have answered.
const watchEvery = 10 * time.Second

// watch asks the parts of g for signs of life, and feeds the watchdog of the
// service manager, if it has one, while every part answers, until stop is
// called, which waits for it.
func (s serviceManager) watch(g *gateway.Gateway) (stop func()) {
	timeout, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("there is no watchdog", "error", err)
	}
	every, feed := watchEvery, func() {}
	if err == nil && timeout > 0 {
		every, feed = max(timeout/4, 10*time.Millisecond), func() { s.tell(daemon.SdNotifyWatchdog) }
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.Watch(ctx, every, feed)
	}()
	return func() {
		cancel()
		<-ended
	}
}
