package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"holdfast/modem/sim"
)

// simFlags are the flags of "holdfast sim".
type simFlags struct {
	baud    int
	pin     string
	refuse  uint8
	traps   []string
	seed    int64
	dialect string
	sockets string
	symlink string
	script  string
	verbose bool
}

func newSimCommand() *cobra.Command {
	var f simFlags
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Run a simulated LTE module, to try a gateway without hardware",
		Long: `Run a simulated LTE CAT1 module on a pseudo terminal. It takes AT commands like the
real one, for MQTT in three dialects and for TCP sockets, and connects to whatever broker
the gateway names, over this machine's network.

While it runs, these lines on standard input change it:

  down, up            take the radio away, give it back
  outage TIME         both, with so much time between them, as in 10m
  wait TIME           do nothing for so long
  signal DBM          tell this strength, as in -105
  reboot              cut the power for a moment
  refuse N            answer CONNECT with return code N; 0 asks the broker
  trap NAME on|off    switch a trap; a number between 0 and 1 is its odds
  traps, stats        show them
  quit

All but the last two lines may stand in a file for --script, one step a line, with
remarks behind a #; "repeat" as the last one begins anew, "repeat 3" ends after
three rounds.

Traps are what some firmware does, or what any does now and then:

` + trapHelp(),
		Example: `  holdfast sim --symlink /tmp/lte
  holdfast sim --refuse 5 --trap conn-short
  holdfast sim --script bad-day.txt
  holdfast sim --trap lost-ack=0.1 --trap urc-in-reply=0.5 --seed 7`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runSim(cmd.Context(), f, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.baud, "baud", 115200, "speed of the line in bits per second; 0 is as fast as it goes")
	flags.StringVar(&f.pin, "pin", "", "lock the SIM with this PIN")
	flags.Uint8Var(&f.refuse, "refuse", 0, "answer CONNECT with this return code (1 to 5)")
	flags.StringArrayVar(&f.traps, "trap", nil, "switch a trap on: NAME, or NAME=ODDS; may be repeated")
	flags.Int64Var(&f.seed, "seed", 1, "seed of what happens at random")
	flags.StringVar(&f.dialect, "dialect", "ecmt", "commands for MQTT: ecmt, qmt or cmqtt")
	flags.StringVar(&f.sockets, "sockets", "ecso", "commands for TCP sockets: ecso, qi or none")
	flags.StringVar(&f.symlink, "symlink", "", "give the port this name as well, which stays the same")
	flags.StringVar(&f.script, "script", "", "a file with what happens to the module, a step a line")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "name every command on standard error")
	return cmd
}

func trapHelp() string {
	var b strings.Builder
	for _, t := range sim.AllTraps() {
		fmt.Fprintf(&b, "  %-18s  %s\n", t.Name, t.What)
	}
	return b.String()
}

// runSim runs a module until ctx ends or someone types quit. The end of the
// input alone does not end it: under a supervisor there is none.
func runSim(ctx context.Context, f simFlags, in io.Reader, out, errOut io.Writer) (err error) {
	o := sim.Options{Baud: f.baud, PIN: f.pin, Seed: f.seed, Dialect: f.dialect, Sockets: f.sockets}
	if f.verbose {
		o.Logger = slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, t := range f.traps {
		name, odds, given := strings.Cut(t, "=")
		if !given {
			odds = "on"
		}
		if err := setTrap(&o.Traps, name, odds); err != nil {
			return usageError{err}
		}
	}
	if f.baud < 0 {
		return usageError{fmt.Errorf("--baud %d is impossible; 0 is an unpaced line", f.baud)}
	}
	var script sim.Script
	if f.script != "" {
		if script, err = readScript(f.script); err != nil {
			return err
		}
	}
	m, err := sim.New(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	m.Refuse(f.refuse)
	ctx, stop := context.WithCancel(ctx)
	var playing sync.WaitGroup
	defer playing.Wait()
	defer stop()

	port := m.Path()
	if f.symlink != "" {
		if err := linkPort(m.Path(), f.symlink); err != nil {
			return err
		}
		defer unlinkPort(m.Path(), f.symlink)
		port = f.symlink
	}
	fmt.Fprintf(out, simGreeting, port, f.tomlLines(port))
	if f.script != "" {
		playing.Go(func() {
			if m.Play(ctx, script, func(step string) { fmt.Fprintln(errOut, "script:", step) }) == nil {
				fmt.Fprintln(errOut, "script: the end; the module goes on")
			}
		})
	}

	lines := make(chan string)
	// A read of standard input cannot be interrupted, so that this goroutine
	// is left to the end of the process.
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, ok := <-lines:
			if !ok {
				lines = nil // and wait for the signal
				continue
			}
			quit, err := simLine(ctx, m, strings.Fields(line), out)
			if err != nil {
				fmt.Fprintln(errOut, err)
			}
			if quit {
				return nil
			}
		}
	}
}

