package bridge

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"holdfast"
	"holdfast/edge/topic"
)

// The defaults and bounds of a connection.
const (
	defaultConnectTimeout = 30 * time.Second
	defaultKeepAlive      = time.Minute
	defaultMaxPacket      = 4 << 20
	minKeepAlive          = 5 * time.Second
)

// ClientOptions describe a far broker, that is spoken to in MQTT 3.1.1 by
// MQTT3Connect or in MQTT 5 by MQTT5Connect.
type ClientOptions struct {
	// URL is tcp://host:1883 or mqtt:// for the same; ssl://host:8883, tls:// or
	// mqtts://; ws://host:80/mqtt; or wss://host:443/mqtt. The port and the path
	// may be left out, and are then these.
	URL      string
	ClientID string
	// GatewayID is that of this gateway: a far one must have another; see via.go.
	GatewayID string
	Username  string
	// Password, if not nil, is called at each connect.
	Password func() (string, error)
	// KeepAlive is 1 min if zero, and at least 5 s.
	KeepAlive time.Duration
	// Adaptive, if not nil, takes the place of KeepAlive; see adaptive.go.
	Adaptive *Adaptive
	// CleanSession false keeps our subscriptions, and what comes for them, at
	// the far broker while we are away.
	CleanSession bool
	// Exactly makes a connection for Options.FarSession. CleanSession must be
	// false.
	Exactly bool
	// BridgeBit sets, in MQTT 3.1.1, the bit of protocol level 0x84 with which a
	// broker is told that we are a bridge: mosquitto and some others then do not
	// send our own publishes back and keep the RETAIN flag. If the broker refuses
	// it, the connection is made without, and the refusal is remembered. In MQTT 5
	// it sets No Local. Set it where FindEchoes finds something.
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
func (o ClientOptions) Validate() error {
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

// prepare sets the defaults of o, and makes what is kept over connections.
func (o *ClientOptions) prepare() *wireMaker {
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
