package crash

import (
	"bufio"
	"io"
	"net"
	"sync"

	"holdfast/edge/packet"
)

// early is the negative control: a proxy in front of the gateway that answers
// every QoS 1 PUBLISH by itself, as a broker does that acknowledges before the
// message is safe. The check must fail with it.
type early struct {
	target  string
	ln      net.Listener
	running sync.WaitGroup
}

func newEarly(target string) (*early, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &early{target: target, ln: ln}
	e.running.Go(e.accept)
	return e, nil
}

func (e *early) address() string { return e.ln.Addr().String() }

// close may be called when no client is connected any more.
func (e *early) close() {
	e.ln.Close()
	e.running.Wait()
}

func (e *early) accept() {
	for {
		in, err := e.ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", e.target)
		if err != nil {
			in.Close()
			continue
		}
		end := func() { in.Close(); out.Close() }
		e.running.Go(func() { defer end(); e.up(in, out) })
		e.running.Go(func() { defer end(); e.down(out, in) })
	}
}

// up forwards packets to the gateway, and answers each QoS 1 PUBLISH before.
func (e *early) up(client, gateway net.Conn) {
	r := bufio.NewReader(client)
	for {
		h, whole, err := readPacket(r)
		if err != nil {
			return
		}
		if h.Type == packet.PUBLISH {
			var p packet.Publish
			if p.Decode(h.Flags, whole[len(whole)-h.Remaining:], packet.V311) != nil {
				return
			}
			if p.QoS == 1 {
				if _, err := client.Write(appendAck(nil, packet.PUBACK, p.PacketID)); err != nil {
					return
				}
			}
		}
		if _, err := gateway.Write(whole); err != nil {
			return
		}
	}
}

// down forwards everything but the gateway's own PUBACKs.
func (e *early) down(gateway, client net.Conn) {
	r := bufio.NewReader(gateway)
	for {
		h, whole, err := readPacket(r)
		if err != nil {
			return
		}
		if h.Type == packet.PUBACK {
			continue
		}
		if _, err := client.Write(whole); err != nil {
			return
		}
	}
}

// readPacket reads one packet with its fixed header.
func readPacket(r *bufio.Reader) (h packet.Header, whole []byte, err error) {
	for n := 2; ; n++ {
		head, err := r.Peek(n)
		if err != nil {
			return h, nil, err
		}
		var size int
		if h, size, err = packet.ReadHeader(head); err != nil {
			return h, nil, err
		}
		if size > 0 {
			whole = make([]byte, size+h.Remaining)
			_, err = io.ReadFull(r, whole)
			return h, whole, err
		}
	}
}
