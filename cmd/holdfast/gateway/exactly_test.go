package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"holdfast"
	"holdfast/bridge"
	"holdfast/edge"
	"holdfast/storage"
)

// pipes is a listener in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// loggingBroker is a broker whose store outlives it, and which logs in it what of
// some topics it has taken.
type loggingBroker struct {
	t      *testing.T
	topics string // what they begin with
	memory storage.Memory
	taken  atomic.Int64

	store  *storage.Store
	log    *storage.Queue
	server *edge.Server
}

func (l *loggingBroker) open() {
	var err error
	if l.store, err = storage.OpenMemory(storage.Options{Memory: &l.memory, AckDelay: time.Millisecond}); err != nil {
		l.t.Fatal(err)
	}
	if l.log, err = l.store.Queue("log", storage.QueueOptions{}); err != nil {
		l.t.Fatal(err)
	}
	everyone, err := edge.NewUsers(edge.AnonymousAlways, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	l.server, err = edge.NewServer(edge.Options{Sink: l, Store: sessionStore{l.store}, Access: everyone, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		l.t.Fatal(err)
	}
}

// Accept makes it an edge.Sink.
func (l *loggingBroker) Accept(p *holdfast.Publication, done func(error)) error {
	var to []storage.Append
	if strings.HasPrefix(p.Msg.Topic, l.topics) {
		to = []storage.Append{{Queue: l.log, Msg: p.Msg}}
	}
	return l.store.Publish(p, to, func(err error) {
		if err == nil {
			l.taken.Add(int64(len(to)))
		}
		done(err)
	})
}

// farBroker is the far end of a bridge.
type farBroker struct {
	loggingBroker
	serves chan struct{}
	ln     atomic.Pointer[pipes] // nil: it is down
}

func newFarBroker(t *testing.T) *farBroker {
	return &farBroker{loggingBroker: loggingBroker{t: t, topics: "t/"}}
}

func (f *farBroker) start() {
	f.open()
	ln := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	f.serves = make(chan struct{})
	go func() {
		defer close(f.serves)
		_ = f.server.Serve(ln)
	}()
	f.ln.Store(ln)
}

// stop ends it: like kill -9, or in order.
func (f *farBroker) stop(kill bool) {
	f.ln.Swap(nil).Close()
	if kill {
		f.store.Crash()
	}
	_ = f.server.Shutdown(context.Background())
	<-f.serves
	if !kill {
		_ = f.store.Close()
	}
}

// dial connects to it. after is called when the wire has moved so many times;
// nothing more is written once dead is set.
func (f *farBroker) dial(dead *atomic.Bool, moves int64, after func(cut func())) bridge.Dialer {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		ln := f.ln.Load()
		if ln == nil {
			return nil, syscall.ECONNREFUSED
		}
		near, far := net.Pipe()
		c := &countedConn{Conn: near, dead: dead, after: func() { after(func() { near.Close() }) }}
		c.left.Store(moves)
		select {
		case ln.conns <- far:
			return c, nil
		case <-ln.closed:
			return nil, syscall.ECONNREFUSED
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

type countedConn struct {
	net.Conn
	dead  *atomic.Bool
	left  atomic.Int64
	after func()
}

func (c *countedConn) moved() {
	if c.left.Add(-1) == 0 {
		c.after()
	}
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), 20)]) // in pieces, so that the wire moves
	c.moved()
	return n, err
}

func (c *countedConn) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		if c.dead.Load() {
			return n, net.ErrClosed
		}
		var m int
		m, err = c.Conn.Write(p[:min(len(p), 60)])
		n, p = n+m, p[m:]
		c.moved()
	}
	return n, err
}

// nearBridge is a bridge with its local broker.
type nearBridge struct {
	loggingBroker
	far    *farBroker
	v5     bool
	live   bool
	deaf   bool // what comes behind CONNACK is lost
	before func(*storage.Queue)

	queue *storage.Queue
	b     *bridge.Bridge
	dead  *atomic.Bool // it says nothing more
	stop  context.CancelFunc
	ended chan struct{}
}

func newNearBridge(far *farBroker) *nearBridge {
	return &nearBridge{loggingBroker: loggingBroker{t: far.t, topics: "down/"}, far: far}
}

