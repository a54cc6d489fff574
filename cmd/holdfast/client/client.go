// Package client is a small MQTT 3.1.1 client for the commands of this program
// and for its tests: packets in and out, one at a time, nothing in the
// background. It is not the bridge's client, which needs more.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"holdfast"
	"holdfast/edge/packet"
)

// answerWait bounds how long a broker may take for CONNACK and SUBACK.
const answerWait = 10 * time.Second

// Client is one connection. One goroutine may send while another reads.
type Client struct {
	Conn net.Conn
	// SessionPresent is what CONNACK said.
	SessionPresent bool

	buf []byte // read and not handed out
	id  uint16 // the last packet identifier of Subscribe
}

// Dial connects and logs in. Its error says which broker refused and how.
func Dial(ctx context.Context, address string, login packet.Connect) (*Client, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &Client{Conn: nc}
	if err := c.login(login); err != nil {
		nc.Close()
		return nil, fmt.Errorf("log in at %s: %w", address, err)
	}
	return c, nil
}

func (c *Client) login(p packet.Connect) error {
	if p.Version == 0 {
		p.Version = packet.V311
	}
	c.Conn.SetDeadline(time.Now().Add(answerWait))
	defer c.Conn.SetDeadline(time.Time{})
	if err := c.Send(p.Append(nil)); err != nil {
		return err
	}
	h, body, err := c.Next()
	if err != nil {
		return err
	}
	if h.Type != packet.CONNACK {
		return fmt.Errorf("%v instead of CONNACK", h.Type)
	}
	var a packet.Connack
	if err := a.Decode(body, packet.V311); err != nil {
		return err
	}
	if a.Code != packet.Accepted {
		return Refused(a.Code)
	}
	c.SessionPresent = a.SessionPresent
	return nil
}

// Refused is the return code of a CONNACK that refuses (MQTT 3.1.1, 3.2.2.3).
type Refused byte

func (r Refused) Error() string {
	return fmt.Sprintf("the broker refused with return code %d", byte(r))
}

// Send writes the packet that an Append has made.
func (c *Client) Send(b []byte, err error) error {
	if err == nil {
		_, err = c.Conn.Write(b)
	}
	return err
}

// Ack sends one of the four acknowledgements.
func (c *Client) Ack(t packet.Type, id uint16) error {
	a := packet.Ack{PacketID: id}
	return c.Send(a.Append(nil, t, packet.V311), nil)
}

// Subscribe subscribes and waits for SUBACK; a refused filter is an error.
// Messages that come before SUBACK are an error too: call it first.
func (c *Client) Subscribe(subs ...holdfast.Subscription) error {
	c.id++
	p := packet.Subscribe{PacketID: c.id, Filters: subs}
	if err := c.Send(p.Append(nil, packet.V311)); err != nil {
		return err
	}
	c.Conn.SetReadDeadline(time.Now().Add(answerWait))
	defer c.Conn.SetReadDeadline(time.Time{})
	h, body, err := c.Next()
	if err != nil {
		return err
	}
	if h.Type != packet.SUBACK {
		return fmt.Errorf("%v instead of SUBACK", h.Type)
	}
	var a packet.Suback
	if err := a.Decode(body, packet.V311); err != nil {
		return err
	}
	for i, code := range a.Codes {
		if code >= 0x80 {
			return fmt.Errorf("the broker refused the filter %q", subs[i].Filter)
		}
	}
	return nil
}

// Next reads one packet. Its body is valid until the next call.
func (c *Client) Next() (packet.Header, []byte, error) {
	for {
		h, n, err := packet.ReadHeader(c.buf)
		if err != nil {
			return h, nil, err
		}
		if end := n + h.Remaining; n > 0 && len(c.buf) >= end {
			body := c.buf[n:end]
			c.buf = c.buf[end:]
			return h, body, nil
		}
		chunk := make([]byte, 16<<10)
		m, err := c.Conn.Read(chunk)
		c.buf = append(c.buf, chunk[:m]...)
		if m == 0 && err != nil {
			return h, nil, err
		}
	}
}

// ErrOther is returned by NextPublish for a packet that is none.
var ErrOther = errors.New("another packet")

// NextPublish reads one PUBLISH and acknowledges it as its QoS asks; QoS 2 is
// answered up to PUBREC, and PUBREL is answered on the way. Topic and payload
// are valid until the next call.
func (c *Client) NextPublish() (p packet.Publish, err error) {
	for {
		h, body, err := c.Next()
		if err != nil {
			return p, err
		}
		switch h.Type {
		case packet.PUBLISH:
			if err := p.Decode(h.Flags, body, packet.V311); err != nil {
				return p, err
			}
			switch p.QoS {
			case 1:
				return p, c.Ack(packet.PUBACK, p.PacketID)
			case 2:
				return p, c.Ack(packet.PUBREC, p.PacketID)
			}
			return p, nil
		case packet.PUBREL:
			var a packet.Ack
			if err := a.Decode(body, packet.V311); err != nil {
				return p, err
			}
			if err := c.Ack(packet.PUBCOMP, a.PacketID); err != nil {
				return p, err
			}
		case packet.PINGRESP:
		default:
			return p, fmt.Errorf("%w: %v", ErrOther, h.Type)
		}
	}
}

// Disconnect says goodbye and closes.
func (c *Client) Disconnect() error {
	return errors.Join(c.Send(new(packet.Disconnect).Append(nil, packet.V311)), c.Conn.Close())
}
