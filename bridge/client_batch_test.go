package bridge

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// plainWire is a network connection that gives what in has, and keeps what is written,
// if written is made.
type plainWire struct {
	net.Conn // nil
	in       chan []byte
	closed   chan struct{}
	once     sync.Once

	mu      sync.Mutex
	written [][]byte
}

func newPlainWire() *plainWire {
	return &plainWire{in: make(chan []byte, 1), closed: make(chan struct{})}
}

func (w *plainWire) Read(p []byte) (int, error) {
	select {
	case b := <-w.in:
		return copy(p, b), nil
	case <-w.closed:
		return 0, net.ErrClosed
	}
}

func (w *plainWire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.written != nil {
		w.written = append(w.written, slices.Clone(p))
	}
	return len(p), nil
}

func (w *plainWire) Close() error                     { w.once.Do(func() { close(w.closed) }); return nil }
func (w *plainWire) SetReadDeadline(time.Time) error  { return w.Close() } // only Close of a link does that
func (w *plainWire) SetWriteDeadline(time.Time) error { return nil }

func flightOf(n uint64) *flight {
	m := &holdfast.Message{Topic: "plant/7/temperature", QoS: 1, Payload: []byte("21.5")}
	return &flight{item: holdfast.Item{ID: holdfast.NewItemID(holdfast.Normal, n), Msg: m}}
}

// pubacks are those of the packet identifiers 1 to n.
func pubacks(n int) (b []byte) {
	for id := range n {
		a := packet.Ack{PacketID: uint16(id + 1)}
		b = a.Append(b, packet.PUBACK, packet.V311)
	}
	return b
}

func TestManyPublishesGoInOneWriteAndTheirAnswersAreToldTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newPlainWire()
		w.written = [][]byte{}
		u := newClient(newLink(w, 1000), packet.V311, ignore, nil)
		told := make(chan []answer, 20)
		u.Answers(func(list []answer) { told <- slices.Clone(list) })
		u.start(packet.Connack{}, 0)
		synctest.Wait()
		for n := range uint64(10) {
			if err := u.PublishMore(flightOf(n)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := len(w.written); n > 0 {
			t.Fatalf("%d writes before Flush", n)
		}
		u.Flush()
		synctest.Wait()
		if len(w.written) != 1 || len(w.written[0]) != 10*29 {
			t.Fatalf("%d writes, the first of %d bytes; want 1 of 10 packets of 29 bytes", len(w.written), len(w.written[0]))
		}
		w.in <- pubacks(10)
		list := <-told
		if len(list) != 10 {
			t.Errorf("%d answers were told at once, want 10", len(list))
		}
		for n, a := range list {
			if a.err != nil || a.f.item.ID.Position() != uint64(n) {
				t.Errorf("answer %d is for %d: %v", n, a.f.item.ID.Position(), a.err)
			}
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What waits for Flush goes with whatever else is sent, and before DISCONNECT.
func TestWhatWaitsForOthersIsNotForgotten(t *testing.T) {
	for _, c := range []struct {
		name string
		then func(u *client)
	}{
		{"a publish", func(u *client) { u.Publish(flightOf(2).item.Msg, false, func(error) {}) }},
		{"an acknowledgement", func(u *client) { u.acknowledge(packet.PUBACK, 7) }},
		{"the end", func(u *client) { _ = u.Close() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newPlainWire()
				w.written = [][]byte{}
				u := newClient(newLink(w, 1000), packet.V311, ignore, nil)
				u.Answers(func([]answer) {})
				u.start(packet.Connack{}, 0)
				synctest.Wait()
				if err := u.PublishMore(flightOf(1)); err != nil {
					t.Fatal(err)
				}
				c.then(u)
				synctest.Wait()
				if all := slices.Concat(w.written...); len(all) <= 29 || all[0]>>4 != byte(packet.PUBLISH) {
					t.Errorf("written: %d bytes", len(all))
				}
				_ = u.Close()
			})
		})
	}
}

func TestAPublishAndItsAnswerAllocateNothing(t *testing.T) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			w := newPlainWire()
			u := newClient(newLink(w, 1000), v, ignore, nil)
			u.window, u.maxQoS = 100, 2
			if v == packet.V5 {
				u.aliases = newAliases(10)
			}
			answers := 0
			u.Answers(func(list []answer) { answers += len(list) })
			f := flightOf(1)
			body := make([]byte, 2)
			once := func() {
				if err := u.PublishMore(f); err != nil {
					t.Fatal(err)
				}
				u.Flush()
				body[0], body[1] = byte(u.id>>8), byte(u.id)
				if err := u.handle(packet.Header{Type: packet.PUBACK, Remaining: 2}, body); err != nil {
					t.Fatal(err)
				}
				u.tellAnswers()
			}
			for range 1000 { // until the buffers have their size
				once()
			}
			if n := testing.AllocsPerRun(1000, once); n > 0 {
				t.Errorf("%v allocations", n)
			}
			if answers != 2001 {
				t.Errorf("%d answers", answers)
			}
			u.link.end(errLinkClosed)
			<-u.link.flushed
		})
	}
}
