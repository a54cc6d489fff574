package gateway

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"holdfast"
	"holdfast/bridge"
	"holdfast/configs"
	"holdfast/modem"
)

// throughModem is bridge.Connect through the MQTT client inside a module. The
// session is a bridge.Upstream as it is.
func throughModem(m *modem.Modem, b configs.Bridge, u configs.Upstream, clientID string) bridge.Connect {
	return func(ctx context.Context, receive bridge.Receive) (bridge.Upstream, error) {
		host, port, err := hostPort(u.URL)
		if err != nil {
			return nil, err
		}
		s, err := m.Connect(ctx, modem.Login{
			Host: host, Port: port,
			ClientID: clientID, Username: b.Username, Password: b.Password.Reveal(),
			KeepAlive: b.KeepAlive, CleanSession: b.CleanSession,
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
