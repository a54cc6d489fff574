package bridge

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast"
)

// cuts is a Dialer of wires that end after so many bytes, of those that are sent or of
// those that come.
type cuts struct {
	sent bool
	gate sync.Mutex // no wire is made while a test has it

	mu   sync.Mutex
	next int // after how many bytes the next wire ends; the later ones do not
	last *cutWire
	n    int // that were made
}

type cutWire struct {
	net.Conn
	cuts *cuts
	left int // guarded by cuts.mu
}

const uncut = 1 << 30

func (c *cuts) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.gate.Lock()
	defer c.gate.Unlock()
	wire, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = &cutWire{wire, c, c.next}
	c.next = uncut
	c.n++
	return c.last, nil
}

// again ends the last wire, and makes the next one end after so many bytes. Meanwhile
// it calls feed. The wire is returned.
func (c *cuts) again(after int, feed func()) (ended *cutWire) {
	c.gate.Lock()
	defer c.gate.Unlock()
	c.mu.Lock()
	ended = c.last
	c.next = after
	c.mu.Unlock()
	ended.Close()
	feed()
	return ended
}

// carried reports whether the last wire is another one than before, and was not
// cut.
func (c *cuts) carried(before *cutWire) (another, whole bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last != before, c.last.left > 0 && c.last.left < uncut/2
}

func (w *cutWire) Write(p []byte) (int, error) {
	if !w.cuts.sent {
		return w.Conn.Write(p)
	}
	n, err := w.carry(p, w.Conn.Write)
	if err == nil && n < len(p) {
		w.Conn.Close()
		err = syscall.ECONNRESET
	}
	return n, err
}

func (w *cutWire) Read(p []byte) (int, error) {
	if w.cuts.sent {
		return w.Conn.Read(p)
	}
	return w.carry(p, w.Conn.Read)
}

func (w *cutWire) carry(p []byte, by func([]byte) (int, error)) (int, error) {
	w.cuts.mu.Lock()
	most := min(w.left, len(p))
	w.cuts.mu.Unlock()
	if most == 0 {
		w.Conn.Close()
		return 0, syscall.ECONNRESET
	}
	n, err := by(p[:most])
	w.cuts.mu.Lock()
	defer w.cuts.mu.Unlock()
	w.left -= n
	return n, err
}

// arrivals counts what arrives, by payload.
type arrivals struct {
	mu    sync.Mutex
	count map[string]int
}

func (a *arrivals) note(payload string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count == nil {
		a.count = map[string]int{}
	}
	a.count[payload]++
}

func (a *arrivals) distinct() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.count)
}

// check looks for n payloads, counted from 1, and returns how many came again.
func (a *arrivals) check(t *testing.T, what string, n int) (again int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range n {
		switch got := a.count[strconv.Itoa(i+1)]; {
		case got == 0:
			t.Errorf("%s %d of %d is lost", what, i+1, n)
		default:
			again += got - 1
		}
	}
	return again
}

// eagerLocal is a local broker that takes everything.
type eagerLocal struct {
	arrivals
	q *exactQueue
}

func (l *eagerLocal) Publish(msg *holdfast.Message, done func(error)) {
	l.note(string(msg.Payload))
	done(nil)
}

func (l *eagerLocal) PublishOnce(msg *holdfast.Message, id uint16, done func(error)) {
	l.q.x.Lock()
	l.q.came[id] = true
	l.q.x.Unlock()
	l.Publish(msg, done)
}

