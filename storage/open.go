package storage

import (
	"errors"
	"sync"
	"time"
)

// formatVersion is that of the rows; docs/format.md draws them. It grows with the
// version of any row that an older holdfast could not read.
const formatVersion = 2

// Store is an open store. All of its methods may be called by any goroutine.
type Store struct {
	o Options

	// engMu is held for reading around every use of eng by others than the
	// committer, which holds it alone to drop prefixes and to reopen.
	engMu sync.RWMutex
	eng   engine

	// marks has a lock of its own.
	marks  *marks
	keeper keeper
	faults *faults

	wake    chan struct{} // one token: there is something for the committer
	stopped chan struct{} // closed when the committer has ended
	pulse   pulse

	mu sync.Mutex
	// The rest, and all of the queues, is guarded by mu.

	cur         *txn   // the open transaction
	sealed      []*txn // those before it that are full
	pending     int    // bytes that wait for a commit
	bytes       int64  // bytes queued in all queues
	disk        disk   // how full the disk was at the last look
	urgent      bool   // someone waits for a done
	urgentSince time.Time
	lazy        bool // progress waits to be written
	closed      bool
	crashed     bool
	failed      error // after a failed commit, until it was reopened
	seq         uint64
	nextID      uint32
	named       map[string]*Queue
	sessions    map[string]*Queue
	byID        map[uint32]*Queue
	tails       map[*lane]struct{} // lanes with something in their tail
	tailBytes   int
	sweepable   map[*lane]struct{} // lanes whose mark has moved
	passed      []passedChunk
	// removedIDs are queues whose rows are still there.
	removedIDs []uint32
	over       []*Queue // queues that exceed their bounds on disk
	free       [][]byte // buffers of written batches
	damaged    int      // rows of damaged batches that are kept
	// suspect: damage was found at opening, and something may be missing.
	suspect  bool
	activity uint64    // grows with everything that callers do
	seen     uint64    // the activity at the last rest
	expireAt time.Time // when the next look for expired messages is due; zero: not known
	age      storeAge
	idleAt   time.Time // when the next rest is due; zero if there is no need
	stats    Stats

	pillow *pillow // nil without a disk

	waits    waits  // what is in memory only
	lives    uint64 // lives before this one that may have left positions
	lifeOpen bool
	born     time.Time // when it was opened
	teller   teller

	// Only the committer uses these.

	lastMessages int
	lastCommit   time.Duration
	lastDrop     time.Time
	lastSweep    time.Time
	closeErr     error
	closing      chan error // of an engine that is being closed; nil if there is none
}

// Stats is what the status of a gateway shows of its store.
type Stats struct {
	Commits  uint64 // transactions
	Messages uint64 // publications and changes in them
	// Direct are publications that all of their destinations acknowledged before
	// anything was written; Spilled is how often those that waited were written.
	Direct, Spilled uint64
	Failures        uint64 // commits that failed
	Reopened        uint64 // times that the store came back after one
	Unknown         uint64 // acknowledgements of items that were not handed out
	Lost            uint64 // messages that could not be read from disk
	// Unreadable counts other rows that could not be read.
	Unreadable uint64
	SetAside   uint64 // files set aside before opening
	Salvaged   uint64 // rows taken out of damaged files before opening
	Drops      uint64 // removals of passed chunks
	// LongestDrop is the longest time that one of them stopped the store.
	LongestDrop time.Duration
	Pending     int    // bytes that wait for a commit, or in memory
	Bytes       int64  // queued in all queues
	Space       string // ok, low, short or none: how much of the disk's reserve is left
	Failed      error  // why nothing is taken now; nil if all is well
}

// Stats returns the figures since the store was opened.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Pending, st.Failed, st.Bytes, st.Space = s.pending, s.failed, s.bytes, s.disk.level.String()
	return st
}

// Open opens the store in o.Dir. Its time does not grow with what is queued.
func Open(o Options) (*Store, error) {
	if o.Dir == "" {
		return nil, errors.New("storage: no folder given")
	}
	o = o.withDefaults()
	if err := selfCheck(); err != nil {
		return nil, err
	}
	if !Corrected() {
		o.Logger.Warn("storage: this program was " + Uncorrected)
	}
	pillow := newPillow(o.Dir)
	if o.space == nil {
		o.space = func() (free, total int64, err error) { return statfs(o.Dir) }
	}
	if o.engine == nil {
		o.engine = func(r *repairs) (engine, error) { return openGuarded(o.Dir, o.Logger, pillow, r) }
	}
	s, err := open(o, pillow)
	for n := 0; n < 3 && errors.Is(err, errFault); n++ {
		s, err = open(o, pillow) // it was noted which file it is, and that goes aside now
	}
	return s, err
}