const simGreeting = `The module is on %s.

For the gateway's configuration:

%s
"help" lists what can be typed here; Ctrl-C ends it.
`

// tomlLines is what a gateway needs to use this module.
func (f *simFlags) tomlLines(port string) string {
	baud := f.baud
	if baud == 0 {
		baud = 115200
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[[modem]]\nname = \"lte\"\nport = %q\nbaud = %d\n", port, baud)
	if f.pin != "" {
		fmt.Fprintf(&b, "pin = %q\n", f.pin)
	}
	b.WriteString(`
[[bridge]]
name = "cloud"

[[bridge.upstream]]
url = "mqtt://127.0.0.1:1884"   # your broker, as seen from this machine
via = "lte"

[[bridge.route]]
direction = "out"
topic = "#"
`)
	return b.String()
}

// maxScript bounds the file of --script.
const maxScript = 1 << 20

func readScript(name string) (sim.Script, error) {
	file, err := os.Open(name)
	if err != nil {
		return sim.Script{}, usageError{err}
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxScript+1))
	if err != nil {
		return sim.Script{}, fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > maxScript {
		return sim.Script{}, usageError{fmt.Errorf("%s has more than %d bytes", name, maxScript)}
	}
	script, err := sim.ParseScript(string(text))
	if err != nil {
		return sim.Script{}, usageError{fmt.Errorf("%s:\n%w", name, err)}
	}
	return script, nil
}

// simLine carries out one line of standard input.
func simLine(ctx context.Context, m *sim.Module, words []string, out io.Writer) (quit bool, err error) {
	if len(words) == 0 {
		return false, nil
	}
	switch verb, rest := words[0], words[1:]; {
	case verb == "traps" && len(rest) == 0:
		t := m.Traps()
		for _, trap := range sim.AllTraps() {
			fmt.Fprintf(out, "%4v  %-18s  %s\n", float64(t.Get(trap.Name)), trap.Name, trap.What)
		}
	case verb == "stats" && len(rest) == 0:
		printSimStats(out, m.Stats())
	case verb == "quit" || verb == "exit":
		return true, nil
	case verb == "help":
		fmt.Fprintln(out, "down, up, outage TIME, wait TIME, signal DBM, reboot, refuse N, trap NAME on|off|ODDS, traps, stats, quit")
	default:
		script, err := sim.ParseScript(strings.Join(words, " "))
		if err != nil {
			return false, fmt.Errorf("%s; help lists what there is", strings.TrimPrefix(err.Error(), "line 1: "))
		}
		return false, m.Play(ctx, script, nil)
	}
	return false, nil
}

func setTrap(t *sim.Traps, name, odds string) error {
	n, err := sim.ParseOdds(odds)
	if err != nil {
		return fmt.Errorf("trap %s: %w", name, err)
	}
	return t.Set(name, n)
}

func printSimStats(w io.Writer, s sim.Stats) {
	fmt.Fprintf(w, "commands   %d, unsolicited lines %d, reboots %d\n", s.Commands, s.URCs, s.Reboots)
	fmt.Fprintf(w, "publishes  %d queued, %d sent, %d acknowledged, %d lost without a word\n",
		s.PublishQueued, s.PublishSent, s.PublishAcked, s.PublishLost)
	fmt.Fprintf(w, "downlink   %d messages\n", s.Received)
	fmt.Fprintf(w, "connects   %d, %d of them by the firmware itself\n", s.Connects, s.Reconnects)
	fmt.Fprintf(w, "air        %d bytes up, %d down\n", s.Up, s.Down)
	fmt.Fprintf(w, "line       %d bytes in, %d out, %d discarded\n", s.UARTIn, s.UARTOut, s.UARTDiscarded)
	for _, what := range slices.Sorted(maps.Keys(s.Mistakes)) {
		fmt.Fprintf(w, "mistake    %s: %d\n", what, s.Mistakes[what])
	}
}

// linkPort makes name a symbolic link to the port. An older link is replaced,
// anything else is left alone.
func linkPort(port, name string) error {
	if st, err := os.Lstat(name); err == nil {
		if st.Mode()&os.ModeSymlink == 0 {
			return fmt.Errorf("%s exists and is not a symbolic link; choose another name", name)
		}
		if err := os.Remove(name); err != nil {
			return fmt.Errorf("replace the old link: %w", err)
		}
	}
	if err := os.Symlink(port, name); err != nil {
		return fmt.Errorf("name the port: %w", err)
	}
	return nil
}

// unlinkPort removes the link unless another module has taken the name.
func unlinkPort(port, name string) {
	if to, err := os.Readlink(name); err == nil && to == port {
		_ = os.Remove(name)
	}
}
