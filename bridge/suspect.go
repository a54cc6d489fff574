package bridge

import (
	"fmt"
	"time"

	"holdfast"
)

// The reasons for which a message is put into quarantine. They are keys of the
// ledger, so there are no others.
const (
	ReasonRefused  = "refused"              // the far broker, or the way to it, refuses it for good
	ReasonTooLarge = "too large"            // for the way to the far broker
	ReasonKills    = "kills the connection" // see Options.MaxAttempts
)

// maxKillers is how many messages may follow one another into quarantine as
// killers without any acknowledgement in between. Beyond it the messages are
// not to blame: the broker permits none of them, or the link carries none.
const maxKillers = 10

// The far broker has answered that it does not take a message, which may be its
// own fault and pass: no connection was killed, and none is made again at once.
var (
	errLater = fmt.Errorf("%w: the broker may take the message later", holdfast.ErrUnknown)
	// errFull: it is no message's fault.
	errFull = fmt.Errorf("%w", errLater)
	// errInUse: it has another message under the packet identifier.
	errInUse = fmt.Errorf("%w: the broker has something else under this identifier, which is released now", errFull)
)

// laterPatience is how long the far broker may answer errLater to one message,
// and to no other meanwhile, until that message is refused by it.
const laterPatience = time.Hour

// suspect is the message that was the oldest one sent and unacknowledged when
// the last connection died. The counts live in memory: a restart begins anew.
// It belongs to Run's goroutine.
type suspect struct {
	id      holdfast.ItemID // 0: none
	deaths  int             // in a row
	killers int             // quarantined since the last acknowledgement

	later holdfast.ItemID // the last one that was answered with errLater
	since time.Time       // when it was for the first time
}

func (s *suspect) is(id holdfast.ItemID) bool { return s.deaths > 0 && s.id == id }

// killed notes that a connection has died with id as the oldest, and reports
// whether that was once too often.
func (s *suspect) killed(id holdfast.ItemID, limit int) bool {
	if !s.is(id) {
		s.id, s.deaths = id, 0
	}
	if s.deaths++; s.deaths < limit || s.killers >= maxKillers {
		return false
	}
	s.killers++
	s.id, s.deaths = 0, 0
	return true
}

// putOff notes that the far broker may take id later, and reports whether it has
// said so for too long. It is bounded like killed.
func (s *suspect) putOff(id holdfast.ItemID, now time.Time) bool {
	if s.later != id {
		s.later, s.since = id, now
	}
	if now.Sub(s.since) < laterPatience || s.killers >= maxKillers {
		return false
	}
	s.killers++
	s.later = 0
	return true
}

// cleared notes that a connection has brought acknowledgements.
func (s *suspect) cleared() { s.killers = 0 }
