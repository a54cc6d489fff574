package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"holdfast"
	"holdfast/edge/topic"
)

// The defaults and bounds of a PAHO connection.
const (
	defaultConnectTimeout = 30 * time.Second
	defaultKeepAlive      = time.Minute
	defaultMaxPacket      = 4 << 20
	minKeepAlive          = 5 * time.Second
	handOver              = time.Second // for a packet from one goroutine of the library to the next
	quiesce               = 250         // ms, for DISCONNECT
	libraryEnd            = 10_000      // ms, for the goroutines of the library; they need some
)

// PahoOptions describe a far broker, that is spoken to in MQTT 3.1.1 by
// PahoConnect or in MQTT 5 by MQTT5Connect.
type PahoOptions struct {
	// URL is tcp://host:1883 or mqtt:// for the same; ssl://host:8883, tls:// or
	// mqtts://; ws://host:80/mqtt; or wss://host:443/mqtt. The port and the path
	// may be left out, and are then these.
	URL      string
	ClientID string
	Username string
	// Password, if not nil, is called at each connect.
	Password func() (string, error)
	// KeepAlive is 1 min if zero, and at least 5 s.
	KeepAlive time.Duration
	// CleanSession false keeps our subscriptions, and what comes for them, at
	// the far broker while we are away.
	CleanSession bool
	// BridgeBit sets the bit of protocol level 0x84 with which a broker is told
	// that we are a bridge: mosquitto and some others then do not send our own
	// publishes back and keep the RETAIN flag. If the broker refuses it, the
	// connection is made without, and the refusal is remembered. Set it where
	// FindEchoes finds something.
	BridgeBit bool
	// TLS is used where the URL says so.
	TLS TLSOptions
	// Dial makes the network connection; nil is BoardDialer("").
	Dial Dialer
	// ConnectTimeout is for DNS, TCP, TLS and the login together; 30 s if zero.
	ConnectTimeout time.Duration
	Will           *holdfast.Message
	// MaxPacket is the largest message taken from the far broker, in bytes, 4
	// MiB if zero. A larger one is acknowledged, dropped and logged.
	MaxPacket int
	Logger    *slog.Logger
}

// Validate returns every fault of o, in words.
func (o PahoOptions) Validate() error {
	_, err := parseURL(o.URL)
	faults := []error{err}
	if (o.TLS.CertFile == "") != (o.TLS.KeyFile == "") {
		faults = append(faults, errors.New("cert and key go together: set both or neither"))
	}
	if o.ClientID == "" && !o.CleanSession {
		faults = append(faults, errors.New("client_id is empty: a session that is kept needs one [MQTT-3.1.3-8]"))
	}
	if o.Username == "" && o.Password != nil {
		faults = append(faults, errors.New("there is a password but no username, which MQTT 3.1.1 does not permit [MQTT-3.1.2-22]"))
	}
	if o.KeepAlive != 0 && (o.KeepAlive < minKeepAlive || o.KeepAlive > 65535*time.Second) {
		faults = append(faults, fmt.Errorf("keepalive is %v: it must be between %v and 65535s", o.KeepAlive, minKeepAlive))
	}
	if o.ConnectTimeout < 0 || o.MaxPacket < 0 {
		faults = append(faults, errors.New("the connect time-out and the largest packet must not be negative"))
	}
	if w := o.Will; w != nil {
		if err := topic.ValidName(w.Topic); err != nil {
			faults = append(faults, fmt.Errorf("will topic: %w", err))
		}
		if w.QoS > 2 || len(w.Payload) > 65535 {
			faults = append(faults, errors.New("the will must have a QoS of 0 to 2 and at most 65535 bytes"))
		}
	}
	return errors.Join(faults...)
}

