package configs

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"holdfast/edge/topic"
)

// schemes are the kinds of far brokers with their ports.
var schemes = map[string]struct {
	port           string
	tls, websocket bool
}{
	"tcp": {port: "1883"}, "mqtt": {port: "1883"},
	"ssl": {port: "8883", tls: true}, "tls": {port: "8883", tls: true}, "mqtts": {port: "8883", tls: true},
	"ws":  {port: "80", websocket: true},
	"wss": {port: "443", tls: true, websocket: true},
}

// TLS reports whether the URL asks for it.
func (u Upstream) TLS() bool { return schemes[scheme(u.URL)].tls }

// scheme is what stands before :// in a URL.
func scheme(raw string) string {
	s, _, _ := strings.Cut(raw, "://")
	return strings.ToLower(s)
}

// Address is the host:port of the far broker; without a port in the URL it is
// that of the scheme.
func (u Upstream) Address() (string, error) {
	const form = `write it as "tcp://host:1883", "ssl://host:8883" or "wss://host/mqtt"`
	at, err := url.Parse(u.URL)
	if err != nil || at.Opaque != "" || !strings.Contains(u.URL, "://") {
		// The text of err is not shown: the URL may have a password in it.
		return "", fmt.Errorf("is not a URL; %s", form)
	}
	kind, ok := schemes[at.Scheme]
	switch {
	case !ok:
		return "", fmt.Errorf("%s:// is not known; %s", quoteKey(at.Scheme), form)
	case at.User != nil:
		return "", fmt.Errorf("has a user name in it; write username and password in [[bridge]]")
	case at.RawQuery != "" || at.Fragment != "":
		return "", fmt.Errorf("has a ? or # in it; %s", form)
	case !kind.websocket && strings.Trim(at.Path, "/") != "":
		return "", fmt.Errorf("has something after the port; %s", form)
	case at.Hostname() == "":
		return "", fmt.Errorf("has no host; %s", form)
	}
	port := at.Port()
	if port == "" {
		port = kind.port
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("has a port that is not 1 to 65535; %s", form)
	}
	return net.JoinHostPort(at.Hostname(), port), nil
}

func (k *checker) bridges() {
	names, clients := map[string]int{}, map[string]int{}
	for i := range k.c.Bridges {
		b, path := &k.c.Bridges[i], fmt.Sprintf("bridge[%d]", i)
		k.name(b.Name, path, names)
		if b.ClientID == "" {
			k.fault(path+".client_id", "is empty, and the far broker would forget everything; take the line out or write one")
		}
		if b.Password.IsSet() && b.Username == "" {
			k.missing(path+".username", "is missing, and MQTT has no password without a user name; write username as well")
		}
		if b.KeepAlive != Adaptive && b.KeepAlive%time.Second != 0 {
			k.fault(path+".keepalive", "%v is not in whole seconds, as MQTT has it; write whole seconds", b.KeepAlive)
		}
		if err := topic.ValidName(b.StateTopic); b.StateTopic != "" && err != nil {
			k.fault(path+".state_topic", "%v; write the name of a topic, or \"\"", err)
		}
		k.upstreams(b, path, clients)
		k.pair(b, path)
		k.routes(b, path)
	}
}

// upstreams checks the ways of one bridge. clients has every client identifier
// at every far broker: two bridges with the same one end each other's
// connection for ever, and the SIM pays.
func (k *checker) upstreams(b *Bridge, path string, clients map[string]int) {
	if len(b.Upstreams) == 0 {
		k.missing(path+".upstream", `is missing; write [[bridge.upstream]] with url = "tcp://host:1883" below this line`)
	}
	mine := map[string]int{}
	for i, u := range b.Upstreams {
		at := fmt.Sprintf("%s.upstream[%d]", path, i)
		k.via(u.Via, at)
		k.network(u, at)
		if u.URL == "" {
			k.missing(at+".url", `is missing; write url = "tcp://host:1883"`)
			continue
		}
		address, err := u.Address()
		if err != nil {
			k.fault(at+".url", "%v", err)
			continue
		}
		k.security(u, at)
		if u.Via == "" && k.isListener(address) {
			k.fault(at+".url", "this is the gateway's own listener; write the address of the far broker")
		}
		id := u.ClientID
		if id == "" {
			id = b.ClientID
		}
		key := address + " " + strings.ReplaceAll(id, "{bridge}", b.Name)
		if line, again := clients[key]; again {
			k.fault(at, "the bridge of the upstream in line %d has the same client_id at this broker, and they would end each other's "+
				"connection for ever; give them different ones", line)
		}
		mine[key] = k.line(at)
	}
	for key, line := range mine {
		clients[key] = line
	}
}

