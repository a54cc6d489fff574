package storage

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// offerer publishes and notes when which done came.
type offerer struct {
	t *testing.T
	s *Store
	q *Queue
}

type outcome struct {
	err error
	at  time.Time
}

func (o *offerer) offer(qos byte, text string, change func(p *holdfast.Publication)) (chan outcome, error) {
	m := &holdfast.Message{Topic: "t", QoS: qos, Payload: []byte(text)}
	p := &holdfast.Publication{Msg: m}
	if change != nil {
		change(p)
	}
	done := make(chan outcome, 2) // a second one would be seen
	return done, o.s.Publish(p, []Append{{Queue: o.q, Route: "r", Msg: m}}, func(err error) { done <- outcome{err, time.Now()} })
}

func (o *offerer) publish(qos byte, text string) chan outcome {
	o.t.Helper()
	done, err := o.offer(qos, text, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	return done
}

func (o *offerer) take(want string) holdfast.Item {
	o.t.Helper()
	it, ok, err := o.q.TryNext()
	if !ok || err != nil || string(it.Msg.Payload) != want {
		o.t.Fatalf("%v %v %+v, want %q", ok, err, it, want)
	}
	return it
}

// none: done has not come, whatever there was to do.
func (o *offerer) none(done chan outcome) {
	o.t.Helper()
	synctest.Wait()
	select {
	case x := <-done:
		o.t.Fatalf("done(%v) came", x.err)
	default:
	}
}

func (o *offerer) balanced(queued int) holdfast.Counts {
	o.t.Helper()
	c := o.q.Ledger()["r"]
	if !c.Balanced() || int(c.Queued) != queued || o.q.Len() != queued {
		o.t.Fatalf("%+v, length %d, want %d", c, o.q.Len(), queued)
	}
	return c
}

func TestAVolatileStorePromisesOnlyWhatWasAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := OpenMemory(Options{Volatile: true, TailBytes: 200, MaxPending: 20000})
		if err != nil {
			t.Fatal(err)
		}
		q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
		o := &offerer{t, s, q}
		var done []chan outcome
		for i := range 10 { // more than the tail keeps in memory
			done = append(done, o.publish(1, fmt.Sprint(i)))
		}
		if x := <-o.publish(0, "zero"); x.err != nil {
			t.Fatal(x.err)
		}
		for i := range 5 {
			o.none(done[i])
			q.Ack(o.take(fmt.Sprint(i)).ID)
			if x := <-done[i]; x.err != nil {
				t.Fatal(x.err)
			}
		}
		out, released := o.take("5"), o.take("6")
		begun := time.Now()
		time.Sleep(19 * time.Second)
		for _, done := range done[5:] {
			o.none(done)
		}
		for _, done := range done[5:] {
			if x := <-done; !errors.Is(x.err, errUnsafe) || x.at.Sub(begun) != 20*time.Second {
				t.Fatalf("%v after %v", x.err, x.at.Sub(begun))
			}
		}
		// What was out comes to an end with whoever has it, the rest is gone.
		o.balanced(3) // of QoS 0, and the two that are out
		q.Release(released.ID)
		q.Ack(out.ID)
		if c := o.balanced(1); c.Accepted != 7 || c.Delivered != 6 {
			t.Fatalf("%+v", c)
		}
		q.Ack(o.take("zero").ID)

		// What no acknowledgement can make safe is never said to be.
		retained, _ := o.offer(1, "retained", func(p *holdfast.Publication) { p.Msg.Retain = true })
		second, _ := o.offer(2, "twice", func(p *holdfast.Publication) { p.Inbound = &holdfast.Inbound{ClientID: "c", PacketID: 1} })
		quarantined := o.publish(1, "refused")
		q.Ack(o.take("retained").ID)
		o.none(retained)
		synctest.Wait()
		q.Ack(o.take("twice").ID)
		q.Quarantine(o.take("refused").ID, "refused")
		for _, done := range []chan outcome{retained, second, quarantined} {
			if x := <-done; !errors.Is(x.err, errUnsafe) {
				t.Fatal(x.err)
			}
		}
		o.balanced(0)

		// There is a bound, which leaves QoS 0 its room.
		big := string(make([]byte, 4000))
		waiting := []chan outcome{o.publish(1, big), o.publish(1, big)}
		if _, err := o.offer(1, big, nil); !errors.Is(err, holdfast.ErrFull) {
			t.Fatal(err)
		}
		if x := <-o.publish(0, big); x.err != nil {
			t.Fatal(x.err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for _, done := range waiting {
			if x := <-done; !errors.Is(x.err, errUnsafe) {
				t.Fatal(x.err)
			}
		}
		synctest.Wait()
		for _, done := range append(append(done, waiting...), retained, second) {
			if len(done) > 0 {
				t.Fatal("a done came twice")
			}
		}
	})
}

