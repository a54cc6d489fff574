package modem_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast"
	"holdfast/modem"
	"holdfast/modem/sim"
)

// countedDialects carry any byte.
var countedDialects = []string{sim.DialectQMT, sim.DialectCMQTT}

// anyBytes has every byte, and what a careless reader takes for something else.
func anyBytes() []byte {
	b := []byte("\r\nOK\r\n> \r\n+QMTSTAT: 0,1\r\n\r\n+CMQTTRXEND: 0\r\nRDY\r\n\",\"\x1a\x1b")
	for c := range 256 {
		b = append(b, byte(c))
	}
	return b
}

func TestSimCountedDialectsCarryEveryByte(t *testing.T) {
	for _, dialect := range countedDialects {
		t.Run(dialect, func(t *testing.T) {
			s := build(t, sim.Options{Dialect: dialect}, modem.Options{Mode: "mqtt", Timing: patiently()})
			down := make(chan *holdfast.Message, 10)
			c := s.connect(func(msg *holdfast.Message, again bool, ack func()) { down <- msg })
			defer c.Close()
			if d := s.modem.Status().Dialect; d != dialect {
				t.Errorf("the dialect is %s", d)
			}
			large := bytes.Repeat([]byte("\xff\x00\r\n"), 500)
			for qos := range byte(3) {
				for _, payload := range [][]byte{anyBytes(), large, []byte(fmt.Sprint(qos))} {
					payload = append(payload, qos)
					end := make(chan error, 1)
					c.Publish(&holdfast.Message{Topic: "up/x", Payload: payload, QoS: qos, Retain: true}, false, func(err error) { end <- err })
					if err := <-end; err != nil {
						t.Fatalf("QoS %d, %d bytes: %v", qos, len(payload), err)
					}
					until(t, "the broker has it", func() bool { return s.broker.received(string(payload)) == 1 })
				}
			}
			if err := c.Subscribe(t.Context(), "cmd/#", 1); err != nil {
				t.Fatal(err)
			}
			for _, payload := range [][]byte{anyBytes(), large, []byte("x"), nil, []byte("last")} {
				s.broker.send("cmd/1", string(payload))
				select {
				case msg := <-down:
					if msg.Topic != "cmd/1" || !bytes.Equal(msg.Payload, payload) {
						t.Errorf("got %q on %s, want %q", msg.Payload, msg.Topic, payload)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("%q did not come", payload)
				}
			}
			if m := s.module.Stats().Mistakes; len(m) > 0 {
				t.Errorf("mistakes on the wire: %v", m)
			}
		})
	}
}

func TestSimCountedDialectsExplainARefusal(t *testing.T) {
	for _, dialect := range countedDialects {
		t.Run(dialect, func(t *testing.T) {
			s := build(t, sim.Options{Dialect: dialect}, modem.Options{Mode: "mqtt"})
			s.module.Refuse(5)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := s.modem.Connect(ctx, s.login(), ignore)
			var refused *modem.RefusedError
			if !errors.As(err, &refused) || refused.Code != 5 {
				t.Errorf("got %v", err)
			}
			s.module.Refuse(0)
			s.connect(ignore).Close()
		})
	}
}

func TestSimCountedDialectsComeBack(t *testing.T) {
	for _, dialect := range countedDialects {
		for what, harm := range map[string]func(s *site){
			"reboot": func(s *site) { s.module.Reboot() },
			"cut":    func(s *site) { s.broker.dropAll() },
			"wedge": func(s *site) {
				s.module.SetTraps(sim.Traps{OpenWedge: 1})
				s.broker.dropAll()
				until(s.t, "the module was reset", func() bool {
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					defer cancel()
					if c, err := s.modem.Connect(ctx, s.login(), ignore); err == nil {
						c.Close()
					}
					return s.modem.Status().Counters.Resets > 0
				})
				s.module.SetTraps(sim.Traps{})
			},
		} {
			if what == "wedge" && dialect != sim.DialectQMT { // it takes its time, and the ladder is the same
				continue
			}
			t.Run(dialect+" "+what, func(t *testing.T) {
				s := build(t, sim.Options{Dialect: dialect}, modem.Options{Mode: "mqtt"})
				c := s.connect(ignore)
				if err := publish(c, "before", 1); err != nil {
					t.Error(err)
				}
				harm(s)
				<-c.Done()
				c.Close()
				again := s.connect(ignore)
				if err := publish(again, "after", 1); err != nil {
					t.Error(err)
				}
				again.Close()
			})
		}
	}
}

// One trap at a time: what is acknowledged has arrived, and all arrives in the end.
func TestSimCountedDialectsLoseNothingInTheTraps(t *testing.T) {
	for _, dialect := range countedDialects {
		for _, trap := range []string{"urc-first", "urc-in-reply", "urc-before-prompt", "urc-after-prompt", "echo-returns",
			"old-pub-name", "resent"} {
			t.Run(dialect+" "+trap, func(t *testing.T) {
				var traps sim.Traps
				if err := traps.Set(trap, 0.2); err != nil {
					t.Fatal(err)
				}
				s := build(t, sim.Options{Dialect: dialect, Traps: traps, Seed: 3}, modem.Options{Mode: "mqtt"})
				var c *modem.Session
				for i := range 10 {
					payload := fmt.Sprintf("message %d \r\nOK\r\n", i)
					for {
						if c == nil {
							c = s.connect(ignore)
						}
						err := publish(c, payload, 1)
						if err == nil {
							break
						}
						if errors.Is(err, holdfast.ErrRefused) {
							t.Fatalf("%q: %v", payload, err)
						}
						c.Close()
						c = nil
					}
					if s.broker.received(payload) == 0 {
						t.Errorf("%q was acknowledged and has not arrived", payload)
					}
				}
				c.Close()
			})
		}
	}
}

func TestSimMessagesBeyondTheBoundAreRefused(t *testing.T) {
	s := build(t, sim.Options{Dialect: sim.DialectQMT}, modem.Options{Mode: "mqtt"})
	c := s.connect(ignore)
	defer c.Close()
	if err := publish(c, strings.Repeat("x", 4096), 1); err != nil {
		t.Errorf("the bound of the module: %v", err)
	}
	if err := publish(c, strings.Repeat("x", 4097), 1); !errors.Is(err, holdfast.ErrTooLarge) {
		t.Errorf("beyond it: %v", err)
	}
	if err := publish(c, "", 1); !errors.Is(err, holdfast.ErrRefused) {
		t.Errorf("nothing: %v", err)
	}
	if err := publish(c, "x", 1); err != nil {
		t.Errorf("after that: %v", err)
	}
}
