// Package configs is what the user wrote: one TOML file, read strictly. A key
// that is unknown, of the wrong type or impossible is never skipped; every
// fault of a file is reported at once, with its line and what to do.
//
// The parts of the gateway do not know this package. Each has its own options,
// filled in from a Config where the parts meet.
package configs

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// Config is one configuration of the gateway. Load gives one that is valid.
//
// The tags are the schema: toml is the key, oneof its possible words, min and
// max its bounds, word what may stand in place of a length of time (Adaptive), env marks strings in which ${NAME} stands for a variable of
// the environment, vars those in which {id}, {serial} and {bridge} may stand,
// path names of files, which are relative to the folder of the configuration.
type Config struct {
	Gateway   Gateway    `toml:"gateway"`
	Log       Log        `toml:"log"`
	Storage   Storage    `toml:"storage"`
	Limits    Limits     `toml:"limits"`
	Listeners []Listener `toml:"listener"`
	Access    Access     `toml:"access"`
	Console   Console    `toml:"console"`
	Modems    []Modem    `toml:"modem"`
	Bridges   []Bridge   `toml:"bridge"`

	source *source // where the keys are; nil if the Config comes from no file
}

// Gateway is the board as a whole.
type Gateway struct {
	// ID names this gateway in client identifiers and topics; Resolve fills in
	// the board's own if it is empty.
	ID string `toml:"id"`
	// DataDir is the folder of everything that must survive a restart.
	DataDir string `toml:"data_dir"`
	// SysInterval is how often the $SYS topics are brought up to date; 0: there
	// are none.
	SysInterval time.Duration `toml:"sys_interval" min:"0s" max:"24h"`
}

// Log is how the gateway tells what it does, on standard error.
type Log struct {
	Level  string `toml:"level" oneof:"debug|info|warn|error"`
	Format string `toml:"format" oneof:"text|json"`
}

// Slog is the level as log/slog has it.
func (l Log) Slog() slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(l.Level)) != nil {
		return slog.LevelInfo
	}
	return level
}

// Storage is the disk.
type Storage struct {
	// MaxBytes bounds all queues together.
	MaxBytes Size `toml:"max_bytes" min:"1MiB" max:"1TiB"`
	// Reserve is how much of the disk stays free; 0 is what storage makes of
	// the size of the disk.
	Reserve Size `toml:"reserve" min:"0" max:"1TiB"`
	// CommitInterval is how long a message may wait for others to go to the
	// disk with it.
	CommitInterval time.Duration `toml:"commit_interval" min:"0s" max:"10s"`
	// Sync is when a message goes to the disk, and SpillAfter how long it may
	// wait in memory with "spill".
	Sync       string        `toml:"sync" oneof:"always|spill"`
	SpillAfter time.Duration `toml:"spill_after" min:"10ms" max:"10s"`
}

// The modes of storage.sync.
const (
	SyncAlways = "always"
	SyncSpill  = "spill"
)

// defaultMaxBytes is smaller where an address has 32 bits: every file of the
// store is mapped into memory, and the address space is the bound.
func defaultMaxBytes() Size {
	if strconv.IntSize == 32 {
		return 512 * MiB
	}
	return 4 * GiB
}

// Limits are the bounds of the broker. None of them can be switched off.
type Limits struct {
	MaxPacketSize      Size `toml:"max_packet_size" min:"1KiB" max:"256KiB"`
	MaxConnections     int  `toml:"max_connections" min:"1" max:"100000"`
	MaxConnectRate     int  `toml:"max_connect_rate" min:"0" max:"1000000"`     // in a second, per address; 0: any
	MaxPublishRate     int  `toml:"max_publish_rate" min:"0" max:"1000000"`     // in a second, per client; 0: any
	MaxInflight        int  `toml:"max_inflight" min:"1" max:"65535"`           // unacknowledged outbound QoS 1 and 2, per client
	ReceiveMaximum     int  `toml:"receive_maximum" min:"1" max:"65535"`        // unacknowledged inbound, per MQTT 5 client
	MaxInboundQoS2     int  `toml:"max_inbound_qos2" min:"1000" max:"10000000"` // without PUBREL, all clients
	MaxSessionBytes    Size `toml:"max_session_bytes" min:"64KiB" max:"1TiB"`
	MaxSessionMessages int  `toml:"max_session_messages" min:"1" max:"100000000"`
	MaxOutboundBytes   Size `toml:"max_outbound_bytes" min:"64KiB" max:"1GiB"` // waiting for a slow reader, per client
	MaxPendingBytes    Size `toml:"max_pending_bytes" min:"256KiB" max:"1GiB"` // accepted and not yet on disk, all clients
	MaxClientIDLength  int  `toml:"max_client_id_length" min:"23" max:"65535"` // bytes
	MaxSessions        int  `toml:"max_sessions" min:"1" max:"1000000"`        // persistent ones
	MaxSubscriptions   int  `toml:"max_subscriptions" min:"1" max:"1000000"`   // per client
	MaxRetained        int  `toml:"max_retained_messages" min:"1" max:"10000000"`
	MaxRetainedWaiting int  `toml:"max_retained_waiting" min:"1000" max:"100000000"` // to be sent to who subscribed, all clients
	MaxShares          int  `toml:"max_shared_subscriptions" min:"1" max:"1000000"`
	MaxRetainedBytes   Size `toml:"max_retained_bytes" min:"64KiB" max:"1GiB"`
	MaxTopicLevels     int  `toml:"max_topic_levels" min:"1" max:"65535"`
	// ConnectTimeout is how long a new connection may take to send its CONNECT.
	ConnectTimeout time.Duration `toml:"connect_timeout" min:"1s" max:"10m"`
	// MaxKeepAlive is the longest keep alive of an MQTT 5 client; 0 is any.
	MaxKeepAlive time.Duration `toml:"max_keep_alive" min:"0s" max:"18h"`
}

