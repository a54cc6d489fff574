package crash

import (
	"math/rand/v2"
	"time"

	"holdfast/configs"
)

// plan is everything that is decided about one round. It depends on the seed
// and the number of the round only, so a seed replays the decisions; at which
// instruction a kill strikes is up to the machine.
type plan struct {
	// kill is how long the load runs before SIGKILL.
	kill time.Duration
	// killStart, if not 0, kills once more before, so long after the start of
	// the process: while it opens its store, or right behind it.
	killStart time.Duration
	// drain says which destinations must hand out everything that was
	// acknowledged, right after the restart.
	drain map[string]bool
	// turns are the times online and offline of each session, in turn.
	turns map[string][]time.Duration
	// line is what the way to the far broker does: the first from before the
	// start, the others each after a while.
	line []lineStep
	pace map[string]pace
	// spill is the mode of the storage in this life.
	spill bool
}

type lineStep struct {
	after time.Duration
	mode  lineMode
}

// between is a random duration from a to b.
func between(rng *rand.Rand, a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(rng.Int64N(int64(b-a)))
}

func newPlan(o Options, round int) plan {
	rng := rand.New(rand.NewPCG(o.Seed, uint64(round)))
	p := plan{
		kill:  between(rng, o.KillMin, o.KillMax),
		drain: map[string]bool{}, turns: map[string][]time.Duration{}, pace: map[string]pace{},
	}
	if rng.IntN(6) == 0 {
		p.killStart = between(rng, time.Millisecond, 120*time.Millisecond)
	}
	for _, d := range []struct {
		name string
		in   int // once in so many rounds
	}{{far, 3}, {sessionOne, 2}, {sessionTwo, 2}, {sessionThree, 6}} {
		p.drain[d.name] = rng.IntN(d.in) == 0
	}
	for _, name := range sessions {
		var list []time.Duration
		first := rng.IntN(2) == 0 // offline at first
		for sum := time.Duration(0); sum < p.kill; {
			d := between(rng, p.kill/10, p.kill)
			if first {
				list, first = append(list, 0), false
			}
			list = append(list, d)
			sum += d
		}
		if name == sessionThree && rng.IntN(3) > 0 {
			list = nil // away for many rounds: a long backlog
		}
		p.turns[name] = list
	}
	modes := []lineMode{lineOpen, lineOpen, lineCut, lineFrozen}
	p.line = append(p.line, lineStep{0, modes[rng.IntN(len(modes))]})
	if p.drain[far] {
		p.line[0].mode = lineOpen
	}
	for sum := time.Duration(0); ; {
		after := between(rng, p.kill/8, p.kill)
		if sum += after; sum > p.kill {
			break
		}
		p.line = append(p.line, lineStep{after, modes[rng.IntN(len(modes))]})
	}
	for _, s := range sources {
		pc := pace{every: between(rng, time.Millisecond, 12*time.Millisecond), burst: 1 + rng.IntN(s.burst)}
		if rng.IntN(4) == 0 {
			pc.hangUp = 1 + rng.IntN(300)
		}
		p.pace[s.name] = pc
	}
	p.spill = rng.IntN(2) == 0
	switch o.Sync {
	case configs.SyncAlways, configs.SyncSpill:
		p.spill = o.Sync == configs.SyncSpill
	}
	if p.spill && rng.IntN(3) > 0 {
		// Mostly everyone is there, and answers, and QoS 2, which always takes
		// the disk and all that waits with it, is seldom: that is what spill is for.
		p.line = []lineStep{{0, lineOpen}}
		for _, name := range []string{sessionOne, sessionTwo} {
			p.turns[name] = []time.Duration{2 * p.kill}
		}
		for _, s := range sources {
			if s.qos == 2 {
				p.pace[s.name] = pace{every: between(rng, 100*time.Millisecond, 500*time.Millisecond), burst: 1}
			}
		}
	}
	return p
}
