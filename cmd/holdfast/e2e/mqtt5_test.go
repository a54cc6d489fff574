package e2e

import (
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// python3 is Debian's own, which has Debian's modules.
const python3 = "/usr/bin/python3"

func needsPaho(t *testing.T) {
	t.Helper()
	if err := exec.Command(python3, "-c", "import paho.mqtt.client").Run(); err != nil {
		missing(t, "python3-paho-mqtt is not installed; scripts/test-deps.sh installs it")
	}
}

func TestMosquittoClientsSpeakMQTT5(t *testing.T) {
	pub, sub := tool(t, "mosquitto_pub"), tool(t, "mosquitto_sub")
	g := newHoldfast(t, "")
	g.start()
	where := append(hostAndPort(t, g.address), "-V", "mqttv5", "-q", "2")
	session := append(where, "-i", "app", "-c", "-x", "3600", "-t", "five/#")
	command(t, sub, append(session, "-E")...)
	command(t, pub, append(where, "-t", "five/1", "-m", "hello",
		"-D", "publish", "content-type", "text/plain", "-D", "publish", "message-expiry-interval", "1000000",
		"-D", "publish", "response-topic", "answers", "-D", "publish", "user-property", "k", "v")...)
	command(t, pub, append(where, "-t", "five/2", "-m", "gone", "-D", "publish", "message-expiry-interval", "0")...)
	g.end(syscall.SIGKILL)
	g.start()
	where[3] = hostAndPort(t, g.address)[3]
	session[3] = where[3]
	command(t, pub, append(where, "-t", "five/3", "-m", "last")...)
	got := command(t, sub, append(session, "-C", "2", "-W", "20", "-F", "%t %p %q %C %R %P")...)
	if want := "five/1 hello 2 text/plain answers k:v\nfive/3 last 2   \n"; got != want {
		t.Fatalf("received %q, want %q", got, want)
	}
}

const pythonScript5 = `
import sys, threading
import paho.mqtt.client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.subscribeoptions import SubscribeOptions
host, port = sys.argv[1], int(sys.argv[2])
got, done, acked = [], threading.Event(), []
def props(kind, **set):
    p = Properties(kind)
    for k, v in set.items(): setattr(p, k, v)
    return p
def on_connect(c, u, flags, rc, properties):
    assert rc == 0, rc
    assert properties.AssignedClientIdentifier
    assert properties.TopicAliasMaximum > 0
    c.subscribe([("py/%d" % q, SubscribeOptions(qos=q)) for q in range(3)], properties=props(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=7))
def on_subscribe(c, u, mid, codes, properties):
    assert [x.value for x in codes] == [0, 1, 2], codes
    for q in range(3):
        for i in range(50):
            p = props(PacketTypes.PUBLISH, ContentType="n", UserProperty=("i", str(i)), TopicAlias=q + 1)
            c.publish("py/%d" % q if i == 0 or q else "", "%d" % i, qos=q, properties=p)
def on_message(c, u, m):
    got.append((m.topic, int(m.payload), m.qos, m.properties.UserProperty, m.properties.ContentType, m.properties.SubscriptionIdentifier))
    if len(got) == 150: done.set()
c = mqtt.Client("", protocol=mqtt.MQTTv5)
c.max_inflight_messages_set(20)
c.on_connect, c.on_subscribe, c.on_message = on_connect, on_subscribe, on_message
c.connect(host, port, properties=props(PacketTypes.CONNECT, ReceiveMaximum=5, TopicAliasMaximum=0))
c.loop_start()
assert done.wait(30), "received %d of 150" % len(got)
for q in range(3):
    mine = [g for g in got if g[0] == "py/%d" % q]
    assert [g[1] for g in mine] == list(range(50)), "order at QoS %d" % q
    assert all(g[2] == q and g[3] == [("i", str(g[1]))] and g[4] == "n" and g[5] == [7] for g in mine), mine[0]
c.disconnect()
print("ok")
`

func TestPythonPahoSpeaksMQTT5(t *testing.T) {
	needsPaho(t)
	g := newHoldfast(t, "")
	g.start()
	host, port, _ := net.SplitHostPort(g.address)
	if out := command(t, python3, "-c", pythonScript5, host, port); strings.TrimSpace(out) != "ok" {
		t.Fatalf("printed %q", out)
	}
}
