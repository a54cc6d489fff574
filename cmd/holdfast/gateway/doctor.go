package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"holdfast"
	"holdfast/bridge"
	"holdfast/configs"
	"holdfast/modem"
)

// How long the layers above the module may take.
const (
	doctorLogin = 2 * time.Minute
	doctorStep  = 30 * time.Second
)

// doctor looks through one modem, layer by layer.
type doctor struct {
	g      *Gateway
	m      *modem.Modem
	report func(modem.Check)
}

// Doctor looks at every layer between this board and the far broker behind the
// modem called name, one after the other, and reports each: port, AT, SIM, signal,
// registration, data, then DNS, TCP, TLS, login, subscribe, publish, echo of the
// first bridge that goes through it. It ends at the first that does not work, with
// its error. No gateway may be using the modem meanwhile.
func Doctor(ctx context.Context, cfg *configs.Config, name string, log *slog.Logger, timing modem.Timing, report func(modem.Check)) error {
	m, err := NewModem(cfg, name, log, timing)
	if err != nil {
		return err
	}
	g := &Gateway{cfg: cfg, log: log}
	g.clock = newClock(cfg.Gateway.DataDir, buildTime(), func() (time.Time, bool) { return m.Status().Clock.Now() })
	d := &doctor{g: g, m: m, report: report}
	var above error
	below := m.Diagnose(ctx, report, func(ctx context.Context) { above = d.above(ctx, name) })
	return errors.Join(below, above)
}

// NewModem makes the modem of a name in the configuration, outside of a gateway.
// What it remembers (a refused PIN) is shared with the gateway.
func NewModem(cfg *configs.Config, name string, log *slog.Logger, timing modem.Timing) (*modem.Modem, error) {
	for _, c := range cfg.Modems {
		if c.Name == name {
			o := modemOptions(c, cfg.Gateway.DataDir, log)
			o.Timing = timing
			return modem.New(o)
		}
	}
	return nil, fmt.Errorf("there is no modem %q in the configuration", name)
}

// step runs one layer and reports it.
func (d *doctor) step(ctx context.Context, layer string, most time.Duration, look func(ctx context.Context) (string, error)) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	begun := time.Now()
	found, err := look(ctx)
	var unreachable *modem.UnreachableError
	if layer == "login" && errors.As(err, &unreachable) {
		layer = unreachable.Layer // the module's own client makes the connection too
	}
	d.report(modem.Check{Layer: layer, Took: time.Since(begun), Found: found, Err: err})
	return err
}

// above looks at what is above the data connection.
func (d *doctor) above(ctx context.Context, name string) error {
	for _, b := range d.g.cfg.Bridges {
		for _, u := range b.Upstreams {
			if u.Via == name {
				return d.upstream(ctx, b, u)
			}
		}
	}
	return nil // no bridge goes through it: that is all there is to see
}

