package modem

import (
	"strconv"

	"holdfast"
	"holdfast/modem/at"
)

// cmqttGroup is a message on its way: it comes in pieces.
type cmqttGroup struct {
	topic, payload         []byte
	topicTotal, payloadAll int
	bad                    bool
}

// cmqttRaw tells the engine how many raw bytes follow a line.
func cmqttRaw(line string) int {
	switch at.Name(line) {
	case "+CMQTTRXTOPIC", "+CMQTTRXPAYLOAD":
	default:
		return 0
	}
	a := at.Args(line)
	if len(a) != 2 {
		return 0
	}
	n, err := strconv.Atoi(a[1])
	if err != nil || n < 0 || n > 64<<10 {
		return 0
	}
	return n
}

// maxCMQTTMessage bounds what is gathered, in bytes.
const maxCMQTTMessage = 256 << 10

// received gathers a message. What counts are the totals of its first line: a
// group that does not reach them is not whole.
func (c *cmqtt) received(s *Session, name string, l at.Line) {
	g := c.group
	switch name {
	case "+CMQTTRXSTART":
		if g != nil {
			c.m.unreadable(l) // the one before has no end
		}
		g = &cmqttGroup{}
		a := at.Args(l.Text)
		if len(a) >= 3 {
			g.topicTotal, _ = strconv.Atoi(a[1])
			g.payloadAll, _ = strconv.Atoi(a[2])
		}
		g.bad = len(a) < 3 || g.topicTotal <= 0 || g.payloadAll < 0 || g.topicTotal+g.payloadAll > maxCMQTTMessage
		c.group = g
	case "+CMQTTRXTOPIC":
		if g != nil {
			g.bad = g.bad || l.Cut || len(g.topic)+len(l.Data) > g.topicTotal
			g.topic = g.keep(g.topic, l.Data)
		}
	case "+CMQTTRXPAYLOAD":
		if g != nil {
			g.bad = g.bad || l.Cut || len(g.payload)+len(l.Data) > g.payloadAll
			g.payload = g.keep(g.payload, l.Data)
		}
	case "+CMQTTRXEND":
		c.group = nil
		if g == nil {
			return
		}
		if g.bad || len(g.topic) != g.topicTotal || len(g.payload) != g.payloadAll {
			c.m.unreadable(l)
			return
		}
		// It does not say the QoS.
		c.m.takeMessage(s, &holdfast.Message{Topic: string(g.topic), Payload: g.payload, QoS: 1})
	}
}

func (g *cmqttGroup) keep(to, b []byte) []byte {
	if g.bad {
		return to
	}
	return append(to, b...)
}