func (n *nearBridge) start(moves int64, after func(cut func())) {
	n.open()
	var err error
	if n.queue, err = n.store.Queue("bridge/b", storage.QueueOptions{Ledger: true}); err != nil {
		n.t.Fatal(err)
	}
	if n.before != nil {
		n.before(n.queue)
	}
	n.dead = new(atomic.Bool)
	connect := bridge.MQTT3Connect
	if n.v5 {
		connect = bridge.MQTT5Connect
	}
	routes := []bridge.Route{{Filter: "t/#", QoS: 2}}
	if !n.deaf { // it would not hear SUBACK
		routes = append(routes, bridge.Route{Direction: bridge.In, Filter: "down/#", QoS: 2})
	}
	n.b, err = bridge.New(bridge.Options{
		Name: "b", Queue: n.queue, FarSession: "far", LiveFirst: n.live, Window: 50,
		Local:      bridgeLocal{&local{broker: n.server}, "bridge/b"},
		Routes:     routes,
		BackoffMin: time.Millisecond, BackoffMax: 2 * time.Millisecond, MaxAttempts: 1 << 20,
		Upstreams: []bridge.UpstreamOption{{Name: "far", Connect: connect(bridge.ClientOptions{
			URL: "tcp://far", ClientID: "near", Exactly: true, Dial: n.dialer(moves, after)})}},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.run()
}

func (n *nearBridge) run() {
	var ctx context.Context
	ctx, n.stop = context.WithCancel(n.t.Context())
	n.ended = make(chan struct{})
	go func() {
		defer close(n.ended)
		_ = n.b.Run(ctx)
	}()
}

func (n *nearBridge) end(kill bool) {
	if kill {
		n.dead.Store(true)
		n.store.Crash()
	}
	n.stop()
	<-n.ended
	_ = n.server.Shutdown(context.Background())
	if !kill {
		_ = n.store.Close()
	}
}

func (n *nearBridge) dialer(moves int64, after func(cut func())) bridge.Dialer {
	dial := n.far.dial(n.dead, moves, after)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if n.deaf && err == nil {
			c = &deafConn{Conn: c}
		}
		return c, err
	}
}

type deafConn struct {
	net.Conn
	heard bool
}

func (c *deafConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.heard {
			c.heard = true
			return n, err
		}
	}
}

// publish puts one message into the queue, and waits until it is there.
func (n *nearBridge) publish(lane holdfast.Lane, qos byte, payload string) {
	n.t.Helper()
	done := make(chan error, 1)
	m := &holdfast.Message{Topic: "t/" + lane.String(), QoS: qos, Payload: []byte(payload)}
	if err := n.store.Publish(&holdfast.Publication{Msg: m}, []storage.Append{{Queue: n.queue, Lane: lane, Route: "out t/#", Msg: m}},
		func(err error) { done <- err }); err != nil {
		n.t.Fatal(err)
	}
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
}

// command publishes one message at the far broker, and waits until it is there.
func (f *farBroker) command(payload string) {
	f.t.Helper()
	done := make(chan error, 1)
	f.server.Publish(&holdfast.Message{Topic: "down/x", QoS: 2, Payload: []byte(payload)}, func(err error) { done <- err })
	if err := <-done; err != nil {
		f.t.Fatal(err)
	}
}

// The link is cut, and either end is killed, after every so many movements of the
// wire: whatever of QoS 2 is published at either end arrives at the other once, and
// in order.
func TestAcrossTheBridgeQoS2IsExactlyOnce(t *testing.T) {
	for _, tc := range []struct {
		name     string
		v5, live bool
	}{{"3.1.1", false, false}, {"5", true, false}, {"live-first", true, true}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			exactlyOnce(t, tc.v5, tc.live)
		})
	}
}

