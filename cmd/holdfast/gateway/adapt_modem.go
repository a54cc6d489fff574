package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"holdfast"
	"holdfast/bridge"
	"holdfast/configs"
	"holdfast/modem"
)

// modemOptions are those of one modem of the configuration.
func modemOptions(c configs.Modem, dataDir string, log *slog.Logger) modem.Options {
	o := modem.Options{
		Name: c.Name, Port: c.Port, Baud: c.Baud, BaudSwitch: c.BaudSwitch, FlowControl: c.FlowControl,
		Dialect: c.Dialect, Mode: c.Mode,
		APN: c.APN, APNUser: c.APNUser, APNPassword: c.APNPassword.Reveal(), APNAuth: c.APNAuth,
		PIN:    c.PIN.Reveal(),
		Logger: log.With("part", "modem"),
	}
	if c.Interface != "" {
		o.Interface, o.Dial = c.Interface, bridge.BoardDialer(c.Interface)
	}
	if dataDir != "" {
		o.MemoryFile = filepath.Join(dataDir, "modem", c.Name+".json")
	}
	if c.ResetLine != "none" {
		o.ResetLine = c.ResetLine
	}
	if c.PowerCommand != "" {
		o.PowerCycle = powerCommand(c.Name, c.PowerCommand, o.Logger.With("modem", c.Name))
	}
	return o
}

// modemConnectWait is for a connection and its login through a socket inside a
// module, which takes up to 75 s for the name and the connection alone.
const modemConnectWait = 2 * time.Minute

// throughModem is the way to an upstream through a module: with our own MQTT
// client over a socket inside it, or with the module's own. Where the mode is
// left to the gateway, the socket is better: it gives real acknowledgements both
// ways and carries every byte.
func (g *Gateway) throughModem(m *modem.Modem, b configs.Bridge, u configs.Upstream, a *bridge.Adaptive, loops bool) bridge.Connect {
	inside := insideModem(m, b, u, clientID(b, u))
	over := g.overNetwork(b, u, a, loops, m.DialContext)
	mode := ""
	for _, c := range g.cfg.Modems {
		if c.Name == u.Via {
			mode = c.Mode
		}
	}
	if mode == configs.ModeMQTT {
		return inside
	}
	return func(ctx context.Context, receive bridge.Receive) (bridge.Upstream, error) {
		// Until the module is registered nobody knows what it has, and the time
		// for the login has not begun.
		socket, err := m.HasSocket(ctx)
		switch {
		case err != nil:
			return nil, err
		case socket || mode == configs.ModeSocket:
			return over(ctx, receive)
		}
		return inside(ctx, receive)
	}
}

// insideModem is bridge.Connect through the MQTT client inside a module. The
// session is a bridge.Upstream as it is.
func insideModem(m *modem.Modem, b configs.Bridge, u configs.Upstream, clientID string) bridge.Connect {
	return func(ctx context.Context, receive bridge.Receive) (bridge.Upstream, error) {
		host, port, err := plainHost(u.URL)
		if err != nil {
			return nil, err
		}
		s, err := m.Connect(ctx, modem.Login{
			Host: host, Port: port,
			ClientID: clientID, Username: b.Username, Password: b.Password.Reveal(),
			KeepAlive: max(b.KeepAlive, 0), CleanSession: b.CleanSession, Will: stateWill(b),
		}, func(msg *holdfast.Message, again bool, ack func()) { receive(msg, again, ack) })
		if err != nil {
			return nil, err // not s: a nil *Session is no nil Upstream
		}
		return s, nil
	}
}

// hostPort takes an upstream's URL apart; 1883 is MQTT's port where none is given.
func hostPort(raw string) (host string, port int, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", 0, fmt.Errorf("upstream url: %w", err)
	}
	if u.Port() == "" {
		return u.Hostname(), 1883, nil
	}
	host, text, err := net.SplitHostPort(u.Host)
	if err != nil {
		return "", 0, fmt.Errorf("upstream url: %w", err)
	}
	port, err = strconv.Atoi(text)
	return host, port, err
}
