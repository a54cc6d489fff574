package e2e

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/edge/packet"
	"holdfast/modem/sim"
)

// "make field" lives the long day; the short one leaves out what takes its time.
var (
	fieldUp   = flag.Int("field-up", 0, "messages that go up in the day of field life; 0: the short day")
	fieldDown = flag.Int("field-down", 0, "messages that come down in it")
)

// fieldHour is one hour of the day: what strikes while messages go both ways, until
// they are through.
type fieldHour struct {
	name   string
	long   bool                // only in the long day: it costs a time-out
	traps  map[string]sim.Odds // on in this hour
	strike func(d *fieldDay)   // in the middle of the traffic; nil: nothing
}

var fieldHours = []fieldHour{
	{name: "nothing happens"},
	{name: "the module reboots", strike: (*fieldDay).reboot},
	{name: "announcements everywhere", traps: map[string]sim.Odds{
		"urc-in-reply": 0.5, "urc-before-prompt": 0.5, "urc-after-prompt": 0.5, "urc-first": 0.2}},
	{name: "the radio is away", strike: (*fieldDay).outage},
	{name: "the radio is away, connections break", long: true, traps: map[string]sim.Odds{"outage-breaks": 1}, strike: (*fieldDay).outage},
	{name: "the far broker restarts", strike: (*fieldDay).restartBroker},
	{name: "the echo comes back", traps: map[string]sim.Odds{"echo-returns": 0.3}},
	{name: "the module is unplugged", strike: (*fieldDay).unplug},
	{name: "the gateway is killed", strike: (*fieldDay).kill},
	{name: "two results for a login", traps: map[string]sim.Odds{"conn-short": 1, "double-conn": 1}, strike: (*fieldDay).reboot},
	{name: "a boot that swallows commands", long: true, traps: map[string]sim.Odds{"early-loss": 1, "double-rdy": 1}, strike: (*fieldDay).reboot},
	{name: "the firmware reconnects without a word", long: true, traps: map[string]sim.Odds{"outage-breaks": 1, "quiet-reconnect": 1}, strike: (*fieldDay).outage},
	{name: "the firmware gives up", long: true, traps: map[string]sim.Odds{"outage-breaks": 1, "spontaneous-bye": 1}, strike: (*fieldDay).outage},
	{name: "other ways to say it", long: true, traps: map[string]sim.Odds{"quoted-recv": 1, "old-pub-name": 1, "resent": 0.2, "no-send-acks": 1, "pushed-bytes": 1}, strike: (*fieldDay).reboot},
	{name: "results come with the send", long: true, traps: map[string]sim.Odds{"send-info": 1, "socket-errors": 1}, strike: (*fieldDay).reboot},
	{name: "publishes keep their places", long: true, traps: map[string]sim.Odds{"hold-slots": 1}, strike: (*fieldDay).outage},
	{name: "the module reboots three times", long: true, strike: func(d *fieldDay) { d.reboot(); d.advance(); d.reboot(); d.advance(); d.reboot() }},
	{name: "an OK comes late", long: true, strike: func(d *fieldDay) { d.trapFor("late-ok", 1) }},
	{name: "a command is not answered", long: true, strike: func(d *fieldDay) { d.trapFor("deaf", 1) }},
	{name: "noise on the line", long: true, strike: func(d *fieldDay) { d.trapFor("noise", 0.5) }},
	{name: "an acknowledgement is swallowed", long: true, traps: map[string]sim.Odds{"lost-ack": 0.001}},
	{name: "a login without an answer", long: true, strike: func(d *fieldDay) {
		d.set("lost-connack", 1)
		d.restartBroker()
		d.after(5 * time.Second)
		d.set("lost-connack", 0)
	}},
	{name: "the client is wedged", long: true, strike: func(d *fieldDay) {
		d.set("open-wedge", 1)
		d.restartBroker()
		d.after(5 * time.Second)
		d.set("open-wedge", 0)
	}},
	{name: "a connection that carries nothing any more", long: true, traps: map[string]sim.Odds{"dead-nat": 1}, strike: (*fieldDay).outage},
}