// network checks the interface of an upstream.
func (k *checker) network(u Upstream, path string) {
	switch {
	case u.Interface == "":
	case u.Via != "":
		k.fault(path+".interface", "a modem has a network of its own; keep one of via and interface")
	default:
		k.networkInterface(u.Interface, path)
	}
}

func (k *checker) networkInterface(name, path string) {
	if len(name) > 15 || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == '/' || c == ':' || c == 0x7f }) {
		k.fault(path+".interface", "%s cannot be the name of an interface; write one that \"ip link\" shows", quote(name))
	}
}

func (k *checker) via(modem, path string) {
	if modem == "" {
		return
	}
	var names []string
	for _, m := range k.c.Modems {
		if m.Name == modem {
			return
		}
		names = append(names, m.Name)
	}
	switch near, _ := nearest(modem, names); {
	case near != "":
		k.fault(path+".via", "there is no modem %s; did you mean %q?", quote(modem), near)
	case len(names) > 0:
		k.fault(path+".via", "there is no modem %s; write the name of one: %s", quote(modem), quote(strings.Join(names, ", ")))
	default:
		k.missing(path+".via", "there is no modem %s; write [[modem]] with name = %[1]s and its port", quote(modem))
	}
}

// isListener reports whether address is one of the gateway's own.
func (k *checker) isListener(address string) bool {
	host, port, err := net.SplitHostPort(address)
	for _, l := range k.c.Listeners {
		own, ownPort, ownErr := net.SplitHostPort(l.Address)
		everywhere := own == "" || net.ParseIP(own).IsUnspecified()
		if err == nil && ownErr == nil && port == ownPort &&
			(host == own || (isLoopback(host) && (isLoopback(own) || everywhere))) {
			return true
		}
	}
	return false
}

func (k *checker) routes(b *Bridge, path string) {
	if len(b.Routes) == 0 {
		k.missing(path+".route", `is missing; write [[bridge.route]] with a direction and a topic below this line`)
	}
	names := map[string]int{}
	for i, r := range b.Routes {
		at := fmt.Sprintf("%s.route[%d]", path, i)
		named := at + ".name"
		if line, again := names[r.Name]; again && r.Topic != "" {
			k.fault(named, "%s is taken by %s; give each its own name", quote(r.Name), lineWords(line))
		} else if len(r.Name) > 200 || strings.ContainsFunc(r.Name, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			k.fault(named, "%s cannot be a name; write up to 200 letters", quote(r.Name))
		}
		names[r.Name] = k.line(named)
		if r.Direction == In && (r.Encoding == Base64 || r.Encoding == Base64Always) {
			k.fault(at+".encoding", "is for what goes out, and this route brings in; take the line out")
		}
		if r.Topic == "" {
			k.missing(at+".topic", `is missing; write a topic filter, as in topic = "sensors/#"`)
			continue
		}
		if err := filterError(r.Topic); err != nil {
			k.fault(at+".topic", "%v; correct it", err)
			continue
		}
		if local := r.LocalPrefix + r.Topic; local == "$SYS" || strings.HasPrefix(local, "$SYS/") {
			where := "topic"
			if r.LocalPrefix != "" {
				where = "local_prefix"
			}
			k.fault(at+"."+where, "%s is the broker's own and never crosses a bridge; choose another local topic, as with local_prefix = \"far/\"", quote(local))
		}
		k.excludes(r, at)
		for _, out := range []struct {
			key string
			set bool
		}{{"sample", r.Sample > 0}, {"on_change", r.OnChange}, {"stamp", r.Stamp}} {
			if out.set && r.Direction == In {
				k.fault(at+"."+out.key, "is for what goes out; take the line out")
			}
		}
		for _, p := range []struct{ key, prefix string }{{"local_prefix", r.LocalPrefix}, {"remote_prefix", r.RemotePrefix}} {
			if strings.ContainsAny(p.prefix, "+#") {
				k.fault(at+"."+p.key, "%s has a wildcard; they stand in topic only", quote(p.prefix))
			} else if err := filterError(p.prefix + r.Topic); err != nil {
				k.fault(at+"."+p.key, `with the topic behind it: %v; end the prefix with "/"`, err)
			}
		}
	}
	k.promises(b, path)
}

