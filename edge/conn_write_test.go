package edge

import (
	"net"
	"slices"
	"testing"
	"time"

	"holdfast/edge/packet"
)

// paper is the connection of a client of which a test sees what is done to it.
type paper struct {
	net.Conn
	done []string
}

func (p *paper) Write(b []byte) (int, error) {
	p.done = append(p.done, "write")
	return len(b), nil
}

func (p *paper) SetReadDeadline(time.Time) error {
	p.done = append(p.done, "read deadline")
	return nil
}

func (p *paper) closesOnDeadline() {}

func onPaper(t *testing.T) (*conn, *paper) {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	p := &paper{Conn: near}
	disk := newFakeDisk()
	srv, err := NewServer(Options{Sink: disk, Store: disk, Access: AnonymousAlways, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	c := newConn(srv, p)
	c.version = packet.V5
	return c, p
}

func TestTheBufferOfABurstIsNotKept(t *testing.T) {
	c, _ := onPaper(t)
	for _, n := range []int{2 * keptBuffer, 1, 1} {
		c.send(func(dst []byte) []byte { return append(dst, make([]byte, n)...) })
		c.writers.Wait()
	}
	if most := max(cap(c.out), cap(c.taken)); most > keptBuffer {
		t.Errorf("%d bytes are kept, at most %d wanted", most, keptBuffer)
	}
}

// The connection is closed after a writer has seen that there is nothing to write,
// and before it has laid down the pen. A WebSocket ends with the deadline.
func TestALastDisconnectIsWrittenBeforeTheConnectionEnds(t *testing.T) {
	c, p := onPaper(t)
	c.started = true
	<-c.pen
	c.close(errTakeover)
	c.writers.Add(1)
	if c.layDown() {
		c.write()
	}
	if want := []string{"write", "read deadline"}; !slices.Equal(p.done, want) {
		t.Errorf("done to the connection: %q, want %q", p.done, want)
	}
}
