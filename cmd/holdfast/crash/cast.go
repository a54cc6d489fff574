package crash

import (
	"fmt"

	"holdfast"
	"holdfast/configs"
)

// The destinations.
const (
	far          = "far"   // the far broker
	sessionOne   = "one"   // QoS 1, everything
	sessionTwo   = "two"   // QoS 2, everything
	sessionThree = "three" // QoS 2, of few things, mostly away
)

var sessions = []string{sessionOne, sessionTwo, sessionThree}

// source is one publisher of the cast.
type source struct {
	name    string
	topic   string
	qos     byte
	durable bool
	window  uint64
	burst   int
	remote  bool // publishes at the far broker: a command
}

// sources is everyone who publishes numbered messages. The route of the bridge
// that takes them is in the topic.
var sources = []source{
	{name: "a0", topic: "load/q0/a", qos: 0, burst: 6},
	{name: "b1", topic: "load/q1/b", qos: 1, window: 1, burst: 1},
	{name: "c1", topic: "load/q1/c", qos: 1, window: 100, burst: 40},
	{name: "d1", topic: "load/q1/d", qos: 1, durable: true, window: 300, burst: 60},
	{name: "e2", topic: "load/q2/e", qos: 2, durable: true, window: 1, burst: 1},
	{name: "f2", topic: "load/q2/f", qos: 2, durable: true, window: 40, burst: 15},
	{name: "g1", topic: "site/cmd/g", qos: 1, window: 20, burst: 6, remote: true},
	{name: "h2", topic: "site/cmd/h", qos: 2, durable: true, window: 20, burst: 4, remote: true},
}

// routes of the bridge, with the sources that they take.
var routes = map[string][]string{
	"q0": {"a0"},
	"q1": {"b1", "c1", "d1"},
	"q2": {"e2", "f2"},
}

// goesTo says whether messages of s must arrive at a destination.
func (s source) goesTo(destination string) bool {
	switch destination {
	case far:
		return !s.remote
	case sessionThree:
		return s.name == "f2"
	}
	return true
}

// exactly says whether messages of s must arrive there once: QoS 2 on every
// hop, and no bridge between, which is at least once.
func (s source) exactly(destination string) bool {
	return s.qos == 2 && !s.remote && (destination == sessionTwo || destination == sessionThree)
}

// filtersOf is what a session subscribes to.
func filtersOf(session string) []holdfast.Subscription {
	switch session {
	case sessionOne:
		return []holdfast.Subscription{{Filter: "load/#", QoS: 1}, {Filter: "cmd/#", QoS: 1}}
	case sessionThree:
		return []holdfast.Subscription{{Filter: "load/q2/f", QoS: 2}}
	}
	return []holdfast.Subscription{{Filter: "load/#", QoS: 2}, {Filter: "cmd/#", QoS: 2}}
}

// config is the gateway's. Its bounds are out of the way: what a full queue
// does is not the subject.
func config(dir, socket, address, farAddress string, spill bool) string {
	sync := configs.SyncAlways
	if spill {
		sync = configs.SyncSpill
	}
	return fmt.Sprintf(`[gateway]
id = "crash"
data_dir = %q

[log]
level = "warn"

[console]
address = ""
socket = %q

[[listener]]
address = %q

[storage]
sync = %q

[limits]
max_session_bytes = "4GiB"
max_session_messages = 100000000

[[bridge]]
name = "far"
  [bridge.queue]
  max_bytes = "4GiB"
  [[bridge.upstream]]
  url = "tcp://%s"
  [[bridge.route]]
  name = "q0"
  direction = "out"
  topic = "load/q0/#"
  remote_prefix = "site/"
  [[bridge.route]]
  name = "q1"
  direction = "out"
  topic = "load/q1/#"
  remote_prefix = "site/"
  [[bridge.route]]
  name = "q2"
  direction = "out"
  topic = "load/q2/#"
  remote_prefix = "site/"
  qos = 2
  [[bridge.route]]
  name = "commands"
  direction = "in"
  topic = "cmd/#"
  remote_prefix = "site/"
  qos = 2
`, dir, socket, address, sync, farAddress)
}