// OpenMemory opens a store that has the same semantic and keeps everything in
// memory: for a gateway without a writable disk, and for quick tests. Its size
// is bounded by the bounds of its queues only.
func OpenMemory(o Options) (*Store, error) {
	o = o.withDefaults()
	if o.Memory == nil {
		o.Memory = &Memory{}
	}
	if o.engine == nil {
		o.engine = func(*repairs) (engine, error) { return memoryEngine{o.Memory}, nil }
		o.Dir = ""
	}
	return open(o, nil)
}

func open(o Options, pillow *pillow) (*Store, error) {
	mended := repairs{faults: newFaults(o.Dir, o.Logger)}
	eng, err := o.engine(&mended)
	if err != nil {
		return nil, err
	}
	noted, err := readMarks(o.Dir)
	if err != nil {
		// Nothing of the store itself is in it.
		o.Logger.Warn("storage: the marks beside the store cannot be read: a lost tail would not be noticed", "error", err)
	}
	s := &Store{
		o: o, eng: eng, pillow: pillow, faults: mended.faults,
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
		cur: &txn{}, nextID: 1, born: time.Now(),
		named: map[string]*Queue{}, sessions: map[string]*Queue{}, byID: map[uint32]*Queue{},
		tails: map[*lane]struct{}{}, sweepable: map[*lane]struct{}{},
		lastDrop: time.Now(),
		marks:    noted, suspect: mended.loss,
	}
	s.stats.SetAside, s.stats.Salvaged = uint64(mended.aside), uint64(mended.rows)
	s.age.clock = o.Clock
	if err := s.load(); err != nil {
		return nil, errors.Join(err, eng.close())
	}
	if err := s.beginLife(); err != nil {
		return nil, errors.Join(err, eng.close())
	}
	if pillow != nil && pillow.missing() < pillow.size {
		pillow.wanted = true // by an earlier life, which may not have completed it
		pillow.fill(&s.o)
	}
	s.lookAtDisk()
	if len(s.passed)+len(s.removedIDs) > 0 || s.lazy {
		s.wakeCommitter()
	}
	go s.run()
	s.startTeller()
	s.startKeeper()
	return s, nil
}

// Close commits what is waiting, writes the progress of every queue, and waits
// for the committer. Every done has been called when it returns.
func (s *Store) Close() error { return s.stop(false) }

// stopWait bounds the last close, which has 4 MiB or a few times that to write. The
// parts that are stopped before take their time too, and systemd kills after 90 s.
const stopWait = 40 * time.Second

// Crash stops the store as kill -9 would: what was not committed is lost, and
// its done is never called. It is for tests.
func (s *Store) Crash() { _ = s.stop(true) }

func (s *Store) stop(crash bool) error {
	s.mu.Lock()
	if s.closed || s.crashed {
		s.mu.Unlock()
		<-s.stopped
		return nil
	}
	s.closed, s.crashed = !crash, crash
	var wakes []func()
	for _, q := range s.byID {
		wakes = q.wakeLocked(wakes)
	}
	s.mu.Unlock()
	for _, f := range wakes {
		f()
	}
	s.wakeCommitter()
	<-s.stopped
	s.stopTeller()
	s.stopKeeper()
	err := s.closeErr
	if !crash {
		if markErr := s.marks.write(); markErr != nil {
			s.o.Logger.Warn("storage: the marks beside the store were not written", "error", markErr)
		}
	}
	if s.eng != nil && s.pillow != nil {
		need, full := s.pillow.toClose()
		if full == nil {
			full = s.pillow.makeWay(need)
		}
		if full != nil {
			// A close would try for ever, or be the end of the process. What
			// was committed is in the log, and the next opening reads it
			// there.
			s.engMu.Lock()
			s.eng = nil
			s.engMu.Unlock()
			return errors.Join(err, full)
		}
	}
	wait := stopWait
	switch {
	case s.closing != nil:
		wait = 0 // it was waited for
	case s.closeErr != nil:
		wait = closeWait
	}
	return errors.Join(err, s.closeEngine(wait))
}