func exactlyOnce(t *testing.T, v5, live bool) {
	disturbances := 60
	if s := os.Getenv("HOLDFAST_EXACTLY"); s != "" {
		var err error
		if disturbances, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	far := newFarBroker(t)
	near := newNearBridge(far)
	near.v5, near.live = v5, live
	far.start()
	near.start(1<<40, func(func()) {})
	waitFor(t, func() bool { return near.b.Status().State == bridge.Connected }) // so there is a subscription
	near.end(false)
	sent, commands := map[string]int{}, 0
	var kills, farKills, cuts int
	for n := range disturbances + 1 {
		last := n == disturbances
		hit := make(chan func(), 1)
		moves := int64(1 + r.IntN(120))
		if last {
			moves = 1 << 40
		}
		near.start(moves, func(cut func()) {
			select {
			case hit <- cut:
			default: // a later connection of this round
			}
		})
		for range r.IntN(6) {
			lane := holdfast.Lane(r.IntN(holdfast.LaneCount))
			qos := byte(2)
			key := lane.String()
			if r.IntN(5) == 0 { // in between, with other rules
				qos, key = 1, "one"
			}
			near.publish(lane, qos, fmt.Sprintf("%s %d", key, sent[key]))
			sent[key]++
		}
		for range r.IntN(6) {
			far.command(fmt.Sprintf("command %d", commands))
			commands++
		}
		for over := false; !over; {
			select {
			case cut := <-hit:
				switch r.IntN(4) {
				case 0:
					far.stop(true)
					far.start()
					farKills++
				case 1:
					cut()
					cuts++
				default: // near is killed below
				}
				over = true
			case <-time.After(time.Millisecond):
				over = near.queue.Len() == 0 && near.log.Len() >= commands // nothing more will move
			}
		}
		if kill := !last && r.IntN(10) > 0; kill {
			near.end(true)
			kills++
		} else {
			near.end(false)
		}
	}
	far.stop(false)
	t.Logf("%d messages of QoS 2 up and %d down; killed %d times here and %d times there, %d cuts", sent["normal"]+sent["high"]+sent["low"], commands, kills, farKills, cuts)
	got := arrived(t, &far.memory)
	got["command"], sent["command"] = arrived(t, &near.memory)["command"], commands
	for key, n := range sent {
		if key == "one" {
			continue
		}
		if live && key != "command" {
			slices.Sort(got[key])
		}
		if len(got[key]) != n {
			t.Errorf("%d of %d in lane %s have arrived", len(got[key]), n, key)
		}
		for i, have := range got[key] {
			if have != i {
				t.Errorf("lane %s: %d came in place %d", key, have, i)
				break
			}
		}
	}
	if len(got["one"]) < sent["one"] {
		t.Errorf("%d of %d with QoS 1 have arrived", len(got["one"]), sent["one"])
	}
}

// The far broker has messages whose answers were lost, and nobody here knows of
// them any more: a new message must not be taken for the repetition of one.
func TestANewMessageIsNotTakenForOneThatIsGone(t *testing.T) {
	purge := func(q *storage.Queue) {
		if _, err := q.Purge(t.Context(), time.Time{}); err != nil {
			t.Error(err)
		}
	}
	for name, forget := range map[string]func(*storage.Queue){
		"purged": purge,
		"purged, and the identifiers are lost": func(q *storage.Queue) {
			var c holdfast.FarSessionChange
			for _, b := range q.FarSession().Bound {
				c.Free = append(c.Free, b.PacketID)
			}
			q.ChangeFarSession(&c, func(error) {})
			purge(q)
		},
	} {
		t.Run(name, func(t *testing.T) {
			far := newFarBroker(t)
			near := newNearBridge(far)
			near.deaf = true
			far.start()
			near.start(1<<40, func(func()) {})
			const n = 20
			for i := range n {
				near.publish(holdfast.Normal, 2, fmt.Sprint("old ", i))
			}
			waitFor(t, func() bool { return far.taken.Load() == n })
			near.end(true)
			near.deaf, near.before = false, forget
			near.start(1<<40, func(func()) {})
			for i := range n {
				near.publish(holdfast.Normal, 2, fmt.Sprint("new ", i))
			}
			waitFor(t, func() bool { return near.queue.Len() == 0 })
			near.end(false)
			far.stop(false)
			got := arrived(t, &far.memory)
			if len(got["new"]) != n || len(got["old"]) != n {
				t.Errorf("%d new and %d old have arrived, of %d each", len(got["new"]), len(got["old"]), n)
			}
		})
	}
}

func waitFor(t *testing.T, met func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come about")
		}
	}
}

// arrived are the numbers of the messages in the log of a broker, by kind.
func arrived(t *testing.T, memory *storage.Memory) map[string][]int {
	t.Helper()
	s, err := storage.OpenMemory(storage.Options{Memory: memory})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	q, err := s.Queue("log", storage.QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]int{}
	if _, err = q.Peek(t.Context(), holdfast.AllLanes, func(m storage.Seen) bool {
		var key string
		var n int
		if _, err := fmt.Sscan(string(m.Msg.Payload), &key, &n); err != nil {
			t.Error(errors.Join(errors.New(string(m.Msg.Payload)), err))
		}
		got[key] = append(got[key], n)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return got
}
