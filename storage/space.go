package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"holdfast"
)

// Badger writes through mmap: where the disk has no page left for a file with
// holes, the process dies of SIGBUS and no error is ever returned; and where
// files have their space beforehand (scripts/patch-modules.sh), nothing can be
// merged any more, which holds up everything. So the store stops by itself, in
// three steps, long before.
type spaceLevel int

const (
	spaceOK spaceLevel = iota
	// spaceLow: below the reserve. The rule of a full queue applies to every
	// new message; all else goes on.
	spaceLow
	// spaceShort: below three quarters of it. Nothing new comes in: messages as a queue
	// that cannot drop, changes of sessions, wills and retained messages with
	// ErrFull. What is queued drains, and its progress is written.
	spaceShort
	// spaceNone: below half of it. Badger needs the rest to merge tables. Nothing is written at all. What is queued
	// drains; after a crash it may come again.
	spaceNone
)

func (l spaceLevel) String() string { return [...]string{"ok", "low", "short", "none"}[l] }

// lookEvery is the time between two looks while space is short of, calmEvery
// that while there is enough and nothing is committed.
const (
	lookEvery = time.Second
	calmEvery = 10 * time.Second
)

// errSpace wraps ErrBusy: the same may be offered again later.
var errSpace = fmt.Errorf("storage: the disk is full: %w", holdfast.ErrBusy)

// disk is what is known of the free space. It is guarded by Store.mu.
type disk struct {
	level spaceLevel
	// queued is what was queued when the disk became low: no more may be.
	queued int64
	// again is when the next look is due without a commit; zero if never.
	again   time.Time
	unknown bool // the last look failed
}

// reserve is the space that is kept free on a disk with total bytes: 5 %, at
// least 32 MiB, but on a small disk not more than two fifths.
func (o *Options) reserve(total int64) int64 {
	if o.Reserve > 0 {
		return min(o.Reserve, total/2)
	}
	return min(max(32<<20, total/20), total/5*2)
}

// lookAtDisk looks how much space is left. It is called by the committer before
// every commit; while there is too little, every second.
func (s *Store) lookAtDisk() spaceLevel {
	if s.o.space == nil {
		return spaceOK
	}
	free, total, err := s.o.space()
	s.mu.Lock()
	was := s.disk.level
	level := s.spaceLocked(free, total, err)
	s.mu.Unlock()
	if s.pillow != nil && err == nil {
		s.pillow.keep(&s.o, free, total, level < was)
	}
	return level
}

// spaceLocked takes the steps down at once, and those up with a little more
// space than that.
func (s *Store) spaceLocked(free, total int64, err error) spaceLevel {
	was := s.disk.level
	if err != nil {
		if !s.disk.unknown {
			s.o.Logger.Warn("storage: nobody knows how full the disk is", "error", err)
		}
		s.disk.unknown, s.disk.again = true, time.Now().Add(lookEvery)
		return was
	}
	s.disk.unknown = false
	reserve := s.o.reserve(total)
	if free < reserve && s.pillow != nil {
		free -= s.pillow.missing()
	}
	level := spaceOK
	for l := spaceLow; l <= spaceNone; l++ {
		bound := reserve * int64(5-l) / 4
		if was >= l {
			bound += bound / 8 // the way back needs a little more
		}
		if free < bound {
			level = l
		}
	}
	switch {
	case level > spaceOK:
		s.disk.again = time.Now().Add(lookEvery)
	case s.pillow != nil:
		s.disk.again = time.Now().Add(calmEvery)
	default:
		s.disk.again = time.Time{}
	}
	if level == was {
		return level
	}
	if was == spaceOK {
		s.disk.queued = s.bytes
	}
	s.disk.level = level
	log := s.o.Logger.Info
	if level > was {
		log = s.o.Logger.Error
	}
	log("storage: free space", "level", level.String(), "was", was.String(), "free", free, "reserve", reserve, "folder", s.o.Dir)
	if level < spaceNone {
		s.wakeCommitter()
	}
	return level
}

