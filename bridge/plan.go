package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"holdfast"
)

// What the data plan of a SIM leaves to the bridges that go over it. A plan is so
// many bytes in a period of a month; they are counted where they cross the link, so
// logins, TLS, keep-alives, repetitions and what comes down are in it. At 80 % the
// low lane waits, at 100 % the normal one too. With Hard nothing goes at 100 %: the
// connections end, no other is made, and once a day OverPlan is told to the far
// broker (overplan.go). A new period lets everything go again. Messages that wait
// stay in the queue, by its rules.
//
// The log tells it before: at 70 % and 90 %, and whenever the lanes change.

// PlanLevel is what a plan lets go.
type PlanLevel int

// The levels.
const (
	PlanFree     PlanLevel = iota // everything
	PlanHoldsLow                  // high and normal, from 80 %
	PlanHighOnly                  // high, from 100 %
	PlanSpent                     // nothing: 100 % of a hard one
)

// String is the level in words.
func (l PlanLevel) String() string {
	return [...]string{"all lanes go", "the low lane waits", "only the high lane goes", "nothing goes"}[l]
}

func (l PlanLevel) lanes() holdfast.Lanes {
	return [...]holdfast.Lanes{holdfast.AllLanes, holdfast.AllLanes &^ (1 << holdfast.Low), 1 << holdfast.High, 0}[l]
}

// planNotices are the percentages at which the log tells what is to come.
var planNotices = [...]int{70, 90}

// planRead is the most that may be sent between two looks at the counter, in parts
// of the plan.
const planRead = 1000

// PlanLimits are the terms of a plan.
type PlanLimits struct {
	Bytes    uint64 // in a period, both directions; positive
	FirstDay int    // of a period, of the month (UTC), 1 to 28
	Hard     bool
}

// PlanOptions make a Plan.
type PlanOptions struct {
	Name   string // for the log and the status
	Limits PlanLimits
	// Count reads the counter. It must not block.
	Count func() Counted
	// File keeps what was counted over restarts; "" forgets it.
	File string
	// Clock is the time, and whether it is sure; nil is the board's clock.
	Clock  func() (now time.Time, sure bool)
	Logger *slog.Logger
}

// Counted is what a counter of bytes says.
type Counted struct {
	// Parts are sums by a name of the thing that counts, which is another one when
	// it begins at 0 again; nil if there is nothing to be read now.
	Parts map[string]uint64
	// Estimated: a sum that has become smaller takes back what was too much.
	Estimated bool
	// First is how much of it belongs to the period that the plan begins in.
	First uint64
}

// Plan is the data plan of one SIM, which several bridges may share. It is safe for
// concurrent use.
type Plan struct {
	name  string
	count func() Counted
	clock func() (time.Time, bool)
	file  string
	log   *slog.Logger

	saving    sync.Mutex // one Tick at a time; taken before mu
	unwritten bool       // it could not be written; guarded by saving

	mu      sync.Mutex
	limits  PlanLimits
	rec     planRecord
	now     PlanLevel
	unread  uint64 // about what was sent since the counter was read
	unsaved uint64 // bytes counted since rec was written
	due     bool   // rec is to be written now
	saved   time.Time
	turn    context.Context
	turned  context.CancelFunc // level has changed: turn is over
}

// planRecord is what is on disk.
type planRecord struct {
	Period time.Time         `json:"period"` // its first day; zero: there was none
	Used   uint64            `json:"used"`
	Parts  map[string]uint64 `json:"parts"` // that were read last
	// Noticed is the highest of planNotices that was told in this period, Told when
	// OverPlan is to be told again, by bridge.
	Noticed int                  `json:"noticed,omitempty"`
	Told    map[string]time.Time `json:"told,omitempty"`
}

