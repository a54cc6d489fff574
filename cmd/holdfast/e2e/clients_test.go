package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/edge/packet"
)

// command runs a program and returns what it printed; a failure ends the test.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

func hostAndPort(t *testing.T, address string) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"-h", host, "-p", port}
}

func TestMosquittoClientsTalkToTheBrokerAtEveryQoS(t *testing.T) {
	pub, sub := tool(t, "mosquitto_pub"), tool(t, "mosquitto_sub")
	g := newHoldfast(t, "")
	g.start()
	where := hostAndPort(t, g.address)
	for qos := range 3 {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			q := fmt.Sprint(qos)
			id := "sub" + q
			// A durable session, so that nothing depends on who is faster.
			command(t, sub, append(where, "-i", id, "-c", "-q", q, "-t", "m/"+q, "-E")...)
			if qos == 0 {
				// QoS 0 is not kept for sessions that are away: subscribe first.
				before := subscriptions(t, g)
				s := newProcess(t, sub, append(where, "-q", q, "-t", "m/"+q, "-C", "3", "-F", "%t %p %q")...)
				s.start()
				eventually(t, "it is subscribed", func() bool { return subscriptions(t, g) > before })
				command(t, pub, append(where, "-q", q, "-t", "m/"+q, "-m", "one")...)
				command(t, pub, append(where, "-q", q, "-t", "m/"+q, "-m", "two")...)
				command(t, pub, append(where, "-q", q, "-t", "m/"+q, "-m", "three")...)
				if err := <-s.done; err != nil {
					t.Fatal(err)
				}
				s.cmd = nil
				if got := s.tail(); got != "m/0 one 0\nm/0 two 0\nm/0 three 0\n" {
					t.Fatalf("received %q", got)
				}
				return
			}
			lines := command(t, pub, append(where, "-q", q, "-t", "m/"+q, "-m", "one")...)
			lines += command(t, pub, append(where, "-q", q, "-t", "m/"+q, "-m", "two")...)
			got := command(t, sub, append(where, "-i", id, "-c", "-q", q, "-t", "m/"+q, "-C", "2", "-W", "20", "-F", "%t %p %q")...)
			if want := fmt.Sprintf("m/%s one %s\nm/%s two %s\n", q, q, q, q); got != want {
				t.Fatalf("received %q, want %q (%s)", got, want, lines)
			}
		})
	}
}

func subscriptions(t *testing.T, g *holdfast) int {
	t.Helper()
	st, err := g.status()
	if err != nil {
		t.Fatal(err)
	}
	return st.Broker.Subscriptions
}

func TestWillRetainedMessageAndSessionSurviveAKillOfTheGateway(t *testing.T) {
	pub, sub := tool(t, "mosquitto_pub"), tool(t, "mosquitto_sub")
	g := newHoldfast(t, "")
	g.start()
	where := hostAndPort(t, g.address)
	command(t, pub, append(where, "-q", "1", "-r", "-t", "state/door", "-m", "open")...)
	command(t, sub, append(where, "-i", "app", "-c", "-q", "1", "-t", "will/#", "-t", "jobs/#", "-E")...)
	command(t, pub, append(where, "-q", "1", "-t", "jobs/1", "-m", "queued")...)
	connect(t, g.address, packet.Connect{ClientID: "device", CleanStart: true,
		Will: &packet.Will{Topic: "will/device", Payload: []byte("gone"), QoS: 1}})
	g.end(syscall.SIGKILL)
	g.start()
	if got := command(t, sub, append(where, "-t", "state/#", "-C", "1", "-W", "20", "-F", "%t %p %r")...); got != "state/door open 1\n" {
		t.Errorf("retained message after the restart: %q", got)
	}
	got := command(t, sub, append(where, "-i", "app", "-c", "-q", "1", "-t", "will/#", "-t", "jobs/#", "-C", "2", "-W", "20", "-F", "%t %p")...)
	if got != "jobs/1 queued\nwill/device gone\n" {
		t.Errorf("queued message and will after the restart: %q", got)
	}
}

