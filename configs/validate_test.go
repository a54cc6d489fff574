package configs

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestUpstreamAddress(t *testing.T) {
	for url, want := range map[string]string{
		"tcp://host":             "host:1883",
		"mqtt://host:8883/":      "host:8883",
		"tcp://[2001:db8::1]":    "[2001:db8::1]:1883",
		"tcp://192.168.1.5:1884": "192.168.1.5:1884",
		"TCP://Host":             "Host:1883",
		"ssl://host":             "host:8883",
		"mqtts://host":           "host:8883",
		"ws://host":              "host:80",
		"wss://host/any/path":    "host:443",
	} {
		if got, err := (Upstream{URL: url}).Address(); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", url, got, err, want)
		}
	}
	const form = `; write it as "tcp://host:1883", "ssl://host:8883" or "wss://host/mqtt"`
	for url, want := range map[string]string{
		"host":              "is not a URL" + form,
		"host:1883":         "is not a URL" + form,
		"tcp:host":          "is not a URL" + form,
		"tcp://h ost":       "is not a URL" + form,
		"tcp://host:x":      "is not a URL" + form,
		"tcp://\x00":        "is not a URL" + form,
		"://host":           "is not a URL" + form,
		"quic://host":       "quic:// is not known" + form,
		"ws://host/a?b=c":   "has a ? or # in it" + form,
		"tcp://":            "has no host" + form,
		"tcp://:1883":       "has no host" + form,
		"tcp://host:0":      "has a port that is not 1 to 65535" + form,
		"tcp://host:65536":  "has a port that is not 1 to 65535" + form,
		"tcp://host/topic":  "has something after the port" + form,
		"tcp://host?a=b":    "has a ? or # in it" + form,
		"tcp://me:pw@host":  "has a user name in it; write username and password in [[bridge]]",
		"tcp://secret@host": "has a user name in it; write username and password in [[bridge]]",
	} {
		if got, err := (Upstream{URL: url}).Address(); err == nil || err.Error() != want {
			t.Errorf("%s is %q, %v; want %q", url, got, err, want)
		}
	}
}

