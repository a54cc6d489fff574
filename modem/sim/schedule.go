package sim

import (
	"slices"
	"time"
)

// schedule is the module's timers. They live in one list rather than in one
// goroutine each, so that a reboot can forget them all at once.
type schedule struct {
	timer *time.Timer
	due   []deadline
}

type deadline struct {
	at time.Time
	f  func()
}

func (s *schedule) init() {
	s.timer = time.NewTimer(time.Hour)
	s.timer.Stop()
}

func (s *schedule) add(d time.Duration, f func()) {
	e := deadline{time.Now().Add(d), f}
	// Equal deadlines keep the order in which they were set.
	i, _ := slices.BinarySearchFunc(s.due, e.at, func(x deadline, at time.Time) int {
		if x.at.After(at) {
			return 1
		}
		return -1
	})
	s.due = slices.Insert(s.due, i, e)
	s.arm()
}

func (s *schedule) arm() {
	if len(s.due) == 0 {
		s.timer.Stop()
		return
	}
	s.timer.Reset(max(0, time.Until(s.due[0].at)))
}

// fire runs what is due. A function may add to the schedule or clear it.
func (s *schedule) fire() {
	now := time.Now()
	for len(s.due) > 0 && !s.due[0].at.After(now) {
		f := s.due[0].f
		s.due = s.due[1:]
		f()
	}
	s.arm()
}

func (s *schedule) clear() {
	s.due = nil
	s.timer.Stop()
}
