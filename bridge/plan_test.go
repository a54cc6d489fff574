package bridge

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast"
)

// simCard counts what crosses the air in a bubble of time.
type simCard struct {
	mu   sync.Mutex
	sum  uint64
	life int
}

func (s *simCard) carry(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum += uint64(n)
}

func (s *simCard) carried() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sum
}

// renew makes the counter begin anew.
func (s *simCard) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum, s.life = 0, s.life+1
}

func (s *simCard) Count() Counted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Counted{Parts: map[string]uint64{fmt.Sprint("life ", s.life): s.sum}}
}

// ticking makes a plan and ticks it until the test ends, as the gateway does.
func ticking(t *testing.T, o PlanOptions) *Plan {
	t.Helper()
	p := NewPlan(o)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Minute)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.Tick()
			case <-stop:
				p.Close()
				return
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-ended })
	return p
}

// planWorld is a bridge over a SIM, whose broker acknowledges at once; a message
// costs 1000 bytes, a connection 5000.
func planWorld(t *testing.T, card *simCard, plan *Plan, change func(*Options)) (w *world, got func(lane string) int) {
	var mu sync.Mutex
	arrived := map[string]int{}
	broker := &fakeBroker{will: true, onConnect: func(*fakeUpstream) { card.carry(5000) }}
	broker.onPublish = func(_ *fakeUpstream, m *holdfast.Message, done func(error)) {
		card.carry(1000)
		mu.Lock()
		arrived[string(m.Payload)]++
		mu.Unlock()
		done(nil)
	}
	w = start(t, broker, func(o *Options) {
		o.Upstreams[0].Plan = plan
		o.FarStateTopic, o.AckTimeout = "far/state", 24*time.Hour // to look seldom makes months short
		if change != nil {
			change(o)
		}
	})
	return w, func(lane string) int {
		mu.Lock()
		defer mu.Unlock()
		return arrived[lane]
	}
}

var lanesByName = map[string]holdfast.Lane{"low": holdfast.Low, "normal": holdfast.Normal, "high": holdfast.High}

// TestAMonthOfADataPlan: a plan of 3.4 MB, and every half hour a message in each
// lane, which would cost 4.5 MB. The gateway is restarted every third day, and the
// SIM's counter begins anew with it.
func TestAMonthOfADataPlan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		card, file := &simCard{}, filepath.Join(t.TempDir(), "plan", "sim.json")
		limits := PlanLimits{Bytes: 3_400_000, FirstDay: 1}
		var total uint64
		arrived := map[string]int{}
		var q *fakeQueue
		sent := 0
		levels := map[PlanLevel]int{} // days by level at their end
		at := map[PlanLevel]map[string]int{}
		run := func(halfHours int) {
			plan := NewPlan(PlanOptions{Name: "sim", Limits: limits, Count: card.Count, File: file})
			w, got := planWorld(t, card, plan, func(o *Options) {
				if q != nil {
					q.story = o.Queue.(*fakeQueue).story
					o.Queue = q
				}
				q = o.Queue.(*fakeQueue)
			})
			level := plan.level()
			for step := range halfHours {
				for lane, id := range lanesByName {
					q.insert(id, lane)
				}
				sent++
				time.Sleep(30 * time.Minute)
				plan.Tick()
				w.take()
				if l := plan.level(); l != level {
					level, at[l] = l, map[string]int{}
					for lane := range lanesByName {
						at[l][lane] = arrived[lane] + got(lane)
					}
				}
				if step%48 == 47 {
					levels[level]++
				}
			}
			w.stop()
			plan.Close()
			for lane := range lanesByName {
				arrived[lane] += got(lane)
			}
		}
		for range 10 {
			run(3 * 48)
			total += card.carried()
			card.renew()
		}
		run(47) // the 31st but for half an hour
		total += card.carried()
		t.Logf("of %d each arrived: high %d, normal %d, low %d; %d bytes; days by level %v", sent, arrived["high"], arrived["normal"], arrived["low"], total, levels)
		if levels[PlanFree] == 0 || levels[PlanHoldsLow] == 0 || levels[PlanHighOnly] == 0 {
			t.Fatalf("days by level: %v", levels)
		}
		if arrived["high"] != sent {
			t.Errorf("of %d in the high lane %d arrived", sent, arrived["high"])
		}
		// From a level on, no more than was on its way went in the lanes that it holds.
		if n := arrived["low"] - at[PlanHoldsLow]["low"]; n > 2 {
			t.Errorf("%d of the low lane went behind 80 %%", n)
		}
		if n := arrived["normal"] - at[PlanHighOnly]["normal"]; n > 2 {
			t.Errorf("%d of the normal lane went behind 100 %%", n)
		}
		if arrived["normal"] <= arrived["low"] {
			t.Errorf("the normal lane did not go on at 80 %%: %v", arrived)
		}
		// The counts over all lives are those of the plan; one counter's last bytes
		// before a restart may be lost to it.
		used := NewPlan(PlanOptions{Name: "sim", Limits: limits, Count: card.Count, File: file}).Status().Used
		if used > total || used < total*99/100 {
			t.Errorf("the plan has %d bytes, the SIM carried %d", used, total)
		}
		card.renew()
		run(48) // then the next month begins: everything goes
		for lane := range lanesByName {
			if arrived[lane] < sent-1 || len(q.gone) != arrived["high"]+arrived["normal"]+arrived["low"] {
				t.Errorf("in the new month %d of %d of the %s lane have arrived, %d left the queue", arrived[lane], sent, lane, len(q.gone))
			}
		}
	})
}

