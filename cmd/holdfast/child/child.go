// Package child runs the gateway as a process of its own, so that the demo and
// the kill loop can kill it. One goroutine at a time may call its methods.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"holdfast/cmd/holdfast/console"
	"holdfast/cmd/holdfast/gateway"
)

// startWait is how long the gateway may take until it answers.
const startWait = 30 * time.Second

// Gateway is one gateway; it may be started again after its end.
type Gateway struct {
	Binary string // the program
	Config string // its configuration file
	Log    string // what it says is appended to this file
	Socket string // of its console

	cmd  *exec.Cmd
	died chan struct{} // closed at the end of the process
	end  error         // how it ended, after died
}

// Spawn starts the process and returns at once.
func (g *Gateway) Spawn() error {
	log, err := os.OpenFile(g.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(g.Binary, "run", "-c", g.Config)
	cmd.Stdout, cmd.Stderr = log, log
	// If this process is killed the gateway must not live on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	g.cmd, g.died = cmd, make(chan struct{})
	go func() {
		g.end = cmd.Wait()
		close(g.died) // awaited by signal
	}()
	return nil
}

// Start runs the gateway until it answers, and tells how long that took.
func (g *Gateway) Start(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	if err := g.Spawn(); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		if _, err := g.Status(ctx); err == nil {
			return time.Since(begun), nil
		}
		select {
		case <-look.C:
		case <-g.died:
			g.cmd = nil
			return 0, fmt.Errorf("the gateway did not start: %w\n%s", g.end, g.LastLog())
		case <-ctx.Done():
			return 0, errors.Join(fmt.Errorf("the gateway does not answer\n%s", g.LastLog()), g.Kill())
		}
	}
}

func (g *Gateway) Status(ctx context.Context) (st gateway.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return st, console.FetchStatus(ctx, g.Socket, &st)
}

// Alive reports whether it runs: it ends by our hand only.
func (g *Gateway) Alive() bool {
	if g.cmd == nil {
		return false
	}
	select {
	case <-g.died:
		return false
	default:
		return true
	}
}

// Died is closed when the process has ended; it must have been started.
func (g *Gateway) Died() <-chan struct{} { return g.died }

// End is how the process ended, after Died.
func (g *Gateway) End() error { return g.end }

// Kill ends the process as a crash would, and waits until it is dead: nothing
// is flushed, nobody is told.
func (g *Gateway) Kill() error {
	_, err := g.signal(syscall.SIGKILL)
	return err
}

// Stop ends the process politely, if it runs, and returns what it says of that.
func (g *Gateway) Stop() error {
	end, err := g.signal(syscall.SIGTERM)
	return errors.Join(end, err)
}

func (g *Gateway) signal(sig os.Signal) (end, err error) {
	if g.cmd == nil {
		return nil, nil
	}
	if err := g.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return nil, err
	}
	<-g.died
	g.cmd = nil
	return g.end, nil
}

// LastLog is the end of the gateway's log, for an error message.
func (g *Gateway) LastLog() string {
	b, err := os.ReadFile(g.Log)
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	lines = lines[max(0, len(lines)-15):]
	return "the gateway's log ends with:\n" + string(bytes.Join(lines, []byte("\n")))
}