func (d *doctor) upstream(ctx context.Context, b configs.Bridge, u configs.Upstream) error {
	address, err := u.Address()
	if err != nil {
		return err
	}
	socket, err := d.m.HasSocket(ctx)
	if err != nil {
		return err
	}
	if socket {
		if err := d.lookUp(ctx, address); err != nil {
			return err
		}
		err := d.step(ctx, "tcp", doctorLogin, func(ctx context.Context) (string, error) {
			c, err := d.m.DialContext(ctx, "tcp", address)
			if err != nil {
				return "", err
			}
			return address, c.Close()
		})
		if err != nil {
			return err
		}
		if u.TLS() {
			if err := d.step(ctx, "tls", doctorLogin, func(ctx context.Context) (string, error) {
				return bridge.ProbeTLS(ctx, bridge.ClientOptions{URL: u.URL, TLS: d.g.tlsOptions(b, u), Dial: d.m.DialContext, ConnectTimeout: doctorLogin})
			}); err != nil {
				return err
			}
		}
	}
	received := make(chan *holdfast.Message, 16)
	receive := func(msg *holdfast.Message, _ bool, ack func()) {
		select {
		case received <- msg:
		default:
		}
		if ack != nil {
			ack()
		}
	}
	var up bridge.Upstream
	if err := d.step(ctx, "login", doctorLogin, func(ctx context.Context) (found string, err error) {
		up, found, err = d.login(ctx, b, u, socket, receive)
		return found, err
	}); err != nil || up == nil {
		return err
	}
	defer up.Close()
	topic := "holdfast/" + d.g.cfg.Gateway.ID + "/doctor"
	if err := d.step(ctx, "subscribe", doctorStep, func(ctx context.Context) (string, error) {
		return topic, up.Subscribe(ctx, topic, 1)
	}); err != nil {
		return fmt.Errorf("%w; the user must be allowed to subscribe to %s, if only for this test", err, topic)
	}
	mark := fmt.Sprintf("holdfast doctor %d", time.Now().UnixNano())
	if err := d.step(ctx, "publish", doctorStep, func(ctx context.Context) (string, error) {
		done := make(chan error, 1)
		up.Publish(&holdfast.Message{Topic: topic, Payload: []byte(mark), QoS: 1}, false, func(err error) { done <- err })
		select {
		case err := <-done:
			return "acknowledged", err
		case <-ctx.Done():
			return "", errors.New("the broker did not acknowledge a message; it may not let this user publish to " + topic)
		}
	}); err != nil {
		return err
	}
	return d.step(ctx, "echo", doctorStep, func(ctx context.Context) (string, error) {
		for {
			select {
			case msg := <-received:
				if msg.Topic == topic && string(msg.Payload) == mark {
					return "a message came back", nil
				}
			case <-up.Done():
				return "", fmt.Errorf("the connection ended before the message came back: %w", up.Err())
			case <-ctx.Done():
				return "", errors.New("a message was acknowledged and did not come back; the broker may not let this user write or read " + topic +
					", or the module loses what comes down")
			}
		}
	})
}

// lookUp looks at the name of an upstream, if it has one: with a command of its own,
// since a connection that fails does not always say at what.
func (d *doctor) lookUp(ctx context.Context, address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) != nil {
		return err
	}
	return d.step(ctx, "dns", doctorStep, func(ctx context.Context) (string, error) {
		ip, err := d.m.Resolve(ctx, host)
		switch {
		case err != nil:
			return "", err
		case ip == "":
			return "the module has no command to look names up by themselves", nil
		}
		return fmt.Sprintf("%s is %s", host, ip), nil
	})
}

// compare tries a login of the doctor's own that was refused by another way, so that
// it can be said who is at fault: the module, the broker, or the login.
func (d *doctor) compare(ctx context.Context, b configs.Bridge, u configs.Upstream, socket bool, refusal error) error {
	var byModule *modem.RefusedError
	if !errors.As(refusal, &byModule) && !errors.Is(refusal, bridge.ErrLoginRefused) {
		return refusal
	}
	board := d.g.overNetwork(b, configs.Upstream{URL: u.URL, ClientID: u.ClientID, ServerName: u.ServerName, ALPN: u.ALPN}, nil, false, nil)
	type way struct {
		name    string
		connect bridge.Connect
	}
	ways := []way{{"over this board's own network", board}}
	if byModule != nil && socket {
		ways = append([]way{{"through the module with our own client", d.g.overNetwork(b, u, nil, false, d.m.DialContext)}}, ways...)
	}
	for _, w := range ways {
		ctx, cancel := context.WithTimeout(ctx, doctorStep)
		up, err := w.connect(ctx, keepNothing)
		cancel()
		switch {
		case err == nil:
			up.Close()
			if byModule != nil {
				return fmt.Errorf("%w; the same login is accepted %s: the module's client is at fault; set mode = \"socket\"", refusal, w.name)
			}
			return fmt.Errorf("%w; the same login is accepted %s: the broker refuses it by where it comes from; look into its rules", refusal, w.name)
		case errors.Is(err, bridge.ErrLoginRefused):
			return fmt.Errorf("%w; the same login is refused %s too: the module is not at fault; correct username, password or client_id, or the broker's rules", refusal, w.name)
		}
	}
	return fmt.Errorf("%w; it could not be compared: the broker was not reached by another way", refusal)
}

// plainHost is the host and port of a URL that a module's own client can speak
// to: MQTT over TCP, without TLS.
func plainHost(raw string) (host string, port int, err error) {
	u, err := url.Parse(raw)
	if err == nil && u.Scheme != "tcp" && u.Scheme != "mqtt" {
		return "", 0, fmt.Errorf("the module's own client cannot do %s:// here; set mode = \"socket\" in [[modem]]", u.Scheme)
	}
	return hostPort(raw)
}
