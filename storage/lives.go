package storage

import (
	"encoding/binary"
	"fmt"
)

// In spill mode positions are handed out that are never written, and after a
// crash nobody knows how many. A subscriber may have seen one of them as a packet
// identifier, and may still mean to acknowledge it. Positions are therefore
// never used again: a store whose last life ended by a crash counts its lives,
// and goes on far behind all positions of the earlier ones.
//
// The row says how many lives there were, and whether the last of them may have
// left such positions.

const (
	livesVersion = 1
	// lifePositions is how many positions a life may use: 16 hours of 70,000
	// messages a second that one lane takes without a row of its progress. 60
	// bits hold 268 million lives.
	lifePositions = 1 << 32
	// lifeSpread keeps the packet identifiers of consecutive lives apart, which
	// are positions modulo 65,535.
	lifeSpread = 20011
)

// beginLife is called when everything is loaded and before anything is handed out.
func (s *Store) beginLife() error {
	key := []byte{keyLives}
	v, err := s.eng.get(key)
	if err != nil {
		return fmt.Errorf("storage: read the number of lives: %w", err)
	}
	// After damage a row that is not there may have been there.
	open := v == nil && s.suspect
	if v != nil {
		d, err := unseal(v, livesVersion, "number of lives")
		if err == nil {
			s.lives, open = d.uvarint(), d.byte() == 1
		}
		if err != nil || d.bad || s.lives >= 1<<27 {
			s.unreadable("number of lives", fmt.Errorf("lives: %w", errCorrupt))
			s.lives, open = 0, true // the progress of the lanes is what is left to go by
		}
	}
	if !open && s.o.Sync == Always {
		return nil
	}
	if open {
		s.lives++
		for _, q := range s.byID {
			for _, l := range q.lanes {
				l.skipLocked(s.lives)
			}
			s.dirtyLocked(q)
		}
	}
	// Open until the positions of this life are in the rows of progress, which
	// is at the end of Close.
	s.lifeOpen = true
	if err := s.eng.commit([]op{s.lifeRow(true)}); err != nil {
		return fmt.Errorf("storage: write the number of lives: %w", err)
	}
	return nil
}

func (s *Store) lifeRow(open bool) op {
	b := binary.AppendUvarint([]byte{livesVersion}, s.lives)
	if open {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return op{key: []byte{keyLives}, value: seal(b)}
}

// endLifeLocked says that every position that was handed out is written with
// the open transaction or before it.
func (s *Store) endLifeLocked() {
	if s.lifeOpen {
		s.lifeOpen = false
		s.addLocked(s.lifeRow(false))
	}
}

// skipLocked moves the end of the lane to the positions of a life. Those between
// are settled: nobody has lost them.
func (l *lane) skipLocked(life uint64) {
	to := life*lifePositions + life*lifeSpread%65535
	if to <= l.next {
		to = l.next + lifePositions
	}
	l.settledCount += l.settled.add(l.next, to)
	l.next = to
	mark := l.settled.takeBelow(l.low)
	l.settledCount -= mark - l.low
	l.low = mark
	l.startLocked()
	l.unsaved = true
}