func TestAHardPlanLetsOneStateMessageADayGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		card := &simCard{}
		plan := ticking(t, PlanOptions{Name: "sim", Limits: PlanLimits{Bytes: 100_000, FirstDay: 1, Hard: true}, Count: card.Count})
		w, got := planWorld(t, card, plan, nil)
		t.Cleanup(w.stop)
		for range 150 {
			w.q.insert(holdfast.High, "high")
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		if n := got("high"); n < 80 || n > 100 {
			t.Fatalf("%d of a plan of 100 went", n)
		}
		events := w.take()
		if end := events[len(events)-2:]; end[0] != "publish "+OverPlan || end[1] != "close" {
			t.Fatalf("it ended with %q", end)
		}
		if s := w.b.Status(); s.State != Sitting || !strings.Contains(s.LastError, "the next period begins on 2000-02-01") {
			t.Errorf("%+v", s)
		}
		before := card.carried()
		time.Sleep(20 * 24 * time.Hour)
		synctest.Wait()
		events = w.take()
		if want := strings.TrimSpace(strings.Repeat("connect, publish "+OverPlan+", close, ", 20)); strings.Join(events, ", ")+"," != want {
			t.Errorf("in 20 days: %q", events)
		}
		if cost := card.carried() - before; cost != 20*6000 {
			t.Errorf("they cost %d bytes", cost)
		}
		time.Sleep(12 * 24 * time.Hour) // February
		synctest.Wait()
		w.wantAll(t, "connect", "publish "+Online, "publish high")
		if n := got("high"); n != 150 {
			t.Errorf("%d of 150 arrived", n)
		}
	})
}

func TestTheOverPlanMessageIsNotToldAgainAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card, file := &simCard{}, filepath.Join(t.TempDir(), "sim.json")
		o := PlanOptions{Name: "sim", Limits: PlanLimits{Bytes: 1000, FirstDay: 1, Hard: true}, Count: card.Count, File: file}
		NewPlan(o).Close()
		card.carry(2000)
		for range 5 { // crashes: nothing is closed
			w, _ := planWorld(t, card, NewPlan(o), nil)
			time.Sleep(time.Hour)
			w.stop()
		}
		if n := card.carried(); n != 2000+6000 {
			t.Errorf("five starts within a day cost %d bytes", n-2000)
		}
	})
}

func TestAnAttemptToTellThatFailsIsNotRepeatedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := &simCard{}
		o := PlanOptions{Name: "sim", Limits: PlanLimits{Bytes: 1000, FirstDay: 1, Hard: true}, Count: card.Count}
		plan := ticking(t, o)
		card.carry(2000)
		plan.Tick()
		w, _ := planWorld(t, card, plan, nil)
		t.Cleanup(w.stop)
		w.broker.setRefuse(errCut)
		time.Sleep(48 * time.Hour)
		refused := 0
		for _, e := range w.take() {
			if e == "refuse" {
				refused++
			}
		}
		if refused > 9 {
			t.Errorf("%d attempts in two days", refused)
		}
	})
}

