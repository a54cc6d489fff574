package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/console"
	"holdfast/cmd/holdfast/gateway"
	"holdfast/configs"
	"holdfast/modem"
)

// modemFlags say which modem is meant.
type modemFlags struct {
	file, port string
	baud       int
	json       bool
	trace      bool
}

func newModemCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "modem",
		Short: "Look at LTE modules, and find out what is wrong with one",
		Long: `Look at LTE modules. The modem is the one of that name in the configuration, or
the only one in it, or the one on --port. A port has one user at a time: all but
list and info want the gateway to be stopped.`,
		Example: `  holdfast modem list
  holdfast modem doctor -c /etc/holdfast/gateway.toml lte
  holdfast modem at --port /dev/ttyUSB2 AT+CSQ`,
	}
	cmd.AddCommand(newModemList(), newModemInfo(), newModemAT(), newModemDoctor(), newModemTrace())
	return cmd
}

func (f *modemFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.file, "config", "c", "", "configuration file of the gateway")
	cmd.Flags().StringVar(&f.port, "port", "", "a port, instead of a modem of the configuration")
	cmd.Flags().IntVar(&f.baud, "baud", 115200, "speed of --port, to begin with")
}

// choose returns a configuration, and the name of the modem in it that is meant.
func (f *modemFlags) choose(cmd *cobra.Command, args []string) (*configs.Config, string, error) {
	if f.port != "" {
		if len(args) > 0 {
			return nil, "", usageError{errors.New("--port and the name of a modem exclude each other")}
		}
		cfg := configs.Default()
		cfg.Gateway.DataDir = "" // nothing is remembered of a port that is only looked at
		cfg.Modems = []configs.Modem{{Name: "modem", Port: f.port, Baud: f.baud}}
		return cfg, "modem", nil
	}
	cfg, err := loadToolConfig(cmd, f.file)
	if err != nil {
		return nil, "", err
	}
	var names []string
	for _, m := range cfg.Modems {
		if len(args) == 1 && m.Name == args[0] {
			return cfg, m.Name, nil
		}
		names = append(names, m.Name)
	}
	switch {
	case len(names) == 0:
		return nil, "", usageError{errors.New("the configuration has no modem; name one with -c FILE, or give --port")}
	case len(args) == 1:
		return nil, "", usageError{fmt.Errorf("there is no modem %q in the configuration; there is: %s", args[0], strings.Join(names, ", "))}
	case len(names) > 1:
		return nil, "", usageError{fmt.Errorf("which modem? There are: %s", strings.Join(names, ", "))}
	}
	return cfg, names[0], nil
}

// quickTiming is for a person who waits.
var quickTiming = modem.Timing{Registration: 90 * time.Second, Reset: 10 * time.Second, SIM: 10 * time.Second}

func newModemList() *cobra.Command {
	var f modemFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the serial ports of this machine, and the modems of the configuration",
		Example: `  holdfast modem list
  holdfast modem list --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadToolConfig(cmd, f.file)
			if err != nil {
				return err
			}
			list := modem.Ports()
			for _, m := range cfg.Modems {
				list = modem.Use(list, m.Port, m.Name)
			}
			out := cmd.OutOrStdout()
			if f.json {
				return json.NewEncoder(out).Encode(list)
			}
			for _, p := range list {
				fmt.Fprintln(out, p)
			}
			if len(list) == 0 {
				fmt.Fprintln(out, "this machine shows no serial port: is the module plugged in, and the UART enabled (Raspberry Pi: enable_uart=1 in config.txt)?")
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&f.file, "config", "c", "", "configuration file of the gateway")
	cmd.Flags().BoolVar(&f.json, "json", false, "print it as JSON")
	return cmd
}

func newModemInfo() *cobra.Command {
	var f modemFlags
	cmd := &cobra.Command{
		Use:   "info [NAME]",
		Short: "Show what a module says of itself, its SIM and its network",
		Example: `  holdfast modem info lte
  holdfast modem info --port /dev/ttyUSB2`,
		Long: `Show what a module says of itself, its SIM and its network. While the gateway runs,
it is asked; otherwise the module is brought up for it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, name, err := f.choose(cmd, args)
			if err != nil {
				return err
			}
			st, err := modemStatus(cmd.Context(), cfg, name, f.port == "")
			if f.json {
				return errors.Join(json.NewEncoder(cmd.OutOrStdout()).Encode(st), err)
			}
			printModem(cmd.OutOrStdout(), st)
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.json, "json", false, "print it as JSON")
	return cmd
}

