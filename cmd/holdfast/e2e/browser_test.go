package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// conversation is what MQTT.js says in node and in a page: each QoS in each version,
// with messages of many sizes.
const conversation = `
async function converse(mqtt, url, version) {
  const c = await new Promise((ok, no) => {
    const c = mqtt.connect(url, { protocolVersion: version, protocolId: version === 3 ? 'MQIsdp' : 'MQTT', clientId: 'js' + version,
      reconnectPeriod: 0, rejectUnauthorized: false })
    c.on('connect', () => ok(c))
    c.on('error', no)
    c.on('close', () => no(new Error(url + ': refused')))
  })
  let over = false
  const lost = new Promise((_, no) => c.on('close', () => over || no(new Error(url + ' in version ' + version + ': the connection is lost'))))
  await Promise.race([lost, sendAndReceive(c, url, version)])
  over = true
  await c.endAsync()
}
async function sendAndReceive(c, url, version) {
  const fail = what => { throw new Error(url + ' in version ' + version + ': ' + what) }
  const got = [[], [], []], topic = q => 'js/' + version + '/' + q
  const all = new Promise(ok => c.on('message', (t, m, p) => {
    got[Number(t.at(-1))].push([m.length, p])
    if (got.every(g => g.length === 20)) ok()
  }))
  await c.subscribeAsync({ [topic(0)]: { qos: 0 }, [topic(1)]: { qos: 1 }, [topic(2)]: { qos: 2 } })
  const properties = version === 5 ? { contentType: 'x', userProperties: { name: 'value' } } : undefined
  const sent = []
  for (let q = 0; q < 3; q++)
    for (let i = 0; i < 20; i++) sent.push(c.publishAsync(topic(q), 'x'.repeat(i * 1000 + 1), { qos: q, properties }))
  await Promise.all(sent)
  await all
  for (let q = 0; q < 3; q++)
    got[q].forEach(([n, p], i) => {
      if (n !== i * 1000 + 1 || p.qos !== q) fail('message ' + i + ' of QoS ' + q + ' has ' + n + ' bytes and QoS ' + p.qos)
      if (version === 5 && (p.properties.contentType !== 'x' || p.properties.userProperties.name !== 'value')) fail('properties ' + JSON.stringify(p.properties))
    })
}
`

// mqttJS is the folder of MQTT.js, as npm makes it. Without it the test is skipped:
// it is 13 MB of other people's code that changes every week ("make browser").
func mqttJS(t *testing.T, program string) (folder, path string) {
	t.Helper()
	folder = os.Getenv("MQTTJS")
	if _, err := os.Stat(filepath.Join(folder, "dist", "mqtt.min.js")); folder == "" || err != nil {
		t.Skip(`MQTTJS is not the folder of MQTT.js: run "make browser", which fetches it`)
	}
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skip(program + " is not installed")
	}
	return folder, path
}

// webSockets starts a gateway, and returns the addresses of its listeners for WebSocket.
func webSockets(t *testing.T) (g *holdfast, ws, wss string) {
	t.Helper()
	cert, key := selfSigned(t)
	ws, wss = freePort(t), freePort(t)
	g = newHoldfast(t, fmt.Sprintf("[[listener]]\naddress = %q\ntransport = \"ws\"\n[[listener]]\naddress = %q\ntransport = \"wss\"\ncert = %q\nkey = %q\n", ws, wss, cert, key))
	g.start()
	_, port, _ := net.SplitHostPort(wss)
	return g, "ws://" + ws + "/mqtt", "wss://localhost:" + port + "/mqtt"
}

func TestMQTTjsInNodeTalksToTheBroker(t *testing.T) {
	folder, node := mqttJS(t, "node")
	g, ws, wss := webSockets(t)
	script := conversation + `
const [folder, ...urls] = process.argv.slice(1);
(async () => {
  const mqtt = require(folder)
  for (const url of urls) for (const version of [3, 4, 5]) await converse(mqtt, url, version)
  console.log('ok')
})().catch(e => { console.error(e); process.exit(1) })`
	if out := command(t, node, "-e", script, folder, "mqtt://"+g.address, ws, wss); strings.TrimSpace(out) != "ok" {
		t.Fatalf("printed %q", out)
	}
}

func TestMQTTjsInABrowserTalksToTheBroker(t *testing.T) {
	folder, chromium := mqttJS(t, "chromium")
	_, ws, wss := webSockets(t)
	said := make(chan string, 1)
	page := http.NewServeMux()
	page.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `<script src="mqtt.js"></script><script>%s
(async () => {
  let said = 'ok'
  try {
    for (const url of [%q, %q]) for (const version of [3, 4, 5]) await converse(mqtt, url, version)
  } catch (e) { said = String(e) }
  fetch('said', { method: 'POST', body: said })
})()</script>`, conversation, ws, wss)
	})
	page.HandleFunc("/mqtt.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(folder, "dist", "mqtt.min.js"))
	})
	page.HandleFunc("/said", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		select {
		case said <- string(b):
		default:
		}
	})
	srv := httptest.NewServer(page)
	defer srv.Close()
	browser := newProcess(t, chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
		"--ignore-certificate-errors", "--user-data-dir="+t.TempDir(), srv.URL)
	browser.start()
	defer browser.end(syscall.SIGTERM)
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case got := <-said:
		if got != "ok" {
			t.Errorf("the page says: %s", got)
		}
	case <-late.C:
		t.Errorf("the page says nothing within %v", patience)
	}
}