// TestALinkThatIsCutAtAnyByteOfAConversationLosesNothing cuts a connection that has
// messages to carry up and a command to bring down, the next one a little later, and so
// on, until one has carried them all: in the handshakes of TLS and of the WebSocket, in
// CONNECT, CONNACK, SUBSCRIBE, SUBACK, and in every packet of the messages. The
// connection behind each brings what was left. With QoS 2 nothing may come twice.
func TestALinkThatIsCutAtAnyByteOfAConversationLosesNothing(t *testing.T) {
	noLeaks(t)
	ca := newAuthority(t, "Test CA")
	cert, key := ca.server(nil)
	protocols := map[string]func(ClientOptions) Connect{"3.1.1": MQTT3Connect, "5": MQTT5Connect}
	for _, tc := range []struct {
		scheme, protocol string
		qos              byte
		step             int
	}{
		{"tcp", "3.1.1", 1, 1}, {"tcp", "5", 1, 1}, {"tcp", "3.1.1", 2, 1}, {"tcp", "5", 2, 1},
		{"ws", "5", 1, 19}, {"wss", "3.1.1", 2, 151}, {"ssl", "5", 2, 61},
	} {
		for _, way := range []string{"sent", "received"} {
			t.Run(fmt.Sprintf("%s, %s, QoS %d, %s", tc.scheme, tc.protocol, tc.qos, way), func(t *testing.T) {
				t.Parallel()
				address := freeAddress(t)
				_, port, _ := net.SplitHostPort(address)
				lines := []string{"allow_anonymous true", "listener " + port + " 127.0.0.1"}
				if strings.HasPrefix(tc.scheme, "ws") {
					lines = append(lines, "protocol websockets")
				}
				if strings.HasSuffix(tc.scheme, "ss") || tc.scheme == "ssl" {
					lines = append(lines, "certfile "+cert, "keyfile "+key)
				}
				m := startMosquitto(t, lines...)
				link := &cuts{sent: way == "sent", next: uncut}
				o := ClientOptions{URL: tc.scheme + "://" + address, ClientID: "gw", TLS: TLSOptions{CAFile: ca.file},
					Exactly: tc.qos == 2, ConnectTimeout: patience, Dial: link.dial}
				cutEverywhere(t, m, link, tc.step, tc.qos, protocols[tc.protocol](o))
			})
		}
	}
}

func cutEverywhere(t *testing.T, m *mosquitto, link *cuts, step int, qos byte, connect Connect) {
	q, up := &exactQueue{fakeQueue: newFakeQueue(&story{}), came: map[uint16]bool{}}, &arrivals{}
	local := &eagerLocal{q: q}
	options := Options{
		Name: "b", Queue: q, Local: local,
		Routes:     []Route{{Filter: "t/#", QoS: qos}, {Filter: "cmd/#", Direction: In, QoS: qos}},
		BackoffMin: time.Millisecond, BackoffMax: 2 * time.Millisecond, MaxAttempts: 1_000_000,
		Upstreams: []UpstreamOption{{Name: "u", Connect: connect}},
	}
	if qos == 2 {
		options.FarSession = "far"
	}
	b, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	_, messages := m.client("t/#", 2)
	commander, _ := m.client("", 0)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = b.Run(ctx) })
	running.Go(func() {
		for {
			select {
			case msg := <-messages:
				up.note(string(msg.Payload()))
			case <-ctx.Done():
				return
			}
		}
	})
	// A session must be there before it can keep a command.
	until(t, "the first connection", func() bool { return b.Status().State == Connected })
	fed, commands := 0, 0
	for after, whole := 0, false; !whole; after += step {
		before := link.again(after, func() {
			q.add(2, qos)
			m.publish(commander, "cmd/x", strconv.Itoa(commands+1), qos)
		})
		fed, commands = fed+2, commands+1
		until(t, fmt.Sprintf("%d messages and %d commands, after a cut behind %d bytes,", fed, commands, after), func() bool {
			var another bool
			another, whole = link.carried(before)
			return another && up.distinct() == fed && local.distinct() == commands && q.Len() == 0 && b.Status().State == Connected
		})
	}
	again, commandsAgain := up.check(t, "message", fed), local.check(t, "command", commands)
	st := b.Status()
	t.Logf("%d connections, %d messages, %d again; %d commands, %d again", link.n, fed, again, commands, commandsAgain)
	if qos == 2 && (again > 0 || commandsAgain > 0 || st.Unsure > 0) {
		t.Errorf("of QoS 2 %d messages and %d commands came again, %d are unsure", again, commandsAgain, st.Unsure)
	}
	if st.LastError == "" || st.Quarantined > 0 || link.n < 10 {
		t.Errorf("after %d connections the status is %+v", link.n, st)
	}
}
