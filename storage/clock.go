package storage

import (
	"encoding/binary"
	"time"
)

// Clock is what the store needs to know of time. It is an option for tests.
type Clock interface {
	// Boot names the current boot of the machine, Uptime is the time since
	// then, sleep included, which nobody can set.
	Boot() string
	Uptime() time.Duration
	// Wall is the time of day, and trusted whether it can be relied on: a board
	// without a battery has 1970, or the time of its last shutdown, until it is
	// synchronised.
	Wall() (now time.Time, trusted bool)
}

// storeAge is the store's own time: milliseconds that its messages have surely
// spent in it. It grows with the uptime, over restarts of the process too, and
// never goes back, wherever the wall clock jumps. The time between two boots
// counts only if the wall clock was trusted at both of its ends; as long as it
// is not, messages stay too long rather than that fresh ones are thrown away.
// It is guarded by Store.mu.
type storeAge struct {
	clock Clock
	base  int64 // age at uptime zero of this boot
	// The last note of an earlier boot, if its clock was trusted, until ours is.
	noted     int64
	notedWall time.Time

	saved    int64 // age at the last note on disk
	savedWas bool  // whether the clock was trusted then
}

// now is at least 1: zero stands for a message without an age.
func (a *storeAge) now() int64 {
	up := a.clock.Uptime().Milliseconds()
	if !a.notedWall.IsZero() {
		if wall, trusted := a.clock.Wall(); trusted {
			a.reach(a.noted + max(0, wall.Sub(a.notedWall).Milliseconds()))
			a.notedWall = time.Time{}
		}
	}
	return max(1, a.base+up)
}

// reach moves the age forward to at least ms.
func (a *storeAge) reach(ms int64) {
	a.base = max(a.base, ms-a.clock.Uptime().Milliseconds())
}

const (
	ageVersion = 1
	// ageEvery is how often the age is noted on disk: with another commit, or,
	// while there is something that can grow too old, by itself.
	ageEvery = time.Minute
)

// row is the note on disk.
func (a *storeAge) row() []byte {
	wall, trusted := a.clock.Wall()
	a.saved, a.savedWas = a.now(), trusted
	b := binary.AppendUvarint([]byte{ageVersion}, uint64(a.saved))
	b = binary.AppendUvarint(b, uint64(a.clock.Uptime().Milliseconds()))
	b = appendString(b, a.clock.Boot())
	if trusted {
		b = binary.AppendVarint(append(b, 1), wall.UnixMilli())
	} else {
		b = append(b, 0)
	}
	return seal(b)
}

// restore reads the note of an earlier life; without one the age begins at zero
// and is moved on by the first message that is older.
func (a *storeAge) restore(v []byte) error {
	a.base = -a.clock.Uptime().Milliseconds()
	if v == nil {
		return nil
	}
	d, err := unseal(v, ageVersion, "age of the store")
	if err != nil {
		return err
	}
	age, up, boot, trusted := int64(d.uvarint()), int64(d.uvarint()), d.string(), d.byte() == 1
	wall := int64(0)
	if trusted {
		wall = d.varint()
	}
	if d.bad || len(d.b) != 0 || age < 0 || age >= 1<<60 || up < 0 || up >= 1<<60 {
		return corrupt("age of the store")
	}
	if boot != "" && boot == a.clock.Boot() {
		a.base = age - up
		return nil
	}
	a.base = age // this boot's uptime has surely passed
	if trusted {
		a.noted, a.notedWall = age, time.UnixMilli(wall)
	}
	a.now()
	return nil
}

// noteAgeLocked adds the note to the open transaction.
func (s *Store) noteAgeLocked() {
	s.addLocked(op{key: []byte{keyAge}, value: s.age.row(), own: true})
}

// ageIsOldLocked reports whether the note on disk is too old, or was made
// before the clock was trusted.
func (s *Store) ageIsOldLocked() bool {
	if s.age.saved == 0 || s.age.now()-s.age.saved >= ageEvery.Milliseconds() {
		return true
	}
	_, trusted := s.age.clock.Wall()
	return trusted && !s.age.savedWas
}