// A day of a site, compressed. Nothing that a device has sent is lost, whatever
// happens. Nothing that comes down is lost through a socket. The module's own client
// acknowledges what comes down before the gateway has it: what is missing then was
// never written to the line as it is, or while nobody listened, as the transcript says.
func TestADayOfFieldLife(t *testing.T) {
	for _, mode := range modemModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			d := newFieldDay(t, mode.mode, mode.dialect, mode.sockets)
			hours := slices.DeleteFunc(slices.Clone(fieldHours), func(h fieldHour) bool { return h.long && *fieldUp == 0 })
			up, down := 40*len(hours), 10*len(hours)
			if *fieldUp > 0 {
				up, down = *fieldUp, *fieldDown
			}
			for i, h := range hours {
				d.live(fmt.Sprintf("%02d", i), h, up/len(hours), down/len(hours))
			}
			d.evening(mode.mode != "mqtt" && mode.dialect != sim.DialectCMQTT)
		})
	}
}

// fieldDay is one site.
type fieldDay struct {
	t    *testing.T
	far  *mosquitto
	gw   *holdfast
	port string
	make func() *sim.Module
	m    *sim.Module

	cloud, device *collector
	up, down      map[string]int // what was sent, by hour

	began int // what had arrived when the hour began
	hour  int // how much goes up in it

	mistakes map[string]int

	mu    sync.Mutex
	heard []heardPiece // what went over the line to the gateway
	deaf  []span       // when the gateway was not there to listen
}

type heardPiece struct {
	at time.Time
	b  []byte
}

type span struct{ from, to time.Time }