// TestListenersForTheNetwork has what stands between a device and the broker:
// the fault names the very lines that open the door.
func TestListenersForTheNetwork(t *testing.T) {
	const open = `"0.0.0.0:1883" is open to the network, where nobody may connect; `
	for text, want := range map[string]string{
		``:         open + `add the lines [access] and anonymous = "always"`,
		`[access]`: open + `add the line anonymous = "always" below line 3`,
	} {
		_, _, err := loadText(t, "[[listener]]\naddress = \"0.0.0.0:1883\"\n"+text, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{
		"[[listener]]\naddress = \"0.0.0.0:1883\"\n[access]\nanonymous = \"always\"",
		"[[listener]]\naddress = \"127.1.2.3:1883\"",
		"[[listener]]\naddress = \"[::1]:1883\"",
		"[[listener]]\naddress = \"localhost:0\"\n[[listener]]\naddress = \"localhost:0\"",
	} {
		if _, warnings, err := loadText(t, text, nil); err != nil || len(warnings) > 0 {
			t.Errorf("%q: %q, %v", text, warnings, err)
		}
	}
	_, warnings, err := loadText(t, "access.anonymous = \"never\"", nil)
	if err != nil || len(warnings) != 1 || !strings.HasPrefix(warnings[0], "test.toml:1: access.anonymous: without users nobody") {
		t.Errorf("%q, %v", warnings, err)
	}
}

// TestConfigFromNoFile has faults without places.
func TestConfigFromNoFile(t *testing.T) {
	c := Default()
	c.Limits.MaxConnections = 0
	c.Modems = []Modem{{}}
	c.Listeners = nil
	const want = `limits.max_connections: 0 is too little; write 1 to 100000
listener: no device could connect; write [[listener]] with an address
modem.dialect: is missing; write one of: auto, ecmt`
	err := c.Validate()
	if err == nil || !strings.Contains(err.Error(), "modem.baud: 0 is too little") {
		t.Fatal(err)
	}
	for _, line := range strings.Split(want, "\n") {
		if !strings.Contains(err.Error(), line) {
			t.Errorf("%q is not in\n%v", line, err)
		}
	}
	if again := c.Validate(); again == nil || again.Error() != err.Error() {
		t.Errorf("the second time: %v", again)
	}
}

func TestLogLevels(t *testing.T) {
	for name, want := range map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	} {
		if got := (Log{Level: name}).Slog(); got != want {
			t.Errorf("%s is %v", name, got)
		}
	}
}

func TestMeantKeys(t *testing.T) {
	for key, want := range map[string]string{
		"max_packet_siez": "max_packet_size", "MAX-CONNECTIONS": "max_connections", "max_inflght": "max_inflight",
		"": "", "x": "", strings.Repeat("max_inflight", 10): "",
	} {
		if got, _ := nearest(key, []string{"max_packet_size", "max_connections", "max_inflight"}); got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"port", "prot", 1}, {"abc", "abc", 0}} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("%s to %s: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestTheTopicsOfTheBrokerAreNotRefreshedAllTheTime(t *testing.T) {
	for text, fine := range map[string]bool{"0s": true, "1s": true, "1ns": false, "999ms": false} {
		_, _, err := loadText(t, fmt.Sprintf("gateway.sys_interval = %q", text), nil)
		if fine && err != nil || !fine && (err == nil || !strings.Contains(err.Error(), `is too little; write at least 1s, or "0s"`)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestNoRouteHasALocalTopicOfTheBroker(t *testing.T) {
	for route, at := range map[string]string{
		"direction = \"in\"\ntopic = \"$SYS/#\"":                               "test.toml:7: bridge.route.topic: \"$SYS/#\" is",
		"direction = \"out\"\ntopic = \"$SYS\"":                                "test.toml:7: bridge.route.topic: \"$SYS\" is",
		"direction = \"in\"\ntopic = \"a/+\"\nlocal_prefix = \"$SYS/broker/\"": "test.toml:8: bridge.route.local_prefix: \"$SYS/broker/a/+\" is",
		"direction = \"in\"\ntopic = \"$SYS/#\"\nlocal_prefix = \"far/\"":      "",
		"direction = \"out\"\ntopic = \"SYS/#\"\nremote_prefix = \"$SYS/\"":    "",
		"direction = \"both\"\ntopic = \"$SYSTEM/#\"\nremote_prefix = \"x/\"":  "",
	} {
		_, _, err := loadText(t, "[[bridge]]\nname = \"b\"\n[[bridge.upstream]]\nurl = \"tcp://far\"\n[[bridge.route]]\n"+route, nil)
		if at == "" && err != nil || at != "" && (err == nil || !strings.Contains(err.Error(), at)) {
			t.Errorf("%s: %v, want %q", route, err, at)
		}
	}
}

func TestUsersThatNobodyNeedsAreTold(t *testing.T) {
	const user = "[[access.user]]\nname = \"a\"\npassword = \"$argon2id$v=19$m=9216,t=4,p=1$Cjzd+cq0mdzQ0hEvk3Aq6w$Q7mJ5yDGxS9AyRBMUQEwVChdI6ZgxxfNs4dVCKFK3dM\"\n"
	for anonymous, told := range map[string]bool{AnonymousAlways: true, AnonymousLoopback: false, AnonymousNever: false} {
		_, warnings, err := loadText(t, fmt.Sprintf("[access]\nanonymous = %q\n%s", anonymous, user), nil)
		if err != nil || told != (len(warnings) == 1 && strings.HasPrefix(warnings[0], "test.toml:2: access.anonymous: whoever leaves the user name out")) {
			t.Errorf("%s: %q, %v", anonymous, warnings, err)
		}
	}
}
