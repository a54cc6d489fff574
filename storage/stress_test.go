package storage

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast"
)

// Everything at once, with commits that fail now and then: every done is called
// once, nobody waits for ever, and every promised message comes in order.
func TestManyAtOnceWithFailures(t *testing.T) {
	var n atomic.Int64
	s := openTest(t, Options{Dir: t.TempDir(), ChunkBytes: 50 << 10, TailBytes: 20 << 10, AckDelay: time.Millisecond, DropEvery: 5 * time.Millisecond,
		MaxPending: 64 << 10, Session: QueueOptions{MaxMessages: 200},
		BeforeSync: func() error {
			if n.Add(1)%40 == 0 {
				return errStub
			}
			return nil
		}})
	q, _ := s.Queue("bridge/a", QueueOptions{Ledger: true})

	var wg, readers sync.WaitGroup
	ctx := t.Context()
	var mu sync.Mutex
	promised, got := map[string]bool{}, map[string]bool{}
	last := map[int]int{}
	total := 0
	readers.Go(func() {
		for {
			it, err := q.Next(ctx, holdfast.AllLanes)
			if err != nil {
				if !errors.Is(err, holdfast.ErrClosed) {
					t.Error(err)
				}
				return
			}
			if !it.Again && rand.IntN(10) == 0 {
				q.Release(it.ID)
				continue
			}
			var p, i int
			fmt.Sscanf(string(it.Msg.Payload), "%d.%d", &p, &i)
			mu.Lock()
			if before, ok := last[p]; ok && before >= i {
				t.Errorf("publisher %d: %d behind %d", p, i, before)
			}
			last[p] = i
			got[string(it.Msg.Payload)] = true
			mu.Unlock()
			q.Ack(it.ID)
		}
	})
	for p := range 8 {
		wg.Go(func() {
			client := fmt.Sprint("c", p)
			for i := range 300 {
				done := make(chan error, 2)
				m := &holdfast.Message{Topic: client, QoS: byte(i % 3), Retain: i%7 == 0, Payload: fmt.Appendf(nil, "%d.%d", p, i)}
				err := s.Publish(&holdfast.Publication{Msg: m, Sessions: []holdfast.Delivery{{ClientID: fmt.Sprint("c", (p+1)%8), QoS: m.QoS}}},
					[]Append{{Queue: q, Route: client, Msg: m}}, func(err error) { done <- err })
				if err == nil {
					err = <-done
				}
				mu.Lock()
				if err == nil {
					promised[string(m.Payload)] = true
					total++
				}
				mu.Unlock()
				if err != nil && !errors.Is(err, errStub) && !errors.Is(err, holdfast.ErrFull) {
					t.Error(err)
				}
				for s.Stats().Failed != nil {
					runtime.Gosched()
				}
				switch i % 50 {
				case 10:
					s.Change(&holdfast.SessionChange{ClientID: client, Reset: true, Save: &holdfast.SessionState{Expiry: 1}}, func(err error) { done <- err })
					<-done
				case 20:
					s.SetWill(client, &holdfast.Will{Msg: m}, func(err error) { done <- err })
					<-done
				case 30:
					_ = s.Queues()
				}
				if out, err := s.SessionQueue(client); err != nil {
					t.Error(err)
				} else if it, ok, err := out.TryNext(); err != nil && !errors.Is(err, holdfast.ErrClosed) {
					t.Error(err)
				} else if ok && i%5 != 0 {
					out.Ack(it.ID)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, func() bool { return q.Len() == 0 && s.Stats().Failed == nil })
	var accepted uint64
	for route, c := range q.Ledger() {
		if !c.Balanced() || c.Lost != 0 {
			t.Errorf("%s: %+v", route, c)
		}
		accepted += c.Accepted
	}
	st := s.Stats()
	if err := s.Close(); err != nil && !errors.Is(err, errStub) {
		t.Fatal(err)
	}
	readers.Wait()
	for payload := range promised {
		if !got[payload] {
			t.Errorf("%s never came", payload)
		}
	}
	if len(got) != total || accepted != uint64(total) {
		t.Errorf("%d came and %d are accepted, of %d promised", len(got), accepted, total)
	}
	t.Logf("%+v", st)
}