func newFieldDay(t *testing.T, mode, dialect, sockets string) *fieldDay {
	dir := t.TempDir()
	d := &fieldDay{t: t, port: filepath.Join(dir, "lte"), up: map[string]int{}, down: map[string]int{}, mistakes: map[string]int{}}
	d.far = newMosquitto(t, "persistence true", "persistence_location "+dir+"/")
	d.far.start()
	d.make = func() *sim.Module {
		m, err := sim.New(sim.Options{Dialect: dialect, Sockets: sockets, Heard: d.hear, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	d.plug()
	t.Cleanup(func() { d.m.Close() })
	d.gw = newHoldfast(t, fmt.Sprintf(modemRoute, d.port, mode, d.far.address))
	d.gw.start()
	d.cloud, d.device = newCollector(t), newCollector(t)
	d.cloud.attach(d.far.address, "gw/s/#")
	d.device.attach(d.gw.address, "cmd/#")
	eventually(t, "the bridge is connected", func() bool { return d.gw.bridge().State == "connected" }, d.gw.tail)
	return d
}

// live is one hour: messages go both ways, something strikes in the middle of them, and
// the hour ends when all that went up has arrived.
func (d *fieldDay) live(id string, h fieldHour, up, down int) {
	d.t.Helper()
	began := time.Now()
	var traps sim.Traps
	for name, odds := range h.traps {
		if err := traps.Set(name, odds); err != nil {
			d.t.Fatal(err)
		}
	}
	d.m.SetTraps(traps)
	d.began, d.hour = d.cloud.distinct(), up
	d.up[id], d.down[id] = up, down
	d.publish(d.far.address, id, "gw/cmd/valve", down/2)
	d.publish(d.gw.address, id, "s/a", up/2)
	d.advance()
	if h.strike != nil {
		h.strike(d)
	}
	d.publishFrom(d.far.address, id, "gw/cmd/valve", down/2, down)
	d.publishFrom(d.gw.address, id, "s/a", up/2, up)
	d.wait(fmt.Sprintf("all of hour %s (%s) is through", id, h.name), func() bool { return d.cloud.distinct() >= d.began+up })
	d.m.SetTraps(sim.Traps{})
	d.t.Logf("hour %s, %s: %v", id, h.name, time.Since(began).Round(100*time.Millisecond))
}

func (d *fieldDay) publish(address, id, topic string, n int) { d.publishFrom(address, id, topic, 0, n) }

func (d *fieldDay) publishFrom(address, id, topic string, from, to int) {
	d.t.Helper()
	c := connect(d.t, address, packet.Connect{ClientID: "publisher", CleanStart: true})
	defer c.Conn.Close()
	publishRange(d.t, c, id, topic, from, to, 50)
}

// advance waits until a tenth more of the hour's messages is through.
func (d *fieldDay) advance() {
	want := min(d.cloud.distinct()+d.hour/10+1, d.began+d.hour/2)
	d.wait("messages go up", func() bool { return d.cloud.distinct() >= want })
}

// wait is eventually, for as long as the ladder may need.
func (d *fieldDay) wait(what string, ok func() bool) {
	d.t.Helper()
	if *fieldUp == 0 {
		eventually(d.t, what, ok, d.gw.tail)
		return
	}
	seen, at := 0, time.Now()
	for ; !ok(); d.after(50 * time.Millisecond) {
		if n := d.cloud.distinct(); n > seen {
			seen, at = n, time.Now()
		}
		if time.Since(at) > 10*time.Minute {
			d.t.Fatalf("nothing for 10 minutes: %s (%d of %d are through)\n%s", what, d.cloud.distinct()-d.began, d.hour, d.gw.tail())
		}
	}
}

// after lets so much time pass in the life of the site.
func (d *fieldDay) after(t time.Duration) { <-time.After(t) }

func (d *fieldDay) set(trap string, odds sim.Odds) {
	traps := d.m.Traps()
	if err := traps.Set(trap, odds); err != nil {
		d.t.Fatal(err)
	}
	d.m.SetTraps(traps)
}

// trapFor switches a trap on until a few commands have met it.
func (d *fieldDay) trapFor(trap string, odds sim.Odds) {
	n := d.m.Stats().Commands
	d.publishFrom(d.gw.address, "x"+trap, "s/x", 0, 3)
	d.up["x"+trap] = 3
	d.began += 3
	d.set(trap, odds)
	d.wait("a command meets "+trap, func() bool { return d.m.Stats().Commands > n })
	d.after(time.Second)
	d.set(trap, 0)
}

func (d *fieldDay) reboot() { d.m.Reboot() }

func (d *fieldDay) outage() {
	d.m.SetLink(false)
	d.after(2 * time.Second)
	d.m.SetLink(true)
}

func (d *fieldDay) restartBroker() {
	d.cloud.c.Conn.Close()
	if err := d.far.end(syscall.SIGTERM); err != nil {
		d.t.Error(err)
	}
	d.far.start()
	d.cloud.attach(d.far.address, "gw/s/#")
}

func (d *fieldDay) plug() {
	d.m = d.make()
	if err := os.Symlink(d.m.Path(), d.port); err != nil {
		d.t.Fatal(err)
	}
}

func (d *fieldDay) unplug() {
	defer d.deafUntilConnected(time.Now())
	if err := os.Remove(d.port); err != nil {
		d.t.Fatal(err)
	}
	traps := d.m.Traps()
	d.retire()
	d.plug()
	d.m.SetTraps(traps)
}

// retire ends the module in use.
func (d *fieldDay) retire() {
	if err := d.m.Close(); err != nil {
		d.t.Error(err)
	}
	for what, n := range d.m.Stats().Mistakes {
		switch {
		case what == sim.MistakeTooEarly: // the word of a loss crosses a publish on the line
		case what == sim.MistakeOverlap || what == sim.MistakeNotAT: // behind a command that ran out of time, as on a busy machine
		default:
			d.mistakes[what] += n
		}
	}
}

func (d *fieldDay) kill() {
	// A module that waited for a payload takes the first words of the next gateway for it.
	d.cloud.mu.Lock()
	d.cloud.foreign++
	d.cloud.mu.Unlock()
	before := d.m.Stats().Mistakes[sim.MistakeOverlap]
	defer func() { d.mistakes[sim.MistakeOverlap] -= d.m.Stats().Mistakes[sim.MistakeOverlap] - before }()
	defer d.deafUntilConnected(time.Now())
	d.device.c.Conn.Close()
	d.gw.end(syscall.SIGKILL)
	d.gw.start()
	d.device.attach(d.gw.address, "cmd/#")
}

// deafUntilConnected notes that the gateway may have missed what was written to the
// line from a moment before on until it has a connection again.
func (d *fieldDay) deafUntilConnected(from time.Time) {
	d.wait("the bridge is connected again", func() bool {
		st, err := d.gw.status()
		return err == nil && st.Bridges[0].State == "connected"
	})
	d.deaf = append(d.deaf, span{from.Add(-time.Second), time.Now()})
}

// hear is called by the module.
func (d *fieldDay) hear(b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard = append(d.heard, heardPiece{time.Now(), slices.Clone(b)})
}

// evening checks the day.
func (d *fieldDay) evening(allDown bool) {
	d.t.Helper()
	sent := 0
	for _, n := range d.down {
		sent += n
	}
	d.publish(d.far.address, "end", "gw/cmd/valve", 1)
	d.wait("the last command is there", func() bool { return d.device.has("end", 0) })
	st := d.gw.drained()
	for id, n := range d.up {
		if missing := d.cloud.missing(id, n); len(missing) > 0 {
			d.t.Errorf("hour %s: %d messages are lost on their way up: %v", id, len(missing), missing[:min(5, len(missing))])
		}
	}
	var lost []string
	for id, n := range d.down {
		for _, i := range d.device.missing(id, n) {
			lost = append(lost, fmt.Sprintf("%s/%d", id, i))
		}
	}
	written := d.transcript()
	for _, msg := range lost {
		switch {
		case allDown:
			d.t.Errorf("%s is lost on its way down through a socket", msg)
		case written[msg]:
			d.t.Errorf("%s was written to the line while the gateway listened, and is lost", msg)
		}
	}
	d.retire()
	maps.DeleteFunc(d.mistakes, func(_ string, n int) bool { return n <= 0 })
	if len(d.mistakes) > 0 {
		d.t.Errorf("the module saw mistakes of the gateway: %v", d.mistakes)
	}
	up := 0
	for _, n := range d.up {
		up += n
	}
	c := st.Modems[0].Counters
	d.t.Logf("%d up (%d repeated), none lost; %d down, %d lost and explained; %d resets, %d discarded",
		up, d.cloud.again, sent, len(lost), c.Resets, c.Discarded)
}

var heardCommand = regexp.MustCompile(`(\d\d/\d+)"?\r\n`)

// transcript is what was written to the line whole, to a gateway that listened.
func (d *fieldDay) transcript() map[string]bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []byte
	var at []int // where each piece begins
	for _, p := range d.heard {
		at = append(at, len(all))
		all = append(all, p.b...)
	}
	written := make(map[string]bool)
	for _, m := range heardCommand.FindAllSubmatchIndex(all, -1) {
		i, _ := slices.BinarySearch(at, m[0]+1)
		when := d.heard[i-1].at
		if !slices.ContainsFunc(d.deaf, func(s span) bool { return when.After(s.from) && when.Before(s.to) }) {
			written[string(all[m[2]:m[3]])] = true
		}
	}
	return written
}

// has reports whether this message has arrived.
func (k *collector) has(name string, i int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen[name][i]
}

// missing are those of n messages that have not arrived.
func (k *collector) missing(name string, n int) (l []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen := maps.Clone(k.seen[name])
	for i := range n {
		if !seen[i] {
			l = append(l, i)
		}
	}
	return l
}