const pythonScript = `
import sys, threading
import paho.mqtt.client as mqtt
host, port = sys.argv[1], int(sys.argv[2])
got, done = [], threading.Event()
def on_connect(c, *a):
    c.subscribe([("py/%d" % q, q) for q in range(3)])
def on_subscribe(c, *a):
    for q in range(3):
        for i in range(50):
            c.publish("py/%d" % q, "%d" % i, qos=q)
def on_message(c, u, m):
    got.append((m.topic, int(m.payload), m.qos))
    if len(got) == 150: done.set()
c = mqtt.Client("python")
c.max_inflight_messages_set(20)
c.on_connect, c.on_subscribe, c.on_message = on_connect, on_subscribe, on_message
c.connect(host, port)
c.loop_start()
assert done.wait(30), "received %d of 150" % len(got)
for q in range(3):
    assert [g[1] for g in got if g[0] == "py/%d" % q] == list(range(50)), "order at QoS %d" % q
    assert all(g[2] == q for g in got if g[0] == "py/%d" % q)
c.disconnect()
print("ok")
`

func TestPythonPahoTalksToTheBrokerAtEveryQoS(t *testing.T) {
	python := "/usr/bin/python3" // Debian's own, which has Debian's modules
	if err := exec.Command(python, "-c", "import paho.mqtt.client").Run(); err != nil {
		missing(t, "python3-paho-mqtt is not installed; scripts/test-deps.sh installs it")
	}
	g := newHoldfast(t, "")
	g.start()
	host, port, _ := net.SplitHostPort(g.address)
	if out := command(t, python, "-c", pythonScript, host, port); strings.TrimSpace(out) != "ok" {
		t.Fatalf("printed %q", out)
	}
}

const cProgram = `
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <MQTTClient.h>
static void must(int rc, const char *what) { if (rc != MQTTCLIENT_SUCCESS) { fprintf(stderr, "%s: %d\n", what, rc); exit(1); } }
int main(int argc, char **argv) {
    MQTTClient c; MQTTClient_connectOptions o = MQTTClient_connectOptions_initializer;
    must(MQTTClient_create(&c, argv[1], "paho-c", MQTTCLIENT_PERSISTENCE_NONE, NULL), "create");
    o.keepAliveInterval = 20; o.cleansession = 1;
    must(MQTTClient_connect(c, &o), "connect");
    for (int q = 0; q <= 2; q++) {
        char topic[16]; sprintf(topic, "c/%d", q);
        must(MQTTClient_subscribe(c, topic, q), "subscribe");
        for (int i = 0; i < 20; i++) {
            char body[16]; sprintf(body, "%d", i);
            MQTTClient_deliveryToken token;
            must(MQTTClient_publish(c, topic, strlen(body), body, q, 0, &token), "publish");
            must(MQTTClient_waitForCompletion(c, token, 10000), "completion");
            char *from; int n; MQTTClient_message *m = NULL;
            must(MQTTClient_receive(c, &from, &n, &m, 10000), "receive");
            if (!m || m->qos != q || atoi(strndup(m->payload, m->payloadlen)) != i) { fprintf(stderr, "QoS %d message %d is wrong\n", q, i); return 1; }
            MQTTClient_freeMessage(&m); MQTTClient_free(from);
        }
    }
    must(MQTTClient_disconnect(c, 1000), "disconnect");
    puts("ok");
    return 0;
}
`

func TestPahoCTalksToTheBrokerAtEveryQoS(t *testing.T) {
	t.Parallel()
	cc := tool(t, "gcc")
	dir := t.TempDir()
	source, program := filepath.Join(dir, "client.c"), filepath.Join(dir, "client")
	if err := os.WriteFile(source, []byte(cProgram), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-o", program, source, "-lpaho-mqtt3c").CombinedOutput(); err != nil {
		if strings.Contains(string(out), "MQTTClient.h") {
			missing(t, "libpaho-mqtt-dev is not installed; scripts/test-deps.sh installs it")
		}
		t.Fatalf("%v\n%s", err, out)
	}
	g := newHoldfast(t, "")
	g.start()
	if out := command(t, program, "tcp://"+g.address); strings.TrimSpace(out) != "ok" {
		t.Fatalf("printed %q", out)
	}
}