// statfs is the space of the file system of dir.
func statfs(dir string) (free, total int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("storage: look at the free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), nil
}

// pillow is a file that only takes space. Badger writes a table when it is
// closed, and when it is opened after a crash: if someone else has filled the
// disk to the brim, the file makes way for that. While there is plenty of space
// it is not needed and not there.
type pillow struct {
	dir    string
	size   int64
	wanted bool
}

const (
	pillowName = "reserve"
	pillowSize = 12 << 20
	// newStoreBytes is what an opening takes for itself: a memtable with a batch
	// beyond its size, and a value log; restBytes is for all that is small.
	newStoreBytes = memTableSize + 2*maxTxnBytes + valueLogBytes + restBytes
	restBytes     = 256 << 10
)

func newPillow(dir string) *pillow {
	_, total, err := statfs(dir)
	if err != nil { // the folder is still to be made
		_, total, err = statfs(filepath.Dir(dir))
	}
	if err != nil {
		return &pillow{dir: dir, size: pillowSize}
	}
	return &pillow{dir: dir, size: min(pillowSize, total/8)}
}

func (p *pillow) path() string { return filepath.Join(p.dir, pillowName) }

// missing is how much of it is not there: it is counted as not free.
func (p *pillow) missing() int64 {
	info, err := os.Stat(p.path())
	if err != nil {
		return p.size
	}
	return max(0, p.size-info.Size())
}

// makeWay removes the file if need bytes are not free without it.
func (p *pillow) makeWay(need int64) error {
	free, _, err := statfs(p.dir)
	if need == 0 || err != nil || free >= need {
		return nil // nobody knows better
	}
	if err := os.RemoveAll(p.path()); err != nil {
		return fmt.Errorf("storage: make way on a full disk: %w", err)
	}
	if free, _, err = statfs(p.dir); err == nil && free < need {
		return fmt.Errorf("storage: the disk of %s is full, and %d KiB are needed to open or close what is there; make room: %w",
			p.dir, need>>10, syscall.ENOSPC)
	}
	return err
}

// toClose is the most that Badger writes to turn its memtables into tables.
func (p *pillow) toClose() (int64, error) {
	size, _, err := p.memtables()
	return size + restBytes, err
}

// toOpen is what has to be free for an opening. Two memtables of the last life
// may wait for space while the store is open; with a third the opening would.
func (p *pillow) toOpen() (int64, error) {
	size, n, err := p.memtables()
	switch {
	case !Corrected(): // what is flushed must not meet a full disk
		return size + restBytes, err
	case n > 2:
		return size + newStoreBytes, err
	}
	return newStoreBytes, err
}

// memtables tells what is in the logs of the memtables, and how many there are.
func (p *pillow) memtables() (size int64, n int, err error) {
	files, err := os.ReadDir(p.dir)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("storage: look into %s: %w", p.dir, err)
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".mem") {
			// It may be gone; what cannot be read is told by the opening.
			if b, err := readFile(filepath.Join(p.dir, f.Name()), maxMemBytes); err == nil {
				size += int64(len(bytes.TrimRight(b, "\x00"))) // the rest is space that it may take
				n++
			}
		}
	}
	return size, n, nil
}

// plenty is the free space that nobody fills between two looks: 1 GiB, or twice
// the reserve.
func (o *Options) plenty(total int64) int64 { return max(1<<30, 2*o.reserve(total)) }

// keep makes the file where the disk is not far from full, and removes it where
// it is; again says that it may be possible now to make it.
func (p *pillow) keep(o *Options, free, total int64, again bool) {
	bound := o.plenty(total)
	if p.wanted {
		bound += bound / 8
	}
	was := p.wanted
	p.wanted = free < bound
	switch {
	case p.wanted && (again || !was):
		p.fill(o)
	case was && !p.wanted:
		_ = os.Remove(p.path())
	}
}

// fill makes the file if there is more than enough space for it. A crash in
// here leaves it smaller, which counts as missing.
func (p *pillow) fill(o *Options) {
	free, total, err := statfs(p.dir)
	if err != nil || p.missing() == 0 || free < p.size+o.reserve(total)*3/4 {
		return
	}
	f, err := os.OpenFile(p.path(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(syscall.Fallocate(int(f.Fd()), 0, 0, p.size), f.Close())
	}
	if err != nil {
		// Not every file system can: then there is only the reserve.
		o.Logger.Debug("storage: keep a reserve", "error", err)
		_ = os.Remove(p.path())
	}
}