// modemStatus asks the running gateway, or the module itself.
func modemStatus(ctx context.Context, cfg *configs.Config, name string, ask bool) (modem.Status, error) {
	var running gateway.Status
	if ask && console.FetchStatus(ctx, cfg.SocketPath(), &running) == nil {
		for _, m := range running.Modems {
			if m.Name == name {
				return m, nil
			}
		}
	}
	m, err := gateway.NewModem(cfg, name, slog.New(slog.DiscardHandler), quickTiming)
	if err != nil {
		return modem.Status{}, err
	}
	var st modem.Status
	err = m.Diagnose(ctx, func(modem.Check) { st = m.Status() }, func(context.Context) { st = m.Status() })
	return st, err
}

func newModemAT() *cobra.Command {
	var f modemFlags
	cmd := &cobra.Command{
		Use:   "at [NAME] COMMAND",
		Short: "Send one AT command to a module and print the answer",
		Example: `  holdfast modem at lte AT+CSQ
  holdfast modem at --port /dev/ttyUSB2 ATI`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			command := args[len(args)-1]
			if !strings.HasPrefix(strings.ToUpper(command), "AT") || strings.ContainsFunc(command, func(r rune) bool { return r < ' ' }) {
				return usageError{fmt.Errorf("%q is no AT command: it begins with AT and is one line", command)}
			}
			cfg, name, err := f.choose(cmd, args[:len(args)-1])
			if err != nil {
				return err
			}
			m, err := gateway.NewModem(cfg, name, slog.New(slog.DiscardHandler), quickTiming)
			if err != nil {
				return err
			}
			lines, err := m.Ask(cmd.Context(), command)
			for _, l := range lines {
				if l != "" {
					fmt.Fprintln(cmd.OutOrStdout(), l)
				}
			}
			return err
		},
	}
	f.add(cmd)
	return cmd
}

func newModemDoctor() *cobra.Command {
	var f modemFlags
	cmd := &cobra.Command{
		Use:   "doctor [NAME]",
		Short: "Walk from the port to the far broker, and name what is wrong",
		Example: `  holdfast modem doctor lte
  holdfast modem doctor --port /dev/ttyUSB2 --json`,
		Long: `Walk from the port to the far broker, layer by layer - port, AT, SIM, signal,
registration, data, DNS, TCP, TLS, login, subscribe, publish, echo - and at the first that
does not work say what it means and what to try. The gateway must be stopped:

  sudo systemctl stop holdfast

It logs in as CLIENT_ID-doctor, so that what waits at the far broker for the bridge goes
on waiting, and publishes a message to holdfast/ID/doctor there and reads it back. Where
the broker takes only the client_id of the bridge, it ends with the login. The exit status
is 0 if all is well, and 1 if not.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.doctor(cmd, args)
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON object a layer")
	cmd.Flags().BoolVar(&f.trace, "trace", false, "show the AT commands on standard error, without secrets")
	return cmd
}

func newModemTrace() *cobra.Command {
	f := modemFlags{trace: true}
	cmd := &cobra.Command{
		Use:     "trace [NAME]",
		Short:   "Do what doctor does, and show every line on the wire",
		Example: `  holdfast modem trace lte 2> wire.log`,
		Long: `Do what doctor does, and show every line on the wire on standard error. Passwords,
PINs and payloads are replaced by their length.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.doctor(cmd, args) },
	}
	f.add(cmd)
	return cmd
}

var errUnwell = errors.New("something is wrong; it is said above")

func (f *modemFlags) doctor(cmd *cobra.Command, args []string) error {
	cfg, name, err := f.choose(cmd, args)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if f.trace {
		log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	out := cmd.OutOrStdout()
	failed := false
	err = gateway.Doctor(cmd.Context(), cfg, name, log, quickTiming, func(c modem.Check) {
		failed = failed || c.Err != nil
		printCheck(out, c, f.json)
	})
	if err != nil && failed {
		return errUnwell
	}
	return err
}

// printCheck prints one layer.
func printCheck(w io.Writer, c modem.Check, asJSON bool) {
	took := c.Took.Round(time.Millisecond)
	if asJSON {
		line := struct {
			Layer   string  `json:"layer"`
			OK      bool    `json:"ok"`
			Seconds float64 `json:"seconds"`
			Found   string  `json:"found,omitempty"`
			Problem string  `json:"problem,omitempty"`
		}{Layer: c.Layer, OK: c.Err == nil, Seconds: took.Seconds(), Found: c.Found}
		if c.Err != nil {
			line.Problem = c.Err.Error()
		}
		_ = json.NewEncoder(w).Encode(line)
		return
	}
	mark := "ok"
	if c.Err != nil {
		mark = "FAILED"
	}
	fmt.Fprintf(w, "%-6s  %-12s  %8v  %s\n", mark, c.Layer, took, c.Found)
	if c.Err != nil {
		fmt.Fprintf(w, "\n%v\n", c.Err)
	}
}
