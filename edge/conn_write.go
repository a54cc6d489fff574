package edge

import (
	"fmt"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// writeChunk is how much is given to a socket at once, so that it shows how far the
// client has come.
const writeChunk = 64 << 10

// signal makes sure that what there is for the client is written, what its session
// has included. It never blocks.
func (c *conn) signal() {
	c.fill.Store(true)
	c.wake()
}

// wake is signal for what is in out. While the connection's own reader handles
// what it has read, that is written at the end of it: many answers in one write.
func (c *conn) wake() {
	c.dirty.Store(true)
	if !c.batch.open.Load() {
		c.startWriting()
	}
}

// startWriting starts the writer goroutine, unless someone writes: who does, looks
// at dirty when it has finished.
func (c *conn) startWriting() {
	select {
	case <-c.pen:
		c.writers.Add(1)
		go c.write()
	default:
	}
}

// write is the writer goroutine, which is there while there is something to write.
// It has the pen.
func (c *conn) write() {
	defer c.writers.Done()
	for {
		c.dirty.Store(false)
		for c.gather(true) {
			n, err := c.nc.Write(c.taken[c.written:min(len(c.taken), c.written+writeChunk)])
			c.wrote(n)
			if err != nil {
				c.writeFailed(err)
				break
			}
		}
		if !c.layDown() {
			return
		}
	}
}

// layDown gives the pen back, and takes it again if there is more to write that
// nobody else has taken it for.
func (c *conn) layDown() (again bool) {
	c.mu.Lock()
	over := c.closing && len(c.out) == 0 && c.written == len(c.taken)
	c.mu.Unlock()
	if over {
		// The last bytes are out, or never will be: the reader may end.
		c.nc.SetReadDeadline(time.Now())
	}
	c.pen <- struct{}{}
	if !c.dirty.Load() {
		return false
	}
	select {
	case <-c.pen:
		return true
	default:
		return false
	}
}

// flush writes what the socket takes at once, without waiting for it; the rest is
// for the writer goroutine. Readers call it, of this connection and of others.
func (c *conn) flush() {
	if !c.dirty.Load() {
		return
	}
	select {
	case <-c.pen:
	default:
		return
	}
	for {
		c.dirty.Store(false)
		if c.raw == nil || !c.writeNow() {
			c.writers.Add(1)
			go c.write()
			return
		}
		if !c.layDown() {
			return
		}
	}
}

// flushRounds bounds what a reader writes for other publishers who go on meanwhile.
const flushRounds = 4

// writeNow reports whether everything is written. It has the pen.
func (c *conn) writeNow() bool {
	for range flushRounds {
		if !c.gather(false) {
			return !c.later
		}
		n, err := c.tryWrite(c.taken[c.written:])
		c.wrote(n)
		switch {
		case err != nil:
			c.writeFailed(err)
			return true
		case c.written < len(c.taken):
			return false
		}
	}
	return false
}

// gather makes sure that there is something in taken to be written, and reports
// whether there is. may tells that it may be read from disk. It has the pen.
func (c *conn) gather(may bool) bool {
	if c.written < len(c.taken) {
		return true
	}
	c.written = 0
	if cap(c.taken) > keptBuffer {
		c.taken = nil // a burst is over
	}
	c.mu.Lock()
	c.taken, c.out = c.out, c.taken[:0]
	if c.aliases != nil {
		c.aliases.takes++
	}
	closing, mayFill := c.closing, c.started && c.subscribing == 0
	c.mu.Unlock()
	c.relieve()
	mayFill = mayFill && !closing
	c.later = mayFill && !may && c.sess.durable && c.fill.Load()
	if mayFill && !c.later && c.fill.Swap(false) {
		before := len(c.taken)
		var err error
		if c.taken, err = c.fillFromSession(c.taken); err != nil {
			c.close(fmt.Errorf("read the session's queue: %w", err))
		}
		if len(c.taken) > before {
			c.fill.Store(true) // there may be more
		}
	}
	if len(c.taken) > 0 {
		return true
	}
	c.caughtUp()
	return false
}

// keptBuffer is the largest buffer that is kept for what comes next.
const keptBuffer = 256 << 10

func (c *conn) wrote(n int) {
	c.written += n
	if n > 0 {
		c.relieve()
	}
	c.srv.stats.bytesSent.Add(uint64(n))
}

// writeFailed ends the connection. Nothing more is written.
func (c *conn) writeFailed(err error) {
	c.close(fmt.Errorf("%w: write to the client: %w", errLost, err))
	c.taken, c.written = nil, 0
	c.mu.Lock()
	c.out = nil
	c.mu.Unlock()
}

// writeLast writes what is left at the end of the connection, waits for the writer
// goroutine and keeps the pen: nothing is written after it.
func (c *conn) writeLast() {
	<-c.pen
	c.writers.Wait()
	for c.gather(false) {
		n, err := c.nc.Write(c.taken[c.written:])
		c.wrote(n)
		if err != nil {
			return
		}
	}
}

// send appends the bytes that enc makes to what the writer takes next. It never
// blocks. A client that sends and does not read what we answer meets the bound
// here and is closed.
func (c *conn) send(enc func(dst []byte) []byte) {
	c.mu.Lock()
	if !c.closing {
		c.out = enc(c.out)
	}
	over := len(c.out) > 2*c.srv.limits.MaxOutboundBytes
	c.mu.Unlock()
	if over {
		c.close(errDeaf)
	}
	c.wake()
}

// start sends CONNACK, after which anything may be sent.
func (c *conn) start(connack packet.Connack) {
	c.mu.Lock()
	c.out = c.appendConnack(c.out, connack)
	c.started = true
	c.mu.Unlock()
	c.sess.outbox.Notify(c.signal)
	c.signal()
	c.srv.wakeShares()
}

// sendAck sends one of the four acknowledgements, out of the order that
// ackQueue keeps.
func (c *conn) sendAck(t packet.Type, id uint16, code packet.ReasonCode) {
	c.send(func(dst []byte) []byte {
		if t == packet.PUBCOMP {
			c.receiving.end(t, id)
		}
		a := packet.Ack{PacketID: id, Code: code}
		return a.Append(dst, t, c.version)
	})
}

// push queues a QoS 1 or 2 message for a clean session; false means that its
// client does not keep up. kept is for a message that the broker holds anyway.
// by is whose message it is; nil for none.
func (c *conn) push(m *holdfast.Message, kept bool, by *conn) bool {
	box, ok := c.sess.outbox.(*memoryOutbox)
	if !ok {
		return true
	}
	if ok, _ = box.add(m, kept, nil); ok {
		c.fill.Store(true)
		c.noteCrowded(by, box.size())
	}
	return ok
}

// sendPublishQoS0 sends a QoS 0 message with this topic, or drops and counts it
// when the client reads too slowly. by is whose message it is; nil for none.
func (c *conn) sendPublishQoS0(p *packet.Publish, topic string, by *conn) {
	if c.denied(topic) {
		return
	}
	c.mu.Lock()
	if c.closing || !c.started || len(c.out)+p.Size(c.version) > c.srv.limits.MaxOutboundBytes {
		c.mu.Unlock()
		c.srv.stats.droppedQoS0.Add(1)
		return
	}
	out, ok, err := c.appendPublish(c.out, p, topic, fromPublishers)
	if err == nil {
		c.out = out
	}
	waiting := len(c.out)
	c.mu.Unlock()
	if ok {
		c.srv.stats.sent.Add(1)
		c.noteCrowded(by, waiting)
		c.wakeAfter(by)
	}
}