// A second SIM takes over when the first one's hard plan is used, until its next
// period.
func TestTheNextUpstreamIsUsedWhenThePlanOfOneIsSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := &simCard{}
		plan := ticking(t, PlanOptions{Name: "sim", Limits: PlanLimits{Bytes: 50_000, FirstDay: 1, Hard: true}, Count: card.Count})
		second := &fakeBroker{name: "second ", onPublish: func(_ *fakeUpstream, _ *holdfast.Message, done func(error)) { done(nil) }}
		w, got := planWorld(t, card, plan, func(o *Options) {
			second.story = o.Queue.(*fakeQueue).story
			o.Upstreams = append(o.Upstreams, UpstreamOption{Name: "second", Connect: second.Connect})
		})
		t.Cleanup(w.stop)
		for range 100 {
			w.q.insert(holdfast.Normal, "normal")
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		s := w.b.Status()
		if s.Upstream != "second" || s.Acked != 100 || got("normal") > 50 {
			t.Fatalf("in use is %q, %d acknowledged, %d by the first", s.Upstream, s.Acked, got("normal"))
		}
		if u := s.Upstreams[0]; !strings.Contains(u.LastError, "data plan") || u.HeldUntil.Month() != time.February {
			t.Errorf("%+v", u)
		}
		w.take()
		time.Sleep(29 * 24 * time.Hour)
		if e := w.take(); len(e) > 0 {
			t.Errorf("the first was tried: %q", e)
		}
		time.Sleep(3 * 24 * time.Hour)
		synctest.Wait()
		if s := w.b.Status(); s.Upstream != "u" {
			t.Errorf("in the new period %q is in use", s.Upstream)
		}
	})
}

// What sampling holds of the low lane waits like the rest of it.
func TestWhatSamplingHoldsWaitsForThePlanToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := &simCard{}
		plan := ticking(t, PlanOptions{Name: "sim", Limits: PlanLimits{Bytes: 100_000, FirstDay: 1}, Count: card.Count})
		w, got := planWorld(t, card, plan, func(o *Options) { o.Routes[0].Sample = time.Hour })
		t.Cleanup(w.stop)
		for _, payload := range []string{"first", "second"} {
			w.q.put(holdfast.Low, "t/a", payload, time.Now())
			time.Sleep(time.Minute)
		}
		if got("first") != 1 || got("second") != 0 || w.b.Status().Held != 1 {
			t.Fatalf("%q", w.take())
		}
		card.carry(85_000)
		time.Sleep(2 * time.Hour)
		if got("second") != 0 {
			t.Error("it went")
		}
		plan.SetLimits(PlanLimits{Bytes: 200_000, FirstDay: 1})
		time.Sleep(time.Minute)
		if got("second") != 1 {
			t.Errorf("with a larger plan it does not go: %q", w.take())
		}
	})
}

