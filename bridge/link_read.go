package bridge

import (
	"errors"
	"fmt"
	"io"
)

// errNotMQTT: what came is no packet that a broker would send here.
var errNotMQTT = errors.New("the other side does not speak MQTT here: check the port; a TLS or WebSocket port needs another scheme")

// Read gives the library at most the rest of one packet.
func (l *link) Read(p []byte) (int, error) {
	for l.left == 0 {
		if err := l.nextPacket(); err != nil {
			return 0, l.readFailed(err)
		}
	}
	n, err := l.r.Read(p[:min(len(p), l.left)])
	l.left -= n
	if err != nil {
		return n, l.readFailed(err)
	}
	return n, nil
}

// readFailed ends the link, and gives an error that the library reports: it
// keeps silent about an error that says "closed".
func (l *link) readFailed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // the latter from TLS without a good-bye
		err = fmt.Errorf("the broker has closed the connection: %w", io.EOF)
	} else if !errors.Is(err, errNotMQTT) {
		err = fmt.Errorf("receive from the broker: %w", err)
	}
	l.end(err)
	return errLost
}

// The packet types that matter here (MQTT 3.1.1, 2.2.1).
const (
	typeConnack   = 2
	typePublish   = 3
	typePuback    = 4
	typePubcomp   = 7
	typeSuback    = 9
	typeUnsuback  = 11
	typePingresp  = 13
	subackLen     = 3 // every SUBSCRIBE here has one filter
	maxHeaderSize = 5
)

// nextPacket looks at a header without consuming it and sets left.
func (l *link) nextPacket() error {
	var size, shift, n int
	for n = 2; ; n++ {
		h, err := l.r.Peek(n)
		if err != nil {
			return err
		}
		size |= int(h[n-1]&0x7f) << shift
		if h[n-1]&0x80 == 0 {
			break
		}
		if shift += 7; n == maxHeaderSize {
			return fmt.Errorf("%w (a length of more than four bytes)", errNotMQTT)
		}
	}
	h, _ := l.r.Peek(n) // it is there already
	kind := h[0] >> 4
	ok := true
	switch {
	case l.first:
		ok = h[0] == typeConnack<<4 && size == 2
		if ok {
			body, err := l.r.Peek(n + size)
			if err != nil {
				return err
			}
			l.connack.came, l.connack.code = true, body[n+1]
			l.first = false
		}
	case kind == typePublish:
		if size > l.maxIn {
			return l.skipPublish(h[0]>>1&3, n, size)
		}
	case kind >= typePuback && kind <= typePubcomp, kind == typeUnsuback:
		ok = size == 2
	case kind == typeSuback:
		ok = size == subackLen
	case kind == typePingresp:
		ok = size == 0
	default:
		ok = false
	}
	if !ok {
		return fmt.Errorf("%w (packet type %d with %d bytes)", errNotMQTT, kind, size)
	}
	l.left = n + size
	return nil
}

// skipPublish drops a message that is too large to be held, and acknowledges
// it: otherwise it would come again at every connection, before all others.
func (l *link) skipPublish(qos byte, header, size int) error {
	h, err := l.r.Peek(header + 2)
	if err != nil {
		return err
	}
	topicLen := int(h[header])<<8 | int(h[header+1])
	need := 2 + topicLen
	if qos > 0 {
		need += 2
	}
	if need > size {
		return fmt.Errorf("%w (a topic beyond its packet)", errNotMQTT)
	}
	var id [2]byte
	if _, err = l.r.Discard(header + 2 + topicLen); err != nil {
		return err
	}
	if qos > 0 {
		if _, err = io.ReadFull(l.r, id[:]); err != nil {
			return err
		}
	}
	if _, err = l.r.Discard(size - need); err != nil {
		return err
	}
	if l.oversize != nil {
		l.oversize(topicLen, size)
	}
	if qos > 0 {
		_, err = l.Write([]byte{(typePuback + qos - 1) << 4, 2, id[0], id[1]}) // PUBACK or PUBREC
	}
	return err
}
