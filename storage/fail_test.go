package storage

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast"
)

var errStub = errors.New("stub: the disk says no")

// stub fails the nth call of one method, once.
type stub struct {
	engine
	plan *plan
}

type plan struct {
	mu      sync.Mutex // readers and the committer ask
	method  string
	n       int
	applied bool // a failing commit leaves its rows
	hit     bool
}

func (p *plan) fail(method string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hit || p.method != method {
		return false
	}
	p.n--
	p.hit = p.n < 0
	return p.hit
}

func (s stub) commit(ops []op) error {
	if s.plan.fail("commit") {
		if s.plan.applied {
			_ = s.engine.commit(ops)
		}
		return errStub
	}
	return s.engine.commit(ops)
}

func (s stub) get(key []byte) ([]byte, error) {
	if s.plan.fail("get") {
		return nil, errStub
	}
	return s.engine.get(key)
}

func (s stub) scan(prefix, from []byte, keysOnly bool, yield func(key, value []byte) bool) error {
	if s.plan.fail("scan") {
		return errStub
	}
	return s.engine.scan(prefix, from, keysOnly, yield)
}

func (s stub) last(prefix, upTo []byte) ([]byte, error) {
	if s.plan.fail("last") {
		return nil, errStub
	}
	return s.engine.last(prefix, upTo)
}

func (s stub) drop(prefixes [][]byte) error {
	if s.plan.fail("drop") {
		return errStub
	}
	return s.engine.drop(prefixes)
}

func (s stub) close() error {
	if s.plan.fail("close") {
		return errStub
	}
	return s.engine.close()
}

// story publishes, reads and reopens over a stub; whatever fails, what was
// promised comes once and in order, and what was refused never.
func story(t *testing.T, p *plan) {
	memory := &Memory{}
	open := func() *Store {
		for {
			s, err := OpenMemory(Options{ChunkBytes: 300, TailBytes: 300, AckDelay: time.Millisecond, DropEvery: time.Millisecond, engine: func(*repairs) (engine, error) {
				if p.fail("open") {
					return nil, errStub
				}
				return stub{memoryEngine{memory}, p}, nil
			}})
			if err == nil {
				return s
			}
			if !errors.Is(err, errStub) {
				t.Fatal(err)
			}
		}
	}
	var promised []string
	next := 0
	for life := range 3 {
		s := open()
		q, err := s.Queue("bridge/a", QueueOptions{Ledger: true})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 30 {
			m := &holdfast.Message{Topic: "t", QoS: 1, Payload: fmt.Appendf(nil, "%d.%d", life, i)}
			done := make(chan error, 1)
			err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: fmt.Sprint(i % 2), Msg: m}}, func(err error) { done <- err })
			if err == nil {
				err = <-done
			}
			switch {
			case err == nil:
				promised = append(promised, string(m.Payload))
			case !errors.Is(err, errStub):
				t.Fatal(err)
			default:
				eventually(t, func() bool { return s.Stats().Failed == nil })
			}
			if i%3 != 0 {
				continue
			}
			next = take(t, q, promised, next, 1)
		}
		if life == 1 {
			next = take(t, q, promised, next, len(promised)-next)
			if q.Len() != 0 {
				t.Fatalf("length %d", q.Len())
			}
		}
		for route, c := range q.Ledger() {
			if !c.Balanced() {
				t.Fatalf("route %s: %+v", route, c)
			}
		}
		if err := s.Close(); err != nil && !errors.Is(err, errStub) {
			t.Fatal(err)
		}
	}
	s := open()
	defer s.Close()
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	if q.Len() != len(promised)-next {
		t.Fatalf("%d left, want %d", q.Len(), len(promised)-next)
	}
	take(t, q, promised, next, len(promised)-next)
	var accepted uint64
	for _, c := range q.Ledger() {
		accepted += c.Accepted
		if !c.Balanced() || c.Queued != 0 || c.Lost != 0 {
			t.Fatalf("%+v", c)
		}
	}
	if accepted != uint64(len(promised)) {
		t.Fatalf("accepted %d, promised %d", accepted, len(promised))
	}
}

