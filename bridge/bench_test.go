package bridge

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"holdfast"
)

// endless is a queue that always has a message and counts acknowledgements.
type endless struct {
	msg  *holdfast.Message
	last uint64
	left atomic.Int64
	done chan struct{}
}

func (e *endless) Next(context.Context, holdfast.Lanes) (holdfast.Item, error) {
	e.last++
	return holdfast.Item{ID: holdfast.NewItemID(holdfast.Normal, e.last), Route: "r", Msg: e.msg}, nil
}

func (e *endless) Poll(holdfast.Lanes) (it holdfast.Item, ok bool, err error) { return it, false, nil }
func (e *endless) Ack(holdfast.ItemID) {
	if e.left.Add(-1) == 0 {
		close(e.done)
	}
}
func (e *endless) Release(...holdfast.ItemID)         {}
func (e *endless) Drop(holdfast.ItemID, string)       {}
func (e *endless) Quarantine(holdfast.ItemID, string) {}

// BenchmarkForward is the rate of acknowledged publishes of QoS 1 with 100
// bytes to a mosquitto on this machine, with a window of 100: the bridge, and
// beside it paho.mqtt.golang, on its own connection.
func BenchmarkForward(b *testing.B) {
	msg := &holdfast.Message{Topic: "bench/topic", Payload: make([]byte, 100), QoS: 1}
	b.Run("bridge", func(b *testing.B) {
		m := startMosquitto(b)
		q := &endless{msg: msg, done: make(chan struct{})}
		q.left.Store(int64(b.N))
		br, err := New(Options{Name: "b", Queue: q, Routes: []Route{{Filter: "#", QoS: 1}},
			Upstreams: []UpstreamOption{{Name: "u", Connect: MQTT3Connect(ClientOptions{URL: "tcp://" + m.addr, CleanSession: true})}}})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan struct{})
		b.ReportAllocs()
		b.ResetTimer()
		go func() { defer close(ended); _ = br.Run(ctx) }()
		<-q.done
		b.StopTimer()
		cancel()
		<-ended
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
	b.Run("library", func(b *testing.B) {
		m := startMosquitto(b)
		c, _ := m.client("", 0)
		tokens := make(chan mqtt.Token, 100)
		fault := make(chan error, 1)
		b.ReportAllocs()
		b.ResetTimer()
		go func() {
			defer close(fault)
			for range b.N {
				if t := <-tokens; !t.WaitTimeout(patience) || t.Error() != nil {
					fault <- fmt.Errorf("publish: %w", t.Error())
					return
				}
			}
		}()
		for range b.N {
			tokens <- c.Publish(msg.Topic, 1, false, msg.Payload)
		}
		if err := <-fault; err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
}
