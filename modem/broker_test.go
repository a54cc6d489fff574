package modem_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// broker is as much of an MQTT 3.1.1 broker as a module needs to see.
type broker struct {
	t    *testing.T
	l    net.Listener
	port int
	wg   sync.WaitGroup

	mu       sync.Mutex
	conns    map[net.Conn]bool
	logins   [][]byte       // CONNECT packets without their fixed header
	got      map[string]int // payload -> times received
	subs     map[string]int // filter -> times subscribed
	unsubs   int
	mute     bool              // acknowledge no publish
	released map[uint16]string // QoS 2, PUBREL outstanding
}

func newBroker(t *testing.T) *broker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{t: t, l: l, port: l.Addr().(*net.TCPAddr).Port,
		conns: map[net.Conn]bool{}, got: map[string]int{}, subs: map[string]int{}, released: map[uint16]string{}}
	b.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns[c] = true
			b.mu.Unlock()
			b.wg.Go(func() { b.serve(c) })
		}
	})
	return b
}

func (b *broker) close() {
	b.l.Close()
	b.dropAll()
	b.wg.Wait()
}

// dropAll cuts every connection.
func (b *broker) dropAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		c.Close()
	}
}

func (b *broker) setMute(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mute = on
}

// send publishes to every connection at QoS 0.
func (b *broker) send(topic, payload string) {
	body := append([]byte{byte(len(topic) >> 8), byte(len(topic))}, topic...)
	body = append(body, payload...)
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		c.Write(append(append([]byte{0x30}, binary.AppendUvarint(nil, uint64(len(body)))...), body...))
	}
}

func (b *broker) received(payload string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.got[payload]
}

func (b *broker) unsubscribed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unsubs
}

func (b *broker) serve(c net.Conn) {
	defer func() {
		c.Close()
		b.mu.Lock()
		delete(b.conns, c)
		b.mu.Unlock()
	}()
	r := bufio.NewReader(c)
	for {
		head, err := r.ReadByte()
		if err != nil {
			return
		}
		n, err := binary.ReadUvarint(r) // the same coding as MQTT's remaining length
		if err != nil {
			return
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		b.mu.Lock()
		answer := b.answerLocked(head, body)
		b.mu.Unlock()
		if answer != nil {
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
}

func (b *broker) answerLocked(head byte, body []byte) []byte {
	switch head >> 4 {
	case 1:
		b.logins = append(b.logins, body)
		return []byte{0x20, 2, 0, 0}
	case 3:
		n := int(binary.BigEndian.Uint16(body))
		rest := body[2+n:]
		qos := head >> 1 & 3
		var id []byte
		if qos > 0 {
			id, rest = rest[:2], rest[2:]
		}
		switch {
		case qos == 0:
			b.got[string(rest)]++
		case b.mute:
		case qos == 1:
			b.got[string(rest)]++
			return []byte{0x40, 2, id[0], id[1]}
		default:
			b.released[binary.BigEndian.Uint16(id)] = string(rest)
			return []byte{0x50, 2, id[0], id[1]}
		}
	case 6:
		id := binary.BigEndian.Uint16(body)
		if p, ok := b.released[id]; ok {
			b.got[p]++
			delete(b.released, id)
		}
		return []byte{0x70, 2, body[0], body[1]}
	case 8:
		n := int(binary.BigEndian.Uint16(body[2:]))
		b.subs[string(body[4:4+n])]++
		return []byte{0x90, 3, body[0], body[1], body[4+n]}
	case 10:
		b.unsubs++
		return []byte{0xb0, 2, body[0], body[1]}
	case 12:
		return []byte{0xd0, 0}
	}
	return nil
}
