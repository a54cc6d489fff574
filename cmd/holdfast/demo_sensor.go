package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"holdfast"
	"holdfast/cmd/holdfast/client"
	"holdfast/edge/packet"
)

// sensorPeriod is how often a sensor of the demo publishes.
const sensorPeriod = 150 * time.Millisecond

// sensor is a device of the demo: a minimal MQTT client that does what simple
// devices do. With QoS 1 it sends one message until it is acknowledged.
type sensor struct {
	name         string
	acknowledges bool
	address      string

	sent, acked atomic.Uint64
	quit        chan struct{}
	ended       sync.WaitGroup
	once        sync.Once
}

// reading is a sensor's payload.
type reading struct {
	Sensor string `json:"sensor"`
	Seq    uint64 `json:"seq"`
}

func startSensor(address, name string, acknowledges bool) *sensor {
	s := &sensor{name: name, acknowledges: acknowledges, address: address, quit: make(chan struct{})}
	s.ended.Go(s.run)
	return s
}

func (s *sensor) stop() {
	s.once.Do(func() { close(s.quit) })
	s.ended.Wait()
}

func (s *sensor) run() {
	tick := time.NewTicker(sensorPeriod)
	defer tick.Stop()
	var c *client.Client
	seq, pending := uint64(0), false
	for {
		select {
		case <-s.quit:
			if c != nil {
				c.Conn.Close()
			}
			return
		case <-tick.C:
		}
		if c == nil {
			var err error
			if c, err = dial(s.address, "sensor-"+s.name); err != nil {
				continue // the gateway is away; the next tick tries again
			}
		}
		if !pending {
			seq++
		}
		if err := s.publish(c, seq, pending); err != nil {
			c.Conn.Close()
			c, pending = nil, s.acknowledges
			continue
		}
		pending = false
	}
}

// publish sends one reading and, with QoS 1, waits for its acknowledgement.
func (s *sensor) publish(c *client.Client, seq uint64, again bool) error {
	payload, err := json.Marshal(reading{s.name, seq})
	if err != nil {
		return err
	}
	p := packet.Publish{Topic: []byte("sensors/" + s.name), Payload: payload, Dup: again}
	if s.acknowledges {
		p.QoS, p.PacketID = 1, uint16(seq)
	}
	if err := c.Send(p.Append(nil, packet.V311)); err != nil {
		return err
	}
	if !again {
		s.sent.Add(1)
	}
	if !s.acknowledges {
		return nil
	}
	h, body, err := c.Next()
	if err != nil {
		return err
	}
	var a packet.Ack
	if err := a.Decode(body, packet.V311); h.Type != packet.PUBACK || err != nil || a.PacketID != p.PacketID {
		return errors.New("not the acknowledgement")
	}
	s.acked.Add(1)
	return nil
}

// watcher stands for the cloud's application: it counts what arrives.
type watcher struct {
	c     *client.Client
	ended sync.WaitGroup

	mu   sync.Mutex
	seen map[reading]int // guarded by mu
	dups int             // guarded by mu
}

func startWatcher(address, filter string) (*watcher, error) {
	c, err := dial(address, "cloud-application")
	if err != nil {
		return nil, err
	}
	if err := c.Subscribe(holdfast.Subscription{Filter: filter, QoS: 1}); err != nil {
		return nil, fmt.Errorf("subscribe in the cloud: %w", err)
	}
	w := &watcher{c: c, seen: make(map[reading]int)}
	w.ended.Go(w.run)
	return w, nil
}

func (w *watcher) run() {
	for {
		p, err := w.c.NextPublish()
		if err != nil {
			return
		}
		var r reading
		if json.Unmarshal(p.Payload, &r) != nil {
			continue
		}
		w.mu.Lock()
		if w.seen[r]++; w.seen[r] > 1 {
			w.dups++
		}
		w.mu.Unlock()
	}
}

func (w *watcher) stop() {
	w.c.Conn.Close()
	w.ended.Wait()
}

func (w *watcher) distinct() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.seen)
}

func (w *watcher) duplicates() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dups
}

func (w *watcher) has(sensor string, seq uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[reading{sensor, seq}] > 0
}

// dial connects to a broker of the demo.
func dial(address, clientID string) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return client.Dial(ctx, address, packet.Connect{ClientID: clientID, CleanStart: true})
}
