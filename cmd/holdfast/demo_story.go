package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"holdfast/cmd/holdfast/console"
	"holdfast/cmd/holdfast/gateway"
)

// sensorNames are the demo's sensors; the last two publish with QoS 0.
var sensorNames = []string{"boiler", "pump", "tank", "door", "wind"}

// play is the story, act by act.
func (d *demo) play(ctx context.Context) error {
	d.say("A sensor's message on its way: sensor -> gateway (broker, Badger) -> CAT1 module on a pty -> cloud")
	if _, err := d.gw.Start(ctx); err != nil {
		return err
	}
	var err error
	if d.watch, err = startWatcher(d.cloud.Addresses()[0].String(), "site/demo/sensors/#"); err != nil {
		return err
	}
	d.say("1. The gateway boots, the module registers, five sensors publish (three with QoS 1, two with QoS 0)")
	for i, name := range sensorNames {
		d.sensors = append(d.sensors, startSensor(d.broker, name, i < 3))
	}
	if err := d.until(ctx, 30*time.Second, "the first messages are in the cloud", func(s scene) bool { return s.cloud >= 60 }); err != nil {
		return err
	}
	d.say("2. The radio link goes down: messages pile up on disk, sensors notice nothing")
	d.module.SetLink(false)
	if err := d.until(ctx, 20*time.Second, "a backlog is on disk", func(s scene) bool { return s.queued >= 120 }); err != nil {
		return err
	}
	d.say("3. kill -9: the gateway dies in mid-sentence")
	before := d.scene(ctx)
	if err := d.gw.Kill(); err != nil {
		return err
	}
	took, err := d.gw.Start(ctx)
	if err != nil {
		return err
	}
	d.say("   ... and starts again by itself, in %v", took.Round(time.Millisecond))
	if err := d.until(ctx, 20*time.Second, "the backlog is still there and grows", func(s scene) bool {
		return s.queued > before.queued && s.queued >= 200
	}); err != nil {
		return err
	}
	d.say("4. The link comes back: the backlog drains, oldest first, fresh messages behind it")
	d.module.SetLink(true)
	if err := d.until(ctx, 60*time.Second, "the backlog has halved", func(s scene) bool { return s.queued <= 100 }); err != nil {
		return err
	}
	d.say("5. The sensors stop, the queue runs empty")
	for _, s := range d.sensors {
		s.stop()
	}
	if err := d.until(ctx, 60*time.Second, "everything is delivered", func(s scene) bool { return s.answered && s.queued == 0 }); err != nil {
		return err
	}
	return d.books(ctx)
}

// scene is one look at everything.
type scene struct {
	answered    bool // the gateway has told its status
	link        string
	queued      int
	sent, acked uint64 // by the sensors
	cloud       int    // distinct messages
	status      gateway.Status
}

func (d *demo) scene(ctx context.Context) scene {
	s := scene{link: "down", cloud: d.watch.distinct()}
	for _, sn := range d.sensors {
		s.sent += sn.sent.Load()
		s.acked += sn.acked.Load()
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if console.FetchStatus(ctx, d.gw.Socket, &s.status) != nil || len(s.status.Bridges) == 0 {
		s.link = "gateway down"
		return s
	}
	s.answered = true
	b := s.status.Bridges[0]
	s.queued = b.Queued
	s.link = string(b.State)
	return s
}

// until prints a line twice a second until ok holds.
func (d *demo) until(ctx context.Context, patience time.Duration, what string, ok func(scene) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	lastLine := time.Time{}
	for {
		s := d.scene(ctx)
		done := ok(s)
		if done || time.Since(lastLine) >= 500*time.Millisecond {
			d.line(s)
			lastLine = time.Now()
		}
		if done {
			return nil
		}
		select {
		case <-look.C:
		case <-d.gw.Died():
			return fmt.Errorf("the gateway has ended: %w\n%s", d.gw.End(), d.gw.LastLog())
		case <-ctx.Done():
			return fmt.Errorf("it took longer than %v until %s\n%s", patience, what, d.gw.LastLog())
		}
	}
}

const barWidth = 24

func (d *demo) line(s scene) {
	bar := strings.Repeat("#", min(barWidth, (s.queued+9)/10))
	fmt.Fprintf(d.out, "%6.1fs  link %-12s  queue %4d [%-*s]  sent %4d  acknowledged %4d  in the cloud %4d\n",
		time.Since(d.started).Seconds(), s.link, s.queued, barWidth, bar, s.sent, s.acked, s.cloud)
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, "\n"+format+"\n", args...) }

// books closes the demo: what was accepted, what became of it, and whether the
// two agree with what the sensors and the cloud have seen.
func (d *demo) books(ctx context.Context) error {
	s := d.scene(ctx)
	c := s.status.Books()
	missing := d.missing()
	d.say("The books:")
	fmt.Fprintf(d.out, "  sensors: %d sent, %d acknowledged (QoS 1)\n", s.sent, s.acked)
	fmt.Fprintf(d.out, "  gateway: %d accepted = %d delivered + %d unconfirmed + %d queued + %d dropped + %d quarantined + %d lost\n",
		c.Accepted, c.Delivered, c.Unconfirmed, c.Queued, total(c.Dropped), total(c.Quarantined), c.Lost)
	if s.sent > c.Accepted {
		fmt.Fprintf(d.out, "           (%d of QoS 0 were on the wire when it was killed; QoS 0 promises nothing for them)\n", s.sent-c.Accepted)
	}
	fmt.Fprintf(d.out, "  cloud:   %d distinct messages, %d duplicates (QoS 1 allows them)\n", s.cloud, d.watch.duplicates())
	fmt.Fprintf(d.out, "  acknowledged to a sensor and not in the cloud: %d\n", missing)
	switch {
	case missing > 0:
		return fmt.Errorf("%d acknowledged messages were lost", missing)
	case !c.Balanced() || c.Accepted != c.Delivered || c.Accepted == 0:
		return errors.New("the books do not balance: accepted is not delivered")
	case uint64(s.cloud+d.watch.duplicates()) < c.Delivered:
		return errors.New("the cloud has less than was delivered")
	}
	fmt.Fprintln(d.out, "  they balance: acknowledged means safe.")
	return nil
}

// missing counts the messages that a sensor has an acknowledgement for and
// that did not arrive.
func (d *demo) missing() int {
	n := 0
	for _, s := range d.sensors {
		if !s.acknowledges {
			continue
		}
		for seq := range s.acked.Load() {
			if !d.watch.has(s.name, seq+1) {
				n++
			}
		}
	}
	return n
}

func total(m map[string]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}
