package storage

// txn is one transaction of the engine while it is collected. It is guarded by
// Store.mu until it is taken by the committer, which owns it from there.
type txn struct {
	ops     []op
	batches []*batch
	// touched are the queues whose progress and counts are written when the
	// transaction is sealed: what was true then is in it, and no later thing.
	touched []*Queue
	dones   []func(error)
	// lows are the low-water marks it makes durable.
	lows []laneMark
	// size counts keys and values, reserve what sealing will add.
	size, reserve int
	pending       int
	messages      int
	sealed        bool
}

type laneMark struct {
	lane *lane
	low  uint64
}

// batch is the records that a transaction adds to one lane.
type batch struct {
	lane  *lane
	chunk uint32
	trailer
	body []byte
}

func (t *txn) empty() bool {
	return len(t.ops) == 0 && len(t.batches) == 0 && len(t.touched) == 0 && len(t.dones) == 0
}

func (t *txn) rows() int { return len(t.ops) + len(t.batches) + 8*len(t.touched) }

// roomLocked makes sure that n more bytes fit the open transaction, and seals
// it and begins another one if not.
func (s *Store) roomLocked(n int) {
	t := s.cur
	if !t.empty() && (t.size+t.reserve+n > txnBytes || t.rows() >= maxTxnOps/2) {
		s.sealLocked(t)
		s.sealed = append(s.sealed, t)
		s.cur = &txn{}
	}
}

func (s *Store) addLocked(o op) {
	s.roomLocked(o.size())
	s.cur.ops = append(s.cur.ops, o)
	s.cur.size += o.size()
}

// touchLocked sees to it that the progress of q is written in the transaction
// that the next n bytes go to.
func (s *Store) touchLocked(q *Queue, n int) {
	if q.removed {
		return
	}
	if q.touched == s.cur {
		s.roomLocked(n)
		if q.touched == s.cur {
			return
		}
	}
	reserve := q.reserveLocked()
	s.roomLocked(n + reserve)
	s.cur.touched = append(s.cur.touched, q)
	s.cur.reserve += reserve
	q.touched = s.cur
}

// sealLocked turns everything that t stands for into rows.
func (s *Store) sealLocked(t *txn) {
	if t.sealed {
		return
	}
	t.sealed = true
	if len(t.batches)+len(t.touched) > 0 {
		s.seq++
	}
	for _, b := range t.batches {
		b.lane.open = nil
		b.seq = s.seq
		b.body = appendTrailer(b.body, &b.trailer)
		t.ops = append(t.ops, op{key: batchKey(b.lane.q.id, b.lane.id, b.chunk, b.first), value: b.body})
	}
	for _, q := range t.touched {
		q.sealLocked(t)
	}
}