func TestWhatACounterSaysIsAddedUp(t *testing.T) {
	var now Counted
	p := NewPlan(PlanOptions{Limits: PlanLimits{Bytes: 1e6, FirstDay: 1}, Count: func() Counted { return now }})
	step := func(want uint64, c Counted) {
		t.Helper()
		now = c
		p.Tick()
		if got := p.Status().Used; got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
	a := func(n uint64) map[string]uint64 { return map[string]uint64{"a": n} }
	step(0, Counted{})                                                             // there is none yet
	step(30, Counted{Parts: a(500), First: 30})                                    // what was before counts as far as is known
	step(130, Counted{Parts: a(600)})                                              //
	step(130, Counted{})                                                           // it is gone
	step(140, Counted{Parts: a(610)})                                              // and there again
	step(147, Counted{Parts: map[string]uint64{"b": 7}})                           // another one
	step(150, Counted{Parts: map[string]uint64{"b": 3}})                           // that began anew without a word
	step(170, Counted{Parts: map[string]uint64{"b": 3, "c": 20}, Estimated: true}) // a month more
	step(160, Counted{Parts: map[string]uint64{"b": 3, "c": 10}, Estimated: true}) // it was too much
	step(157, Counted{Parts: map[string]uint64{"b": 0, "c": 10}, Estimated: true})
	step(157, Counted{Parts: map[string]uint64{"b": 0, "c": 10}, First: 1e6})
}

func TestThePeriodBeginsOnItsDay(t *testing.T) {
	for _, tc := range []struct {
		day       int
		now, want string
	}{
		{1, "2026-11-21T00:00:00Z", "2026-11-01"},
		{1, "2026-11-01T00:00:00Z", "2026-11-01"},
		{22, "2026-11-21T23:59:59Z", "2026-10-22"},
		{28, "2026-03-01T00:00:00Z", "2026-02-28"},
		{15, "2027-01-03T00:00:00+14:00", "2026-12-15"},
		{2, "2026-11-02T01:00:00+02:00", "2026-10-02"}, // the first in UTC
	} {
		now, err := time.Parse(time.RFC3339, tc.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := (PlanLimits{FirstDay: tc.day}).period(now).Format(time.DateOnly); got != tc.want {
			t.Errorf("%s, day %d: %s, want %s", tc.now, tc.day, got, tc.want)
		}
	}
}

// A board without a battery begins in 1970: the plan is not to be had twice.
func TestAClockThatIsNotSureBeginsNoPeriodAgain(t *testing.T) {
	now, sure := date("2026-11-21"), true
	card := &simCard{}
	p := NewPlan(PlanOptions{Limits: PlanLimits{Bytes: 1000, FirstDay: 1}, Count: card.Count, Clock: func() (time.Time, bool) { return now, sure }})
	card.carry(900)
	p.Tick()
	for _, step := range []struct {
		day  string
		sure bool
		used uint64
	}{{"1970-01-01", false, 900}, {"2026-11-22", true, 900}, {"2026-12-01", false, 0}, {"2026-11-30", false, 0}, {"2026-11-30", true, 0}} {
		now, sure = date(step.day), step.sure
		p.Tick()
		if got := p.Status().Used; got != step.used {
			t.Errorf("%s, sure %v: %d used, want %d", step.day, step.sure, got, step.used)
		}
	}
}

// TestAnotherFirstDayDoesNotGiveThePlanTwice: by a reload or by a restart.
func TestAnotherFirstDayDoesNotGiveThePlanTwice(t *testing.T) {
	for _, c := range []struct {
		day          int
		now          string
		used         uint64
		since, until string
	}{
		{15, "2026-11-21", 1000, "2026-11-15", "2026-12-15"},
		{28, "2026-11-21", 1000, "2026-10-28", "2026-11-28"},
		{15, "2026-12-05", 1000, "2026-11-15", "2026-12-15"}, // it was off, and part of it may be of November
		{15, "2026-12-15", 0, "2026-12-15", "2027-01-15"},
		{1, "2026-12-01", 0, "2026-12-01", "2027-01-01"},
	} {
		for _, restart := range []bool{false, true} {
			now := date("2026-11-20")
			card, file := &simCard{}, filepath.Join(t.TempDir(), "sim.json")
			limits := PlanLimits{Bytes: 1000, FirstDay: 1, Hard: true}
			o := PlanOptions{Limits: limits, Count: card.Count, File: file, Clock: func() (time.Time, bool) { return now, true }}
			p := NewPlan(o)
			card.carry(1000)
			p.Tick()
			if restart {
				p.Close()
			}
			limits.FirstDay, now = c.day, date(c.now)
			if o.Limits = limits; restart {
				p = NewPlan(o)
			} else {
				p.SetLimits(limits)
			}
			for range 2 { // also when it is looked at again
				p.Tick()
				s := p.Status()
				if s.Used != c.used || (s.Level == PlanSpent) != (c.used == 1000) || s.Since != date(c.since) || s.Until != date(c.until) {
					t.Errorf("%s, day %d, restart %v: %+v", c.now, c.day, restart, s)
				}
			}
			now = date(c.until)
			p.Tick()
			if s := p.Status(); s.Used != 0 || s.Since != now {
				t.Errorf("%s, day %d, restart %v: %+v in the next period", c.now, c.day, restart, s)
			}
		}
	}
}

func date(s string) time.Time {
	d, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return d
}

func TestThePlanIsAnnouncedBeforeLanesWait(t *testing.T) {
	var log strings.Builder
	card := &simCard{}
	p := NewPlan(PlanOptions{Name: "sim", Limits: PlanLimits{Bytes: 1000, FirstDay: 1, Hard: true}, Count: card.Count, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 110 {
		card.carry(10)
		p.Tick()
	}
	var told []string
	for line := range strings.Lines(log.String()) {
		for field := range strings.FieldsSeq(line) {
			if percent, ok := strings.CutPrefix(field, "percent="); ok {
				told = append(told, percent)
			}
		}
	}
	if got := strings.Join(told, " "); got != "70 80 90 100" {
		t.Errorf("told at %s:\n%s", got, &log)
	}
	if !strings.Contains(log.String(), "at_percent=100 then=\"nothing goes\"") {
		t.Errorf("what comes is not told:\n%s", &log)
	}
}

// TestWhatWasToldIsOnDisk though others write the plan down at the same time.
func TestWhatWasToldIsOnDisk(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "sim.json")
	p := NewPlan(PlanOptions{Limits: PlanLimits{Bytes: 1000, FirstDay: 1}, Count: (&simCard{}).Count, File: file})
	for round := range 20 {
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				bridge := fmt.Sprint(round, " ", i)
				p.told(bridge, time.Hour)
				if r := recallPlan(file, slog.New(slog.DiscardHandler)); r.Told[bridge].IsZero() {
					t.Errorf("%s is not on disk", bridge)
				}
			})
		}
		wg.Wait()
	}
}