func take(t *testing.T, q *Queue, promised []string, next, n int) int {
	t.Helper()
	for range min(n, len(promised)-next) {
		it, ok, err := q.TryNext()
		if errors.Is(err, errStub) {
			it, ok, err = q.TryNext()
		}
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			t.Fatalf("nothing at %d of %d", next, len(promised))
		}
		if string(it.Msg.Payload) != promised[next] {
			t.Fatalf("got %s, want %s", it.Msg.Payload, promised[next])
		}
		q.Ack(it.ID)
		next++
	}
	return next
}

func eventually(t testing.TB, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(60 * time.Second) // no test that passes waits it out
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it never came")
		}
	}
}

func TestEveryFailureOfTheEngineIsSurvived(t *testing.T) {
	for _, method := range []string{"commit", "get", "scan", "last", "drop", "open", "close"} {
		for _, applied := range []bool{false, true} {
			if applied && method != "commit" {
				continue
			}
			for n := range 60 {
				p := &plan{method: method, n: n, applied: applied}
				t.Run(fmt.Sprintf("%s %d applied %v", method, n, applied), func(t *testing.T) { story(t, p) })
				if !p.hit {
					break
				}
			}
		}
	}
}

// A sync that fails before Badger is reached: everyone who waits is told, and
// the store comes back by itself.
func TestBadgerComesBackAfterAFailedSync(t *testing.T) {
	var fail atomic.Bool
	s := openTest(t, Options{Dir: t.TempDir(), BeforeSync: func() error {
		if fail.CompareAndSwap(true, false) {
			return errStub
		}
		return nil
	}})
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	fill(t, s, q, 0, 10)
	fail.Store(true)
	m := &holdfast.Message{Topic: "t", QoS: 1, Payload: []byte("x")}
	done := make(chan error, 1)
	if err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r", Msg: m}}, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, errStub) {
		t.Fatal(err)
	}
	eventually(t, func() bool { return s.Stats().Failed == nil })
	fill(t, s, q, 10, 20)
	if got := drain(t, q); len(got) != 20 || got[10] != "000010" {
		t.Fatal(got)
	}
	if st := s.Stats(); st.Failures != 1 || st.Reopened != 1 {
		t.Fatalf("%+v", st)
	}
}

// An early item that was handed out before its commit failed is the caller's:
// it may be acknowledged, and is never handed out again.
func TestAnEarlyItemOfAFailedCommit(t *testing.T) {
	gate := make(chan error)
	s, err := OpenMemory(Options{BeforeSync: func() error { return <-gate }})
	if err != nil {
		t.Fatal(err)
	}
	q, _ := s.SessionQueue("c")
	done := make(chan error, 3)
	for i := range 3 {
		m := &holdfast.Message{Topic: "t", QoS: 1, Payload: []byte{byte(i)}}
		if err := s.Publish(&holdfast.Publication{Msg: m, Sessions: []holdfast.Delivery{{ClientID: "c", QoS: 1}}}, nil, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
	}
	a, _, _ := q.TryNext()
	b, _, _ := q.TryNext()
	gate <- errStub
	for range 3 {
		if err := <-done; !errors.Is(err, errStub) {
			t.Fatal(err)
		}
	}
	// The committer is held while it comes back: nothing durable is taken, what
	// needs no disk is.
	m := &holdfast.Message{Topic: "t"}
	if err := s.Publish(&holdfast.Publication{Msg: m}, nil, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(&holdfast.Publication{Msg: m, WillOf: "x"}, nil, nil); !errors.Is(err, errStub) {
		t.Fatal(err)
	}
	close(gate)
	eventually(t, func() bool { return s.Stats().Failed == nil })
	q.Release(b.ID)
	q.Ack(a.ID)
	if it, ok, err := q.TryNext(); ok || err != nil {
		t.Fatalf("%+v %v", it, err)
	}
	if q.Len() != 0 || q.Bytes() != 0 || s.Stats().Unknown != 0 {
		t.Fatalf("length %d, bytes %d", q.Len(), q.Bytes())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
