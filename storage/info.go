package storage

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"holdfast"
)

// QueueInfo is one line of the status.
type QueueInfo struct {
	// Name is that of the queue, or a client identifier if Session is true.
	Name           string
	Session        bool
	Depth          int64 // messages that are not acknowledged
	Bytes          int64
	OldestReceived time.Time // zero if it is empty
	// Lanes are the depths of the lanes.
	Lanes [holdfast.LaneCount]int64
	// Quarantined is the number of messages that are kept aside.
	Quarantined int
	// Busy is what keeps the queue from being exported or purged; mostly "".
	Busy string
}

// Queues lists all queues, those of bridges first, by name. It may read the
// oldest message of each from disk.
func (s *Store) Queues() []QueueInfo {
	var list []QueueInfo
	s.mu.Lock()
	queues := make([]*Queue, 0, len(s.byID))
	for _, q := range s.byID {
		queues = append(queues, q)
	}
	s.mu.Unlock()
	for _, q := range queues {
		oldest := q.OldestReceived()
		s.mu.Lock()
		info := q.infoLocked()
		s.mu.Unlock()
		info.OldestReceived = oldest
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b QueueInfo) int {
		if a.Session != b.Session {
			if b.Session {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return list
}

// Find returns a queue that is there: of that name, or of that session.
func (s *Store) Find(name string, session bool) (*Queue, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.named[name]
	if session {
		q = s.sessions[name]
	}
	return q, q != nil
}

// Names are those of the queues that are not of sessions.
func (s *Store) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.named))
}

// Sizes is Queues without what is to be read from disk, in any order.
func (s *Store) Sizes() []QueueInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]QueueInfo, 0, len(s.byID))
	for _, q := range s.byID {
		list = append(list, q.infoLocked())
	}
	return list
}

func (q *Queue) infoLocked() QueueInfo {
	info := QueueInfo{Name: q.name, Session: q.session, Quarantined: q.aside, Busy: q.busy}
	info.Depth, info.Bytes = q.sizeLocked()
	for i, l := range q.lanes {
		info.Lanes[i] = int64(l.depth())
	}
	return info
}
