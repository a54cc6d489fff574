package edge

import (
	"fmt"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// writeLoop is the writer goroutine. It ends when the connection is closing and
// the last bytes are out, or cannot be written.
func (c *conn) writeLoop() {
	defer func() { c.nc.SetReadDeadline(time.Now()) }()
	var buf []byte
	for {
		c.mu.Lock()
		buf, c.out = c.out, buf[:0]
		closing, mayFill := c.closing, c.started && c.subscribing == 0
		c.mu.Unlock()
		if mayFill && !closing {
			var err error
			if buf, err = c.fillFromSession(buf); err != nil {
				c.close(fmt.Errorf("read the session's queue: %w", err))
			}
		}
		if len(buf) == 0 {
			if closing {
				return
			}
			select {
			case <-c.wake:
			case <-c.closed:
			}
			continue
		}
		n, err := c.nc.Write(buf)
		c.srv.stats.bytesSent.Add(uint64(n))
		if err != nil {
			c.close(fmt.Errorf("%w: write to the client: %w", errLost, err))
			return
		}
		if cap(buf) > 256<<10 {
			buf = nil
		}
	}
}

// signal wakes the writer; it never blocks.
func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
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
	c.signal()
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
func (c *conn) push(m *holdfast.Message, kept bool) bool {
	box, ok := c.sess.outbox.(*memoryOutbox)
	return !ok || box.push(m, kept)
}

// sendPublishQoS0 sends a QoS 0 message with this topic, or drops and counts it
// when the client reads too slowly.
func (c *conn) sendPublishQoS0(p *packet.Publish, topic string) {
	if c.denied(topic) {
		return
	}
	c.mu.Lock()
	if c.closing || !c.started || len(c.out)+p.Size(c.version) > c.srv.limits.MaxOutboundBytes {
		c.mu.Unlock()
		c.srv.stats.droppedQoS0.Add(1)
		return
	}
	out, ok, err := c.appendPublish(c.out, p, topic, c.liveAliases)
	if err == nil {
		c.out = out
	}
	c.mu.Unlock()
	if ok {
		c.srv.stats.sent.Add(1)
		c.signal()
	}
}
