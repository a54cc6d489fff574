package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// powerWait bounds power_command.
	powerWait = time.Minute
	// maxSaid is how much of what it prints is kept.
	maxSaid = 1 << 10
)

// powerCommand runs the user's command that cuts a module's power and gives it
// back. All that it has started is ended when its time is over before it has ended;
// what it leaves behind then goes on, for it may be what gives the power back.
func powerCommand(name, command string, log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, powerWait)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
		cmd.Env = append(os.Environ(), "HOLDFAST_MODEM="+name)
		var said firstWords
		cmd.Stdout, cmd.Stderr = &said, &said
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = time.Second // a child that keeps the pipe open
		begun := time.Now()
		err := cmd.Run()
		if errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
			err = nil // it has worked, and left something in the background
		}
		words := strings.TrimSpace(string(said))
		if err == nil {
			log.Info("power_command was run", "said", words, "took", time.Since(begun).Round(time.Millisecond))
			return nil
		}
		if ctx.Err() == context.DeadlineExceeded {
			err = fmt.Errorf("it took longer than %v", powerWait)
		}
		return fmt.Errorf("power_command failed (%q): %w", words, err)
	}
}

// firstWords keeps the first maxSaid bytes that are written to it.
type firstWords []byte

func (w *firstWords) Write(p []byte) (int, error) {
	*w = append(*w, p[:min(len(p), maxSaid-len(*w))]...)
	return len(p), nil
}
