package storage

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast"
)

// rate is how many messages per second are made safe while inFlight publishers
// each wait for their done.
func rate(b *testing.B, s *Store, q *Queue, inFlight int, d time.Duration) float64 {
	b.Helper()
	var n atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range inFlight {
		wg.Go(func() {
			done := make(chan error, 1)
			answer := func(err error) { done <- err }
			payload := make([]byte, 200)
			for time.Since(start) < d {
				m := &holdfast.Message{Topic: "plant/7/temperature", QoS: 1, Payload: payload}
				if err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Route: "r", Msg: m}}, answer); err != nil {
					b.Error(err)
					return
				}
				if err := <-done; err != nil {
					b.Error(err)
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(start).Seconds()
}

// BenchmarkGroupCommit gives the rate with 100 publishers as a multiple of that
// with one, on this disk and on one whose sync takes 2 ms longer. It counts
// ratios, not b.N.
func BenchmarkGroupCommit(b *testing.B) {
	for _, c := range []struct {
		name  string
		delay time.Duration
	}{{"disk", 0}, {"disk+2ms", 2 * time.Millisecond}} {
		b.Run(c.name, func(b *testing.B) {
			s := openTest(b, Options{Dir: b.TempDir(), BeforeSync: func() error {
				if c.delay > 0 {
					time.Sleep(c.delay)
				}
				return nil
			}})
			q, err := s.Queue("bridge/a", QueueOptions{Ledger: true})
			if err != nil {
				b.Fatal(err)
			}
			rate(b, s, q, 10, 100*time.Millisecond)
			one := rate(b, s, q, 1, 700*time.Millisecond)
			before := s.Stats()
			many := rate(b, s, q, 100, 700*time.Millisecond)
			after := s.Stats()
			b.ReportMetric(one, "one/s")
			b.ReportMetric(many, "hundred/s")
			b.ReportMetric(many/one, "ratio")
			b.ReportMetric(float64(after.Messages-before.Messages)/float64(after.Commits-before.Commits), "msg/commit")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkPublish is what the callers pay: everything but the disk.
func BenchmarkPublish(b *testing.B) {
	s, err := OpenMemory(Options{MaxPending: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})
	m := &holdfast.Message{Topic: "plant/7/temperature", QoS: 1, Payload: make([]byte, 200)}
	p := &holdfast.Publication{Msg: m}
	var wg sync.WaitGroup
	done := func(error) { wg.Done() }
	appends := []Append{{Queue: q, Route: "r", Msg: m}}
	b.ReportAllocs()
	b.SetBytes(int64(m.Size()))
	for b.Loop() {
		wg.Add(1)
		if err := s.Publish(p, appends, done); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
}

// BenchmarkDrain reads a backlog from disk that is far larger than the tail.
func BenchmarkDrain(b *testing.B) {
	dir := b.TempDir()
	s := openTest(b, Options{Dir: dir})
	q, _ := s.Queue("bridge/a", QueueOptions{})
	const n = 50000
	m := &holdfast.Message{Topic: "plant/7/temperature", QoS: 1, Payload: make([]byte, 200)}
	done := make(chan error, n)
	for i := range n {
		if err := s.Publish(&holdfast.Publication{Msg: m}, []Append{{Queue: q, Msg: m}}, func(err error) { done <- err }); err != nil {
			b.Fatal(err)
		}
		if i%100 == 99 {
			for range 100 {
				<-done
			}
		}
	}
	s.Close()
	start := time.Now()
	s = openTest(b, Options{Dir: dir})
	opened := time.Since(start)
	q, _ = s.Queue("bridge/a", QueueOptions{})
	start = time.Now()
	for range n {
		it, ok, err := q.TryNext()
		if !ok || err != nil {
			b.Fatal(ok, err)
		}
		q.Ack(it.ID)
	}
	b.ReportMetric(n/time.Since(start).Seconds(), "msg/s")
	b.ReportMetric(float64(opened.Microseconds())/1000, "open-ms")
	b.ReportMetric(0, "ns/op")
}
