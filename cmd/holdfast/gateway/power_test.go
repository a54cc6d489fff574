package gateway

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestThePowerCommandIsRunWithTheModemsName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "said")
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	if err := powerCommand("lte", `printf %s "$HOLDFAST_MODEM" > `+file+`; echo relay 3 switched; yes | head -c 100000`, logger)(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "lte" {
		t.Errorf("it said %q, %v", got, err)
	}
	if !strings.Contains(log.String(), "relay 3 switched") || log.Len() > 4*maxSaid {
		t.Errorf("the log has %d bytes: %.200s", log.Len(), &log)
	}
	err := powerCommand("lte", "echo no such relay; exit 3", logger)(context.Background())
	if err == nil || !strings.Contains(err.Error(), "no such relay") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a failure gave %v", err)
	}
}

func TestAPowerCommandThatHangsIsEndedWithItsChildren(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- powerCommand("lte", "sleep 1000 & echo $! > "+file+".new; mv "+file+".new "+file+"; wait", slog.New(slog.DiscardHandler))(ctx)
	}()
	var pid int
	for end := time.Now().Add(time.Minute); pid == 0; {
		if time.Now().After(end) {
			t.Fatal("the command does not begin")
		}
		raw, _ := os.ReadFile(file)
		pid, _ = strconv.Atoi(strings.TrimSpace(string(raw)))
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("it was ended, and is said to have worked")
	}
	for end := time.Now().Add(time.Minute); ; {
		// A zombie that nobody waits for is dead too.
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break
		}
		if time.Now().After(end) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("its child still runs")
		}
		time.Sleep(time.Millisecond)
	}
}

// A command may leave something in the background that gives the power back later.
func TestAPowerCommandThatLeavesSomethingBehindHasWorked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	if err := powerCommand("lte", "echo off; sleep 1000 & echo $! > "+file, slog.New(slog.DiscardHandler))(t.Context()); err != nil {
		t.Error(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("what it has left was ended: %v", err)
	}
}