// Listener is one address that devices connect to.
type Listener struct {
	// Address is host:port, where an empty host is every interface, or the path
	// of a unix socket.
	Address   string `toml:"address"`
	Transport string `toml:"transport" oneof:"tcp|tls|ws|wss|unix"`
	// Interface of the board over which devices must come; "" is any.
	Interface string `toml:"interface"`
	// Cert and Key are PEM files, for tls and wss. With ClientCA only clients
	// that have a certificate of it are let in.
	Cert     string `toml:"cert"`
	Key      string `toml:"key"`
	ClientCA string `toml:"client_ca"`
	// Origins are patterns for the hosts of web pages that may connect, for ws
	// and wss, with blanks between them.
	Origins string `toml:"origins"`
}

// How MQTT is carried.
const (
	TransportTCP  = "tcp"
	TransportTLS  = "tls"
	TransportWS   = "ws"
	TransportWSS  = "wss"
	TransportUnix = "unix"
)

// Secure reports whether there is TLS.
func (l Listener) Secure() bool { return l.Transport == TransportTLS || l.Transport == TransportWSS }

// Who may connect without a password.
const (
	AnonymousNever    = "never"
	AnonymousLoopback = "loopback"
	AnonymousAlways   = "always"
)

// Access is who may connect to the broker, and what they may do there.
type Access struct {
	Anonymous string `toml:"anonymous" oneof:"never|loopback|always"` // without a user name
	Users     []User `toml:"user"`
}

// User is one user of the broker.
type User struct {
	Name string `toml:"name"`
	// Password is an argon2id hash (edge/password); empty: only a certificate
	// with this name lets the user in.
	Password Secret `toml:"password" env:"yes"`
	// Publish and Subscribe are topic filters, in which %u stands for the name of
	// the user and %c for the client identifier.
	Publish   []string `toml:"publish"`
	Subscribe []string `toml:"subscribe"`
}

// Console is how a person looks at the running gateway.
type Console struct {
	Address string `toml:"address"` // host:port; "" is off
	// Socket is the unix socket of the command line; Resolve fills it in if
	// it is empty.
	Socket string `toml:"socket"`
}

// How MQTT is carried through a module.
const (
	ModeMQTT   = "mqtt"   // by its own client
	ModeSocket = "socket" // by ours, over a socket inside it
)

// Modem is one LTE module on a serial port.
type Modem struct {
	Name            string `toml:"name"`
	Port            string `toml:"port"`
	Baud            int    `toml:"baud" min:"1200" max:"4000000"`
	BaudSwitch      int    `toml:"baud_switch" min:"0" max:"4000000"` // 0: stay at Baud
	FlowControl     bool   `toml:"flow_control"`
	Dialect         string `toml:"dialect" oneof:"auto|ecmt|qmt|cmqtt"`
	Mode            string `toml:"mode" oneof:"auto|mqtt|socket"`
	Interface       string `toml:"interface"` // of the board, that the module gives to it; "" is none
	APN             string `toml:"apn"`
	APNUser         string `toml:"apn_user" env:"yes"`
	APNPassword     Secret `toml:"apn_password" env:"yes" file:"apn_password_file"`
	APNPasswordFile string `toml:"apn_password_file"`
	APNAuth         string `toml:"apn_auth" oneof:"auto|chap|pap"`
	PIN             Secret `toml:"pin" env:"yes" file:"pin_file"`
	PINFile         string `toml:"pin_file"`
	ResetLine       string `toml:"reset_line" oneof:"none|dtr|rts"`
	PowerCommand    string `toml:"power_command"` // a command line for the shell
	// DataPlan is what its SIM may carry in a month that begins on DataPlanDay (UTC);
	// 0: any. With DataPlanHard nothing more goes then.
	DataPlan     Size `toml:"data_plan" min:"0" max:"1TiB"`
	DataPlanDay  int  `toml:"data_plan_day" min:"1" max:"28"`
	DataPlanHard bool `toml:"data_plan_hard"`
}

