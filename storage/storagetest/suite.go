// Package storagetest holds the promises of package storage as tests, to be run
// against every way of keeping a store.
package storagetest

import (
	"testing"

	"holdfast/storage"
)

// Open opens the store under test with o; when it is called again in the same
// test it must open the same store.
type Open func(t testing.TB, o storage.Options) *storage.Store

// Run runs every behaviour; fresh is called once for each.
func Run(t *testing.T, fresh func(t testing.TB) Open) {
	for _, b := range append(behaviours, spillBehaviours...) {
		t.Run(b.name, func(t *testing.T) { b.test(&bench{T: t, open: fresh(t)}) })
	}
}

type behaviour struct {
	name string
	test func(b *bench)
}

var behaviours = []behaviour{
	{"hands out in the order of the calls", order},
	{"serves the more urgent lane first", lanes},
	{"gives released items first and in their old order", releaseOrder},
	{"hands out what is fresh beside the backlog", freshBeside},
	{"drops the backlog before what was ahead of it", freshFull},
	{"takes acknowledgements in any order", ackAnyOrder},
	{"ignores an acknowledgement of what was not handed out", ackUnknown},
	{"keeps everything over a reopening", reopen},
	{"keeps acknowledgements over a close", acksSurviveClose},
	{"hands out again what was acknowledged but not written", acksLostInCrash},
	{"hands out early only QoS 0 and 1", early},
	{"hands out nothing before it is committed", notEarly},
	{"admits for all destinations or for none", allOrNone},
	{"refuses what is too large or after close", tooLarge},
	{"refuses beyond the pending bytes", pendingBound},
	{"drops the oldest when full", dropOldest},
	{"drops the oldest when that is on disk", dropOldestOnDisk},
	{"drops nothing more urgent", dropUrgent},
	{"bounds all queues together", boundOverAll},
	{"refuses beyond the bound over all queues", refuseOverAll},
	{"moves a message into a session or refuses it", movesOrRefuses},
	{"drops from the queue on disk for the bound over all", boundOverAllOnDisk},
	{"drops QoS 0 before anything else", qos0First},
	{"drops what is too old", expires},
	{"drops by the age of the route", expiresByRoute},
	{"hands out nothing too old before the backlog", expiresAhead},
	{"counts the age over restarts and boots", ageOverBoots},
	{"drops the newest when told", dropNewest},
	{"keeps quarantine aside", quarantine},
	{"keeps sessions", sessions},
	{"forgets a session that is reset", sessionReset},
	{"forgets a released position with its acknowledgement", released},
	{"keeps the packet identifiers of a session at a far broker", farSession},
	{"frees a packet identifier with its acknowledgement or not at all", farSessionCrash},
	{"stores what comes from a far broker with its packet identifier", farInbound},
	{"hands out the one item that is asked for", takeOne},
	{"keeps retained messages", retained},
	{"keeps wills until they are published", wills},
	{"keeps every field of a message", fields},
	{"counts down how long a message lives", messageExpiry},
	{"keeps an expired message that was begun", expiredRelease},
	{"counts down how long a retained message lives", retainedExpiry},
	{"knows how long a session has been away", detached},
	{"removes a queue whose session has ended", orphans},
	{"keeps the subscription identifiers of a delivery", subscriptionIDs},
	{"gives free places only to copies of retained messages", copiesTakeFreePlaces},
	{"reads a large backlog from far behind", backlog},
	{"pauses when too many ranges are acknowledged", rangeBound},
	{"splits what is larger than a transaction", wideFanOut},
	{"removes a queue for good", removeQueue},
	{"wakes a waiting reader", wakes},
	{"shows what is queued and takes nothing", peekTakesNothing},
	{"exports all or nothing", exportAllOrNone},
	{"takes in what is imported", importBringsBack},
	{"purges what is old", purgeOld},
	{"brings back what was in quarantine", quarantineBack},
	{"balances its books whatever happens", balance},
}