func TestAPlanThatCannotBeReadIsSetAside(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sim.json")
	card := &simCard{}
	o := PlanOptions{Limits: PlanLimits{Bytes: 1000, FirstDay: 1}, Count: card.Count, File: file}
	p := NewPlan(o)
	card.carry(500)
	p.Close()
	if used := NewPlan(o).Status().Used; used != 500 {
		t.Fatalf("%d are kept of 500", used)
	}
	if err := os.WriteFile(file, []byte(`{"used":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if used := NewPlan(o).Status().Used; used != 0 {
		t.Errorf("%d of a file that is damaged", used)
	}
	if _, err := os.Stat(file + ".unreadable"); err != nil {
		t.Error(err)
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(`{"period":"2026-11-01T00:00:00Z","used":5,"parts":{"a":1},"noticed":70,"told":{"b":"2026-11-02T00:00:00Z"}}`))
	f.Add([]byte(`{"used":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parsePlan(raw)
		if err != nil {
			return
		}
		if len(r.Parts) > maxPlanParts || r.Used > 1<<62 {
			t.Fatalf("%+v", r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			return // a year that JSON does not have
		}
		if _, err := parsePlan(again); err != nil && len(again) <= maxPlanFile {
			t.Fatal(err)
		}
	})
}

// What crosses is counted, with headers, whatever became of the connection.
func TestTheSocketMeterCountsWhatCrosses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.CopyN(c, c, 100_000)
		_, _ = io.Copy(io.Discard, c)
	}()
	m := NewSocketMeter()
	dial := m.Dialer(BoardDialer(""))
	sum := func() uint64 { return m.Count().Parts[m.life] }
	c, err := dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = c.Write(make([]byte, 100_000)) }()
	if _, err := io.ReadFull(c, make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	live := sum()
	if live < 200_000+attemptBytes+5*segmentHeader || live > 300_000 {
		t.Errorf("200,000 bytes count as %d", live)
	}
	c.Close()
	c.Close()
	<-ended
	if now := sum(); now < live || now > 300_000 {
		t.Errorf("closed: %d, before %d", now, live)
	}
	before := sum()
	l.Close()
	if _, err := dial(t.Context(), "tcp", l.Addr().String()); err == nil {
		t.Fatal("it is closed")
	}
	if cost := sum() - before; cost != attemptBytes {
		t.Errorf("an attempt in vain counts as %d", cost)
	}
}