// PahoConnect returns a Connect by paho.mqtt.golang. Faults of o are returned by
// each connect.
//
// The library is used for one connection at a time, with a new client object
// for each, and without its store, its resume and its reconnects, since with
// them a token may complete that nobody has acknowledged. What comes over the
// seam is at-least-once, also with QoS 2: a message that was sent again after a
// lost connection is a new one for the far broker, and its DUP flag is not set.
// With CleanSession false a publish of QoS 2 is sent with QoS 1: the far broker
// remembers packet identifiers of QoS 2 that a new client object does not know,
// and could take a new message for the repetition of an old one.
func PahoConnect(o PahoOptions) Connect {
	wires := o.prepare()
	var plain atomic.Bool // the broker does not take the bridge bit
	return func(ctx context.Context, receive Receive) (Upstream, error) {
		if err := o.Validate(); err != nil {
			return nil, err
		}
		bit := o.BridgeBit && !plain.Load()
		up, err := o.connect(ctx, wires, receive, bit)
		if bit && (errors.Is(err, errVersion) || errors.Is(err, errNoConnack)) {
			up, err = o.connect(ctx, wires, receive, false)
			if err == nil {
				plain.Store(true)
				o.Logger.Info("the far broker does not take the bridge bit")
			}
		}
		if err != nil {
			return nil, err // not up: it would be an interface with nil in it
		}
		return up, nil
	}
}

// prepare sets the defaults of o, and makes what is kept over connections.
func (o *PahoOptions) prepare() *wireMaker {
	setDefault(&o.KeepAlive, defaultKeepAlive)
	setDefault(&o.ConnectTimeout, defaultConnectTimeout)
	setDefault(&o.MaxPacket, defaultMaxPacket)
	if o.Dial == nil {
		o.Dial = BoardDialer("")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e, _ := parseURL(o.URL) // Validate tells its fault
	return &wireMaker{endpoint: e, dial: o.Dial, tls: newTLSClient(o.TLS), timeout: o.ConnectTimeout, log: o.Logger}
}

// errVersion marks CONNACK code 1.
var errVersion = errors.New("protocol version")

func (o *PahoOptions) connect(ctx context.Context, wires *wireMaker, receive Receive, bit bool) (*pahoUpstream, error) {
	var password string
	var err error
	if o.Password != nil {
		if password, err = o.Password(); err != nil {
			return nil, fmt.Errorf("read the password: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	wire, words, err := wires.open(ctx)
	if err != nil {
		return nil, err
	}
	u := newPahoUpstream(newLink(wire, o.MaxPacket), receive, !o.CleanSession, bit, o.Logger)
	c := mqtt.NewClientOptions()
	c.AddBroker("tcp://" + wires.address()) // only a name: the link is ours
	c.SetClientID(o.ClientID).SetUsername(o.Username).SetPassword(password)
	c.SetCleanSession(o.CleanSession)
	c.SetKeepAlive(o.KeepAlive).SetPingTimeout(max(o.KeepAlive/2, 10*time.Second))
	c.SetAutoReconnect(false).SetConnectRetry(false)
	c.SetStore(noStore{})
	c.SetAutoAckDisabled(true).SetOrderMatters(true)
	c.SetDefaultPublishHandler(u.arrive)
	c.SetWriteTimeout(handOver)
	c.SetConnectTimeout(o.ConnectTimeout)
	c.SetProtocolVersion(4)
	if bit {
		c.SetProtocolVersion(0x84)
	}
	if w := o.Will; w != nil {
		u.will = true
		c.SetBinaryWill(w.Topic, w.Payload, w.QoS, w.Retain)
	}
	c.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return u.link, nil })
	u.client = mqtt.NewClient(c)
	token := u.client.Connect()
	select {
	case <-token.Done():
	case <-ctx.Done():
		u.link.end(ctx.Err())
		<-token.Done()
	}
	l := u.link
	if token.Error() == nil { // also after a code that the library does not know
		u.start()
		if l.reason() == nil && l.connack.code == 0 {
			return u, nil
		}
		_ = u.Close() // the answer says why
	} else {
		// The library has started nothing; its Disconnect would only wait.
		l.leaving()
		_ = l.Close()
		<-l.flushed
	}
	if l.connack.came && l.connack.code != 0 {
		err = refusedLogin{explainConnack(l.connack.code, o.ClientID, o.Username)}
		if l.connack.code == 1 {
			err = fmt.Errorf("%w (%w)", err, errVersion)
		}
		return nil, err
	}
	if err := words(l.reason()); err != nil {
		return nil, err
	}
	return nil, explainHandshake(l.reason(), wires.address(), o.ConnectTimeout)
}
