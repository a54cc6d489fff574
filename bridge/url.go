package bridge

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// endpoint is what the URL of a far broker says.
type endpoint struct {
	host, port string
	tls        bool
	websocket  bool
	path       string // of a WebSocket
}

func (e endpoint) address() string { return net.JoinHostPort(e.host, e.port) }

// schemes are those of a far broker, with their ports. tls:// is the same as
// ssl://; the others have names of their own in RFC 6455 and at IANA.
var schemes = map[string]endpoint{
	"tcp":   {port: "1883"},
	"mqtt":  {port: "1883"},
	"ssl":   {port: "8883", tls: true},
	"tls":   {port: "8883", tls: true},
	"mqtts": {port: "8883", tls: true},
	"ws":    {port: "80", websocket: true},
	"wss":   {port: "443", tls: true, websocket: true},
}

// defaultPath is the one that most brokers have their WebSocket at.
const defaultPath = "/mqtt"

// parseURL takes the URL of a far broker apart, or says what is wrong with it.
func parseURL(raw string) (endpoint, error) {
	const form = "it must look like tcp://broker.example:1883, ssl://broker.example:8883 or wss://broker.example/mqtt"
	u, err := url.Parse(raw)
	if err != nil {
		return endpoint{}, fmt.Errorf("url cannot be read: %s", form) // err would repeat a password
	}
	known, ok := schemes[u.Scheme]
	switch {
	case !ok:
		return endpoint{}, fmt.Errorf("url: scheme %q is not known: %s", u.Scheme, form)
	case u.User != nil:
		return endpoint{}, errors.New("url must not have a user or password in it: set username and password")
	case u.Hostname() == "":
		return endpoint{}, fmt.Errorf("url has no host: %s", form)
	case u.RawQuery != "" || u.Fragment != "":
		return endpoint{}, fmt.Errorf("url must not have a ? or # in it: %s", form)
	case !known.websocket && strings.Trim(u.Path, "/") != "":
		return endpoint{}, fmt.Errorf("url must end after the port: %s", form)
	}
	e := known
	e.host = u.Hostname()
	if u.Port() != "" {
		if n, err := strconv.Atoi(u.Port()); err != nil || n < 1 || n > 65535 {
			return endpoint{}, fmt.Errorf("url has a port that is not 1 to 65535: %s", form)
		}
		e.port = u.Port()
	}
	if e.websocket {
		if e.path = u.EscapedPath(); strings.Trim(e.path, "/") == "" {
			e.path = defaultPath
		}
	}
	return e, nil
}