// NewPlan makes a plan that goes on where File has it, and reads the counter.
func NewPlan(o PlanOptions) *Plan {
	p := &Plan{name: o.Name, count: o.Count, clock: o.Clock, file: o.File, log: o.Logger, limits: o.Limits, saved: time.Now()}
	if p.clock == nil {
		p.clock = func() (time.Time, bool) { return time.Now(), true }
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.log = p.log.With(slog.String("plan", p.name))
	p.turn, p.turned = context.WithCancel(context.Background())
	p.rec = recallPlan(p.file, p.log)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readLocked()
	return p
}

// SetLimits changes the terms; what was counted stays, also with another FirstDay,
// until that comes.
func (p *Plan) SetLimits(l PlanLimits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limits != l {
		p.limits = l
		p.readLocked()
	}
}

// Tick reads the counter, and writes down what is due: every hour, and whenever
// half a percent of the plan was used since. It is to be called every few seconds.
func (p *Plan) Tick() { p.tick(false) }

// Close writes the last of it down.
func (p *Plan) Close() { p.tick(true) }

// tick takes its turn: an older record must not be written over a newer one, and who
// calls it relies on what was due before being on disk.
func (p *Plan) tick(last bool) {
	p.saving.Lock()
	defer p.saving.Unlock()
	p.mu.Lock()
	p.readLocked()
	old := time.Since(p.saved) >= time.Hour
	due := p.due || p.unsaved > p.limits.Bytes/200 || p.unsaved > 0 && (last || old)
	rec := p.rec // its maps are replaced, never changed
	if due {
		p.saved, p.unsaved, p.due = time.Now(), 0, false
	}
	p.mu.Unlock()
	if due {
		p.save(rec)
	}
}

// spend notes that about n bytes are sent.
func (p *Plan) spend(n int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unread += uint64(n); p.unread > p.limits.Bytes/planRead {
		p.readLocked()
	}
}

// lanes are those that may go, until turn ends.
func (p *Plan) lanes() (l holdfast.Lanes, turn context.Context) {
	if p == nil {
		return holdfast.AllLanes, context.Background()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now.lanes(), p.turn
}

func (p *Plan) level() PlanLevel {
	if p == nil {
		return PlanFree
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// period is the first day of the one that has now in it.
func (l PlanLimits) period(now time.Time) time.Time {
	now = now.UTC()
	first := time.Date(now.Year(), now.Month(), l.FirstDay, 0, 0, 0, 0, time.UTC)
	if now.Before(first) {
		first = time.Date(now.Year(), now.Month()-1, l.FirstDay, 0, 0, 0, 0, time.UTC)
	}
	return first
}

// moved reports whether a period is the last one with another first day, rather than
// the next one: then what was used stays used, or a spent plan could be had again.
func (l PlanLimits) moved(last, period time.Time) bool {
	return last.UTC().Day() != l.FirstDay && period.Before(last.AddDate(0, 1, 0)) && last.Before(period.AddDate(0, 1, 0))
}

// readLocked reads clock and counter, and sets the level.
func (p *Plan) readLocked() {
	now, sure := p.clock()
	period := p.limits.period(now)
	// A board without a battery begins in 1970: while the clock is not sure, no
	// period comes again.
	if last := p.rec.Period; !period.Equal(last) && (sure || period.After(last)) {
		p.rec.Period, p.due = period, true
		if !p.limits.moved(last, period) {
			p.rec.Used, p.rec.Noticed = 0, 0
			if !last.IsZero() {
				p.log.Info("a new period of the data plan begins", slog.Time("since", period))
			}
		}
	}
	p.unread = 0
	if c := p.count(); c.Parts != nil {
		p.takeLocked(c)
	}
	p.judgeLocked()
}

// takeLocked adds what was counted since it was read last.
func (p *Plan) takeLocked(c Counted) {
	before := p.rec.Used
	if p.rec.Parts == nil {
		p.rec.Used += c.First
	}
	for name, n := range c.Parts {
		last, known := p.rec.Parts[name]
		switch {
		case p.rec.Parts == nil:
		case known && n >= last:
			p.rec.Used += n - last
		case known && c.Estimated:
			p.rec.Used -= min(p.rec.Used, last-n)
		default: // it began anew
			p.rec.Used += n
		}
	}
	p.rec.Parts = c.Parts
	if p.rec.Used > before {
		p.unsaved += p.rec.Used - before
	}
}

// judgeLocked sets the level, and tells what there is to tell.
func (p *Plan) judgeLocked() {
	level, percent := p.limits.level(p.rec.Used), p.percentLocked()
	for _, n := range planNotices {
		if percent >= n && p.rec.Noticed < n {
			p.rec.Noticed, p.due = n, true
			next, from := PlanHoldsLow, 80
			if n != planNotices[0] {
				next, from = p.limits.end(), 100
			}
			if level < next {
				p.log.Warn("the data plan is nearly used", append(p.figuresLocked(), slog.Int("at_percent", from), slog.String("then", next.String()))...)
			}
		}
	}
	if level == p.now {
		return
	}
	if level > p.now {
		p.log.Warn("the data plan lets less go", append(p.figuresLocked(), slog.String("now", level.String()))...)
	} else {
		p.log.Info("the data plan lets more go again", slog.String("now", level.String()))
	}
	p.now, p.due = level, true
	p.turned()
	p.turn, p.turned = context.WithCancel(context.Background())
}

// figuresLocked are attributes of what is told.
func (p *Plan) figuresLocked() []any {
	return []any{slog.Int("percent", p.percentLocked()), slog.Uint64("bytes", p.rec.Used),
		slog.Uint64("of", p.limits.Bytes), slog.Time("until", p.endLocked())}
}

// level is what is let go with so many bytes used.
func (l PlanLimits) level(used uint64) PlanLevel {
	switch {
	case used >= l.Bytes:
		return l.end()
	case used >= l.Bytes-l.Bytes/5:
		return PlanHoldsLow
	}
	return PlanFree
}

// end is the level at 100 %.
func (l PlanLimits) end() PlanLevel {
	if l.Hard {
		return PlanSpent
	}
	return PlanHighOnly
}

func (p *Plan) percentLocked() int {
	return int(min(float64(p.rec.Used)/float64(p.limits.Bytes)*100, 1e6))
}

// endLocked is when the next period begins.
func (p *Plan) endLocked() time.Time { return p.rec.Period.AddDate(0, 1, 0) }

// PlanStatus is what a plan tells.
type PlanStatus struct {
	Name  string `json:"name"`
	Bytes uint64 `json:"bytes"` // of the plan
	Used  uint64 `json:"used"`  // since Since
	Hard  bool   `json:"hard,omitempty"`
	// Level is 0 if all lanes go, 1 if the low one waits, 2 if only the high one
	// goes, 3 if nothing does.
	Level PlanLevel `json:"level"`
	Since time.Time `json:"since"` // the period
	Until time.Time `json:"until"`
}

// Percent is how much is used.
func (s PlanStatus) Percent() float64 { return float64(s.Used) / float64(s.Bytes) * 100 }

// Status may be called at any time.
func (p *Plan) Status() PlanStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PlanStatus{Name: p.name, Bytes: p.limits.Bytes, Used: p.rec.Used, Hard: p.limits.Hard,
		Level: p.now, Since: p.rec.Period, Until: p.endLocked()}
}

// errSpent ends a connection, or is why there is none.
var errSpent = errors.New("the data plan is used, and it is a hard one")

// spentError names the plan.
func (p *Plan) spentError() error {
	s := p.Status()
	return fmt.Errorf("%w: %s, %d of %d bytes; the next period begins on %s", errSpent, s.Name, s.Used, s.Bytes, s.Until.Format(time.DateOnly))
}
