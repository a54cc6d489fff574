package edge

import (
	"sync/atomic"
	"time"

	"holdfast"
)

// A message of a session's queue that its client may not receive (any more) is
// neither sent nor lost: it is set aside while the client is connected, and goes
// back to the queue when its rights have changed, when it leaves, and with what
// its client sends a minute later (a PINGREQ will do), for the queue to see whether
// it has expired.

const (
	// withheldMessages and withheldBytes bound what is set aside, which is in
	// memory. With that much nothing more is taken from the queue: what else is in
	// it waits too.
	withheldMessages = 1000
	withheldBytes    = 1 << 20
	// withheldFor is how long it is set aside at least.
	withheldFor = time.Minute
)

// withheld are the items that were set aside for one connection.
type withheld struct {
	ids   []holdfast.ItemID
	bytes int
	since time.Time // of the first
	told  bool      // the log has it

	again atomic.Bool  // the rights have changed
	count atomic.Int32 // len(ids), for anyone
}

func (w *withheld) full() bool { return len(w.ids) >= withheldMessages || w.bytes >= withheldBytes }

// withhold sets an item aside. Only who has the pen calls it.
func (c *conn) withhold(it holdfast.Item) {
	w := &c.withheld
	if len(w.ids) == 0 {
		w.since = time.Now()
	}
	w.ids = append(w.ids, it.ID)
	w.bytes += it.Msg.Size()
	w.count.Store(int32(len(w.ids)))
	if !w.told {
		w.told = true
		c.srv.log.Warn("messages wait in the session that its user may not receive: permit the topic in access.user, or let the client unsubscribe",
			"client_id", c.clientID, "username", c.username, "topic", it.Msg.Topic)
	}
}

// releaseWithheld gives the items back if that is due. Only who has the pen calls it.
func (c *conn) releaseWithheld() {
	w := &c.withheld
	if changed := w.again.Swap(false); len(w.ids) == 0 || !changed && time.Since(w.since) < withheldFor {
		return
	}
	ids := w.ids
	w.ids, w.bytes = nil, 0
	w.count.Store(0)
	c.sess.outbox.Release(ids...)
}