// maxExcludes is the most filters of a route: each is tried with every message.
const maxExcludes = 100

func (k *checker) excludes(r Route, path string) {
	if len(r.Exclude) > maxExcludes {
		k.fault(path+".exclude", "has %d filters; write at most %d", len(r.Exclude), maxExcludes)
		return
	}
	for i, filter := range r.Exclude {
		at := fmt.Sprintf("%s.exclude[%d]", path, i)
		if err := filterError(filter); err != nil {
			k.fault(at, "%s: %v; correct it", quote(filter), err)
		} else if !overlap(filter, r.Topic) {
			k.fault(at, "%s has nothing in common with topic %s; write it as it would stand there, without local_prefix", quote(filter), quote(r.Topic))
		} else if err := filterError(r.LocalPrefix + filter); err != nil {
			k.fault(at, `%s with local_prefix in front: %v; end the prefix with "/"`, quote(filter), err)
		} else if err := filterError(r.RemotePrefix + filter); err != nil && r.Direction != Out {
			k.fault(at, `%s with remote_prefix in front: %v; end the prefix with "/"`, quote(filter), err)
		}
	}
}

func filterError(filter string) error {
	if strings.HasPrefix(filter, "$share/") {
		return fmt.Errorf("a shared subscription has no sense in a route")
	}
	return topic.ValidFilter(filter)
}

// promises warns of routes that keep less than their words seem to say.
func (k *checker) promises(b *Bridge, path string) {
	var modem, mode string
	for _, u := range b.Upstreams {
		for _, m := range k.c.Modems {
			if m.Name == u.Via && m.Name != "" && !m.OwnClient() {
				modem, mode = m.Name, m.Mode
			}
		}
	}
	for i, r := range b.Routes {
		at := fmt.Sprintf("%s.route[%d]", path, i)
		if why := twice(b, modem, mode); r.QoS == 2 && why != "" {
			k.warn(at+".qos", "after an outage a message of QoS 2 may come twice here: %s; or write 1 if that is no difference", why)
		}
		if modem != "" && r.Direction != Out && r.Direction != "" {
			may, advice := "acknowledges", "let the sender repeat what matters"
			if mode != ModeMQTT {
				may, advice = "has no sockets, it acknowledges", `write mode = "socket" if it has them`
			}
			what := "modem %q %s a message before this board has it: what comes in is delivered at most once; %s"
			if mode != ModeMQTT {
				what = "if modem %q %s a message before this board has it, and what comes in is delivered at most once; %s"
			}
			k.warn(at+".direction", what, modem, may, advice)
		}
		for j, other := range b.Routes {
			if (r.Direction == Out || r.Direction == Both) && (other.Direction == In || other.Direction == Both) &&
				overlap(r.RemotePrefix+r.Topic, other.RemotePrefix+other.Topic) {
				k.warn(fmt.Sprintf("%s.route[%d]", path, j), "what goes out by the route in line %d comes back here, unless the far broker knows bridges, "+
					"as Mosquitto does; give the two directions different remote_prefix", k.line(at))
			}
		}
	}
}

// twice says why QoS 2 is at least once across a bridge, and what to do; "" if it
// is exactly once. modem is one whose own client may carry it.
func twice(b *Bridge, modem, mode string) string {
	switch {
	case b.CleanSession:
		return "with clean_session = true the far broker forgets what it had; take that line out"
	case len(b.Upstreams) > 1:
		return "one of several upstreams does not know what another one had; leave one, if they are different brokers"
	case modem != "" && mode == ModeMQTT:
		return fmt.Sprintf("the client inside modem %q sends it anew; write mode = \"socket\" if it has sockets", modem)
	case modem != "":
		return fmt.Sprintf("if modem %q has no sockets, its own client sends it anew; write mode = \"socket\" to be sure", modem)
	}
	return ""
}

// overlap is topic.Overlap for filters that were not found valid yet.
func overlap(a, b string) bool {
	return filterError(a) == nil && filterError(b) == nil && topic.Overlap(a, b)
}