// OwnClient reports whether our own MQTT client is used through the module in any
// case: over a socket inside it, or over its network interface.
func (m *Modem) OwnClient() bool { return m.Mode == ModeSocket || m.Interface != "" }

// Bridge is one far broker, the ways to it, and what goes there and comes from
// there.
type Bridge struct {
	Name         string        `toml:"name"`
	ClientID     string        `toml:"client_id" env:"yes" vars:"yes"`
	Username     string        `toml:"username" env:"yes" vars:"yes"`
	Password     Secret        `toml:"password" env:"yes" file:"password_file"`
	PasswordFile string        `toml:"password_file"`
	Protocol     string        `toml:"protocol" oneof:"3.1.1|5"`
	KeepAlive    time.Duration `toml:"keepalive" word:"adaptive" min:"5s" max:"18h"` // or Adaptive
	CleanSession bool          `toml:"clean_session"`
	// Failback is about how long an upstream that did not work is left alone
	// while there are others.
	Failback time.Duration `toml:"failback" min:"10s" max:"24h"`
	// StateTopic is where the far broker is told whether this bridge is
	// connected; "" is nowhere.
	StateTopic string `toml:"state_topic" vars:"yes"`
	// CA, Cert and Key are files in PEM for upstreams with TLS; Load makes their
	// names relative to the configuration's folder.
	CA        string     `toml:"ca" path:"pem"`
	Cert      string     `toml:"cert" path:"pem"`
	Key       string     `toml:"key" path:"pem"`
	Queue     Queue      `toml:"queue"`
	Upstreams []Upstream `toml:"upstream"`
	Routes    []Route    `toml:"route"`
}

// Adaptive is a length of time that the gateway finds out: the word in the tag.
const Adaptive time.Duration = -1

// What is done when a queue has met its bound.
const (
	DropOldest = "drop-oldest"
	DropNewest = "drop-newest"
	Refuse     = "refuse"
)

// Which message of a queue goes first.
const (
	FIFO      = "fifo"
	LiveFirst = "live-first"
)

// Queue is the store-and-forward queue of one bridge.
type Queue struct {
	MaxBytes    Size          `toml:"max_bytes" min:"1MiB" max:"1TiB"`
	MaxMessages int           `toml:"max_messages" min:"0" max:"1000000000"` // 0: bounded by MaxBytes alone
	MaxAge      time.Duration `toml:"max_age" min:"0s" max:"87600h"`         // 0: any
	WhenFull    string        `toml:"when_full" oneof:"drop-oldest|drop-newest|refuse"`
	RefuseWait  time.Duration `toml:"refuse_wait" min:"1s" max:"1h"`
	Window      int           `toml:"window" min:"1" max:"20000"` // publishes that wait for the far broker at once
	Rate        int           `toml:"rate" min:"0" max:"1000000"` // messages in a second; 0: as many as the link takes
	StoreQoS0   bool          `toml:"store_qos0"`
	// Order is which message goes first, BackfillShare how many of a hundred are
	// of the backlog at least, with LiveFirst.
	Order         string `toml:"order" oneof:"fifo|live-first"`
	BackfillShare int    `toml:"backfill_share" min:"0" max:"90"`
}

// Upstream is one way to the far broker. The first that works is used.
type Upstream struct {
	URL      string `toml:"url" env:"yes"`
	Via      string `toml:"via"` // the name of a modem; "" is the board's own network
	ClientID string `toml:"client_id" env:"yes" vars:"yes"`
	// Interface of the board that connections must take; "" is what the routes
	// of the board say.
	Interface string `toml:"interface"`
	// ServerName is what the certificate of the broker must be for; "" is the
	// host of URL. ALPN is the protocol to ask for in TLS; "" is none.
	ServerName string `toml:"server_name"`
	ALPN       string `toml:"alpn"`
	// As in Modem, for a link that is no modem here.
	DataPlan     Size `toml:"data_plan" min:"0" max:"1TiB"`
	DataPlanDay  int  `toml:"data_plan_day" min:"1" max:"28"`
	DataPlanHard bool `toml:"data_plan_hard"`
}

// Where the messages of a route go.
const (
	Out  = "out"
	In   = "in"
	Both = "both"
)