func TestWhileCommitsFailWhatIsAcknowledgedIsPromised(t *testing.T) {
	for _, mode := range []Sync{Always, Spill} {
		synctest.Test(t, func(t *testing.T) {
			memory := &Memory{}
			var broken atomic.Bool
			s, err := OpenMemory(Options{Memory: memory, Sync: mode, MaxPending: 1 << 20, BeforeSync: func() error {
				if broken.Load() {
					return errStub
				}
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
			o := &offerer{t, s, q}
			if x := <-o.publish(1, "before"); x.err != nil {
				t.Fatal(x.err)
			}
			q.Ack(o.take("before").ID)
			time.Sleep(time.Second)
			synctest.Wait()
			broken.Store(true)
			if x := <-o.publish(1, "fails"); !errors.Is(x.err, errStub) {
				t.Fatal(x.err)
			}
			synctest.Wait()

			zero := o.publish(0, "zero")
			if x := <-zero; x.err != nil {
				t.Fatal(x.err)
			}
			begun := time.Now()
			one, two, three := o.publish(1, "1"), o.publish(1, "2"), o.publish(1, "3")
			if _, err := o.offer(2, "2", nil); !errors.Is(err, errStub) {
				t.Fatal(err)
			}
			if _, err := o.offer(1, "retained", func(p *holdfast.Publication) { p.Msg.Retain = true }); !errors.Is(err, errStub) {
				t.Fatal(err)
			}
			q.Ack(o.take("zero").ID)
			it := o.take("1")
			o.none(one)
			q.Ack(it.ID)
			if x := <-one; x.err != nil || x.at != begun {
				t.Fatalf("%v after %v", x.err, x.at.Sub(begun))
			}
			q.Release(o.take("2").ID) // its reader has gone: there is nowhere to write it
			o.none(two)
			time.Sleep(10 * time.Second)
			four := o.publish(1, "4")
			q.Quarantine(o.take("2").ID, "refused") // on no disk either
			for _, done := range []chan outcome{two, three} {
				if x := <-done; !errors.Is(x.err, errUnsafe) {
					t.Fatal(x.err)
				}
			}
			if since := time.Since(begun); since != 20*time.Second {
				t.Fatalf("given up after %v", since)
			}
			o.none(four)
			o.balanced(1)

			broken.Store(false)
			if x := <-four; x.err != nil {
				t.Fatal(x.err)
			}
			if st := s.Stats(); st.Failed != nil || st.Pending != 0 {
				t.Fatalf("%+v", st)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			o.balanced(1)
			s.Crash()
			s, err = OpenMemory(Options{Memory: memory})
			if err != nil {
				t.Fatal(err)
			}
			o.s = s
			o.q, _ = s.Queue("bridge/a", QueueOptions{Ledger: true})
			c := o.balanced(1)
			if c.Lost > 0 || c.Delivered != 2 || c.Unconfirmed != 1 || c.Quarantined["refused"] != 1 {
				t.Fatalf("%+v", c)
			}
			o.take("4")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A store that never comes back tells everyone at its end.
func TestAStoreThatIsClosedWhileItFailsPromisesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		s, err := OpenMemory(Options{BeforeSync: func() error {
			if broken.Load() {
				return errStub
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
		o := &offerer{t, s, q}
		broken.Store(true)
		if x := <-o.publish(1, "fails"); !errors.Is(x.err, errStub) {
			t.Fatal(x.err)
		}
		waits := o.publish(1, "waits")
		if err := s.Close(); !errors.Is(err, errStub) {
			t.Fatal(err)
		}
		if x := <-waits; !errors.Is(x.err, errUnsafe) {
			t.Fatal(x.err)
		}
	})
}

// clingy is an engine that does not close until it is told to.
type clingy struct {
	engine
	gate chan struct{}
}

func (c clingy) close() error { <-c.gate; return c.engine.close() }

// Badger tries for ever to write what it has in memory. Nobody opens its folder
// anew meanwhile, and nobody waits for it.
func TestACloseThatHangsIsWaitedForByNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, gate := &Memory{}, make(chan struct{})
		var broken atomic.Bool
		var opened atomic.Int32
		start := func() *Store {
			s, err := OpenMemory(Options{
				BeforeSync: func() error {
					if broken.Load() {
						return errStub
					}
					return nil
				},
				engine: func(*repairs) (engine, error) { opened.Add(1); return clingy{memoryEngine{memory}, gate}, nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := start()
		q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
		o := &offerer{t, s, q}
		broken.Store(true)
		if x := <-o.publish(1, "fails"); !errors.Is(x.err, errStub) {
			t.Fatal(x.err)
		}
		broken.Store(false)
		done := o.publish(1, "1")
		q.Ack(o.take("1").ID)
		if x := <-done; x.err != nil {
			t.Fatal(x.err)
		}
		time.Sleep(time.Minute)
		if n := opened.Load(); n != 1 || s.Stats().Failed == nil {
			t.Fatalf("opened %d times, %+v", n, s.Stats())
		}
		close(gate)
		if x := <-o.publish(1, "2"); x.err != nil {
			t.Fatal(x.err)
		}
		if n := opened.Load(); n != 2 || s.Stats().Failed != nil {
			t.Fatalf("opened %d times, %+v", n, s.Stats())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}

		gate = make(chan struct{})
		s = start()
		o.s, o.q = s, nil
		o.q, _ = s.Queue("bridge/a", QueueOptions{Ledger: true})
		broken.Store(true)
		if x := <-o.publish(1, "fails"); !errors.Is(x.err, errStub) {
			t.Fatal(x.err)
		}
		begun := time.Now()
		if err := s.Close(); !errors.Is(err, errClosing) {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 2*closeWait {
			t.Fatalf("closed after %v", took)
		}
		close(gate)
	})
}
