package bridge

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"holdfast"
	"holdfast/edge/topic"
)

// Direction says which way a route goes.
type Direction byte

// The directions.
const (
	Out  Direction = iota // from the local broker to the far one
	In                    // from the far broker to the local one
	Both                  // both ways
)

func (d Direction) out() bool { return d == Out || d == Both }
func (d Direction) in() bool  { return d == In || d == Both }

func (d Direction) String() string {
	switch d {
	case Out:
		return "out"
	case In:
		return "in"
	case Both:
		return "both"
	}
	return "unknown"
}

// Route says which messages cross the bridge, and under which names.
//
// Filter is relative to the prefixes, as in mosquitto's bridges: a local topic
// that is LocalPrefix followed by something that Filter matches is the same as
// the remote topic that is RemotePrefix followed by the same something.
//
//	Filter        LocalPrefix  RemotePrefix  local topic         remote topic
//	sensors/#     ""           ""            sensors/t1          sensors/t1
//	sensors/#     ""           site7/        sensors/t1          site7/sensors/t1
//	#             plant/       site7/        plant/pump/1        site7/pump/1
//	+/set         cmd/         site7/cmd/    cmd/valve/set       site7/cmd/valve/set
//	""            local/one    far/other     local/one           far/other
//
// A prefix is put in front as it is: no slash is added. The topic must begin
// with the whole prefix: with the prefix plant/ and the filter #, "plant" is
// not matched, although the filter plant/# alone would match it. The first
// route that matches owns a message.
type Route struct {
	Name      string // unique in its bridge; DefaultName if empty
	Direction Direction
	Filter    string
	// Exclude are filters like Filter, relative to the prefixes too, whose topics
	// the route leaves alone: a later one may own them.
	Exclude []string
	// The prefixes may be empty. They must not have wildcards.
	LocalPrefix, RemotePrefix string
	// QoS out is what is used towards the far broker whatever the message was
	// published with, so it may raise; in, it is what is subscribed with, and
	// a message keeps the QoS that it arrives with.
	QoS byte
	// Retain true keeps the RETAIN flag: out as the publisher has set it; in
	// as the far broker sends it, which is set only on what was already
	// retained at the time of the subscription (MQTT 3.1.1, 3.3.1.3), unless
	// the broker treats us as a bridge. Retain false clears it. Retained
	// messages come again whenever the connection was lost, because every
	// connection subscribes anew.
	Retain   bool
	Lane     holdfast.Lane // out: the lane of the queue
	Encoding Encoding      // out: the form of the payload
	// Out only. Sample is the interval in which at most one message of a topic
	// goes, the newest, up to 24 h; 0 is every one. OnChange leaves out what was
	// sent last on its topic. See thin.go. Stamp puts the payload into JSON with
	// time and sequence; see stamp.go.
	Sample   time.Duration
	OnChange bool
	Stamp    bool
}

// DefaultName is the name of a route that was given none.
func (r Route) DefaultName() string {
	if r.Filter == "" {
		return r.Direction.String() + " " + r.LocalPrefix
	}
	return r.Direction.String() + " " + r.Filter
}

// Validate returns every fault of r.
func (r Route) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if r.Direction > Both {
		fault("the direction must be out, in or both")
	}
	if r.QoS > 2 {
		fault("qos is %d: it must be 0, 1 or 2", r.QoS)
	}
	if r.Encoding > Base64Always {
		fault("encoding must be none, base64 or base64-always")
	}
	if r.Lane >= holdfast.LaneCount {
		fault("priority must be high, normal or low")
	}
	if r.Sample < 0 || r.Sample > maxSample {
		fault("sample is %v: it must be between 0 and %v", r.Sample, maxSample)
	}
	if !r.Direction.out() && (r.Sample > 0 || r.OnChange || r.Stamp) {
		fault("sample, on_change and stamp are for what goes out")
	}
	if strings.HasPrefix(r.Filter, "$share/") {
		fault("topic %q: a shared subscription cannot be a route", r.Filter)
	}
	if r.Filter != "" {
		if err := topic.ValidFilter(r.Filter); err != nil {
			fault("topic %q: %w", r.Filter, err)
		}
	}
	for _, f := range r.Exclude {
		if err := topic.ValidFilter(r.LocalPrefix + f); err != nil {
			fault("exclude %q behind local_prefix: %w", f, err)
		} else if err := topic.ValidFilter(r.RemotePrefix + f); err != nil && r.Direction.in() {
			fault("exclude %q behind remote_prefix: %w", f, err)
		}
	}
	for _, p := range []struct{ key, prefix string }{{"local_prefix", r.LocalPrefix}, {"remote_prefix", r.RemotePrefix}} {
		if strings.ContainsAny(p.prefix, "+#\x00") {
			fault("%s %q: a prefix must not have a wildcard", p.key, p.prefix)
		} else if err := topic.ValidFilter(p.prefix + r.Filter); err != nil {
			fault("%s %q and topic %q together: %w (does the prefix end with a slash?)", p.key, p.prefix, r.Filter, err)
		}
	}
	return errors.Join(faults...)
}

