package storage

import (
	"encoding/binary"

	"holdfast"
)

// newItem is a message on its way into one lane.
type newItem struct {
	lane   holdfast.Lane
	route  string
	msg    *holdfast.Message
	qos    byte // to be delivered with
	retain bool
	qos0   bool // published with QoS 0: it never costs a place of one that was not
	spare  bool // it never costs a place: the copy of a retained message
	moved  bool // it was admitted, and comes out of another queue: never dropped
}

// appendLocked adds it at the end of the lane and to the open transaction.
// Nothing of the lane may wait in memory.
func (l *lane) appendLocked(route uint32, it *newItem) {
	var at int64
	if l.open != nil {
		at = int64(l.open.age)
	} else {
		at = l.q.s.age.now()
	}
	l.writeLocked(l.next, route, it, at)
	l.placeLocked(route, it, at)
}

// writeLocked adds the record of the message at pos to the open transaction.
// Positions of one lane are written in their order.
func (l *lane) writeLocked(pos uint64, route uint32, it *newItem, at int64) {
	s := l.q.s
	b := l.open
	if b != nil && (len(b.body) >= batchBytes || b.first+b.count != pos) {
		b = nil // what lies between was settled and is never written
	}
	if b == nil {
		if len(l.chunks) == 0 || l.chunkBytes >= s.o.ChunkBytes {
			l.beginChunkLocked(pos)
		}
		b = &batch{lane: l, chunk: l.chunks[len(l.chunks)-1].id}
		b.first, b.age = pos, uint64(at)
		if n := len(s.free); n > 0 {
			b.body, s.free = s.free[n-1], s.free[:n-1]
		}
		b.body = append(b.body, batchVersion)
		l.open = b
		s.cur.batches = append(s.cur.batches, b)
		s.cur.size += batchKeyLen + batchTail + 64
	}
	start := len(b.body)
	// The length goes in front in three bytes, whatever it is: the record is
	// then written once, in place.
	b.body = append(b.body, 0, 0, 0)
	b.body = binary.AppendUvarint(b.body, uint64(route))
	flags := len(b.body)
	b.body = appendMessage(b.body, it.msg, it.qos, it.retain)
	if it.qos0 {
		b.body[flags] |= flagQoS0
	}
	n := len(b.body) - start - 3
	b.body[start], b.body[start+1], b.body[start+2] = byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)
	b.count++
	counted := false
	for i := range b.routes {
		if b.routes[i].route == route {
			b.routes[i].n++
			counted = true
			break
		}
	}
	if !counted {
		b.routes = append(b.routes, routeCount{route, 1})
		s.cur.size += 8
	}
	s.cur.size += n + 3
	l.chunkBytes += n + 3
	l.written = pos + 1
	l.unsaved = true
}

// beginChunkLocked has everything from pos on go to a new chunk.
func (l *lane) beginChunkLocked(pos uint64) {
	id := uint32(1)
	if n := len(l.chunks); n > 0 {
		id = l.chunks[n-1].id + 1
	}
	l.chunks = append(l.chunks, chunk{id: id, first: pos})
	l.chunkBytes = 0
}

// placeLocked gives the message the next position, and keeps it in the tail.
func (l *lane) placeLocked(route uint32, it *newItem, at int64) *entry {
	s := l.q.s
	kept := it.msg
	if kept.QoS != it.qos || kept.Retain != it.retain {
		c := *kept
		c.QoS, c.Retain = it.qos, it.retain
		kept = &c
	}
	size := kept.Size()
	l.tail = append(l.tail, entry{pos: l.next, route: route, size: uint32(size), msg: kept, qos0: it.qos0, at: at})
	l.next++
	l.unsaved = true
	l.tailBytes += size
	l.addBytes(int64(size))
	s.tailBytes += size
	s.tails[l] = struct{}{}
	return &l.tail[len(l.tail)-1]
}