// Route says which messages cross the bridge, and how.
type Route struct {
	Name         string        `toml:"name"`
	Direction    string        `toml:"direction" oneof:"out|in|both"`
	Topic        string        `toml:"topic"`
	Exclude      []string      `toml:"exclude"` // filters like Topic, whose messages it leaves alone
	LocalPrefix  string        `toml:"local_prefix" vars:"yes"`
	RemotePrefix string        `toml:"remote_prefix" vars:"yes"`
	QoS          int           `toml:"qos" min:"0" max:"2"`
	Retain       bool          `toml:"retain"` // keep the RETAIN flag; false sends without
	Priority     string        `toml:"priority" oneof:"high|normal|low"`
	MaxAge       time.Duration `toml:"max_age" min:"0s" max:"87600h"` // 0: that of the queue
	Encoding     string        `toml:"encoding" oneof:"none|base64|base64-always"`
	Sample       time.Duration `toml:"sample" min:"0s" max:"24h"` // 0: every message
	OnChange     bool          `toml:"on_change"`
	Stamp        bool          `toml:"stamp"`
}

// The forms in which a route sends payloads, besides as they are.
const (
	Base64       = "base64" // where the way cannot carry them as they are
	Base64Always = "base64-always"
)

// Default is what the gateway does without a file: a broker on the loopback
// interface, with its data beside it.
func Default() *Config {
	return &Config{
		Gateway: Gateway{DataDir: "./holdfast-data", SysInterval: 10 * time.Second},
		Log:     Log{Level: "info", Format: "text"},
		Storage: Storage{MaxBytes: defaultMaxBytes(), Sync: SyncAlways, SpillAfter: 500 * time.Millisecond},
		Limits: Limits{
			MaxPacketSize:      256 * KiB,
			MaxConnections:     1000,
			MaxConnectRate:     1000,
			MaxInflight:        64,
			ReceiveMaximum:     1000,
			MaxInboundQoS2:     100_000,
			MaxSessionBytes:    64 * MiB,
			MaxSessionMessages: 100_000,
			MaxOutboundBytes:   1 * MiB,
			MaxPendingBytes:    8 * MiB,
			MaxClientIDLength:  1024,
			MaxSessions:        5000,
			MaxSubscriptions:   1000,
			MaxRetained:        100_000,
			MaxRetainedWaiting: 200_000,
			MaxShares:          1000,
			MaxRetainedBytes:   64 * MiB,
			MaxTopicLevels:     201,
			ConnectTimeout:     10 * time.Second,
		},
		Listeners: []Listener{{Address: "127.0.0.1:1883", Transport: "tcp", Origins: "*"}},
		Access:    Access{Anonymous: AnonymousLoopback},
		Console:   Console{Address: "127.0.0.1:8080"},
	}
}

// The elements of a list start from these, not from zero values.

func (l *Listener) setDefaults() { *l = Listener{Transport: "tcp", Origins: "*"} }

func (u *User) setDefaults() { *u = User{Publish: []string{"#"}, Subscribe: []string{"#"}} }

func (m *Modem) setDefaults() {
	*m = Modem{Baud: 115200, Dialect: "auto", Mode: "auto", APNAuth: "auto", ResetLine: "none", DataPlanDay: 1}
}

func (b *Bridge) setDefaults() {
	*b = Bridge{
		ClientID:   "holdfast-{id}-{bridge}",
		Protocol:   "3.1.1",
		KeepAlive:  60 * time.Second,
		Failback:   5 * time.Minute,
		StateTopic: "holdfast/{id}/bridge/{bridge}/state",
		Queue: Queue{
			MaxBytes:   1 * GiB,
			WhenFull:   DropOldest,
			RefuseWait: 30 * time.Second,
			Window:     100,
			StoreQoS0:  true,
			Order:      FIFO, BackfillShare: 20,
		},
	}
}

func (u *Upstream) setDefaults() { *u = Upstream{DataPlanDay: 1} }

func (r *Route) setDefaults() { *r = Route{QoS: 1, Retain: true, Priority: "normal", Encoding: "none"} }

// SocketPath is the unix socket of the command line.
func (c *Config) SocketPath() string {
	if c.Console.Socket != "" {
		return c.Console.Socket
	}
	return filepath.Join(c.Gateway.DataDir, "holdfast.sock")
}

// ExactlyOnce reports whether the configuration lets messages of QoS 2 cross the
// bridge exactly once: there is such a route, one upstream, and a session there
// that is kept. The MQTT client inside a module cannot do it.
func (b *Bridge) ExactlyOnce() bool {
	return !b.CleanSession && len(b.Upstreams) == 1 && slices.ContainsFunc(b.Routes, func(r Route) bool { return r.QoS == 2 })
}