// maxSample bounds how long what is held keeps back the space of what was sent
// behind it.
const maxSample = 24 * time.Hour

// outRoute is a route made ready for Match. It does not change.
type outRoute struct {
	name        string
	lane        holdfast.Lane
	qos         byte
	retain      bool
	prefix      string // local
	filter      string // local prefix and filter
	literal     string // the part of filter that every topic must begin with
	remote      string // prefix
	remoteSpace string // filter of what is published remotely
	exclude     []string
	stamp       bool
	echoes      bool // what it sends may match a subscription of this bridge
}

func newOutRoute(r Route) outRoute {
	f := r.LocalPrefix + r.Filter
	return outRoute{
		name: r.Name, lane: r.Lane, qos: r.QoS, retain: r.Retain,
		prefix: r.LocalPrefix, filter: f, literal: literal(f),
		remote: r.RemotePrefix, remoteSpace: r.RemotePrefix + r.Filter,
		exclude: prefixed(r.LocalPrefix, r.Exclude), stamp: r.Stamp,
	}
}

// toRemote maps a local topic name.
func (r *outRoute) toRemote(name string) (string, bool) {
	if !strings.HasPrefix(name, r.literal) || !strings.HasPrefix(name, r.prefix) || !topic.Match(r.filter, name) {
		return "", false
	}
	if matchesAny(r.exclude, name) {
		return "", false
	}
	if r.prefix == r.remote {
		return name, true
	}
	to := r.remote + name[len(r.prefix):]
	return to, to != "" && len(to) <= maxTopic
}

// inRoute is a route made ready for what comes from upstream. It does not change.
type inRoute struct {
	name         string
	qos          byte
	retain       bool
	local        string // prefix
	prefix       string // remote
	remoteFilter string // what is subscribed
	localSpace   string // filter of what is published locally
	exclude      []string
}

func newInRoute(r Route) inRoute {
	return inRoute{
		name: r.Name, qos: r.QoS, retain: r.Retain,
		local: r.LocalPrefix, prefix: r.RemotePrefix,
		remoteFilter: r.RemotePrefix + r.Filter, localSpace: r.LocalPrefix + r.Filter,
		exclude: prefixed(r.RemotePrefix, r.Exclude),
	}
}

// toLocal maps a remote topic name.
func (r *inRoute) toLocal(name string) (string, bool) {
	if !strings.HasPrefix(name, r.prefix) || !topic.Match(r.remoteFilter, name) {
		return "", false
	}
	if matchesAny(r.exclude, name) {
		return "", false
	}
	to := r.local + name[len(r.prefix):]
	return to, to != "" && len(to) <= maxTopic
}

// prefixed are the filters behind a prefix.
func prefixed(prefix string, filters []string) (list []string) {
	for _, f := range filters {
		list = append(list, prefix+f)
	}
	return list
}

func matchesAny(filters []string, name string) bool {
	for _, f := range filters {
		if topic.Match(f, name) {
			return true
		}
	}
	return false
}

// maxTopic is the most bytes of a topic (MQTT 3.1.1, 1.5.3).
const maxTopic = 65535

// literal is the longest string that every topic matched by filter begins
// with: sport/ of sport/+/x, but sport of sport/#, which matches sport too.
func literal(filter string) string {
	i := strings.IndexAny(filter, "+#")
	if i < 0 {
		return filter
	}
	if filter[i] == '#' && i > 0 {
		i--
	}
	return filter[:i]
}

// Match returns the first route out that owns msg, and the message to queue for
// it: with the remote topic, the route's QoS and the RETAIN flag to be used.
// What this bridge itself brought down never goes back up. It is called for
// every message that the broker accepts: it takes no lock, and allocates
// nothing for a message that no route owns.
func (b *Bridge) Match(msg *holdfast.Message) (route string, lane holdfast.Lane, out *holdfast.Message, ok bool) {
	for i := range b.out {
		r := &b.out[i]
		to, ok := r.toRemote(msg.Topic)
		if !ok {
			continue
		}
		if msg.Origin == b.origin {
			return "", 0, nil, false
		}
		out := *msg
		out.Topic, out.QoS, out.Retain = to, r.qos, r.retain && msg.Retain
		if r.stamp {
			b.received(&out)
		}
		return r.name, r.lane, &out, true
	}
	return "", 0, nil, false
}
