package modem

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"holdfast"
	"holdfast/modem/at"
)

// qmtStates are the codes of +QMTSTAT.
var qmtStates = map[string]string{
	"1": "it was closed or reset by the broker",
	"2": "the broker did not answer a ping",
	"3": "the login could not be sent",
	"4": "the broker did not answer the login",
	"5": "it was closed",
	"6": "sending failed again and again",
	"7": "the link is down, or the server does not answer",
	"8": "the module has closed it",
}

func (c *qmt) urc(s *Session, l at.Line) bool {
	name := at.Name(l.Text)
	switch name {
	case "+QMTRECV":
		c.received(s, l)
		return true
	case "+QMTPUBEX", "+QMTPUB", "+QMTSTAT", "+QMTDISC", "+QMTCLOSE", "+QMTCONN", "+QMTOPEN", "+QMTSUB", "+QMTUNS":
	default:
		return false
	}
	a := at.Args(l.Text)
	if s == nil || len(a) < 2 || a[0] != "0" {
		return true
	}
	switch name {
	case "+QMTPUBEX", "+QMTPUB":
		if len(a) >= 3 {
			c.published(s, a[1], a[2])
		}
	case "+QMTSTAT":
		s.fail(fmt.Errorf("the connection to the broker was lost: %s (%s)", qmtStates[a[1]], a[1]))
	case "+QMTDISC", "+QMTCLOSE":
		s.fail(errors.New("the module has closed the connection"))
	}
	return true
}

// published: result 0 is the acknowledgement, 1 that it is sent again, and
// another result follows.
func (c *qmt) published(s *Session, msgid, result string) {
	id, err := strconv.ParseUint(msgid, 10, 16)
	if err != nil || result == "1" {
		return
	}
	s.mu.Lock()
	p := s.inflight[uint16(id)]
	if id == 0 {
		for _, q := range s.inflight { // the oldest of QoS 0
			if q.msg.QoS == 0 && (p == nil || q.seq < p.seq) {
				p = q
			}
		}
	}
	s.mu.Unlock()
	switch {
	case p == nil:
		s.log.Debug("result for no publish", "msgid", id)
	case result == "0":
		s.settle(p, nil)
	default:
		s.fail(publishResult(result))
	}
}

func (c *qmt) received(s *Session, l at.Line) {
	msg, ok := parseQMTRecv(l.Text)
	if !ok || l.Cut {
		c.m.unreadable(l)
		return
	}
	c.m.takeMessage(s, msg)
}

// qmtHead reads the beginning of `+QMTRECV: 0,<msgid>,"<topic>"[,<bytes>],"`; n is
// -1 where there is no count.
func qmtHead(line string) (msgid, topic string, n int, rest string, ok bool) {
	rest, ok = strings.CutPrefix(line, "+QMTRECV:")
	if !ok {
		return "", "", 0, "", false
	}
	if _, rest, ok = strings.Cut(rest, ","); !ok {
		return "", "", 0, "", false
	}
	if msgid, rest, ok = strings.Cut(rest, ","); !ok {
		return "", "", 0, "", false
	}
	if rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " "), `"`); !ok {
		return "", "", 0, "", false
	}
	if topic, rest, ok = strings.Cut(rest, `",`); !ok {
		return "", "", 0, "", false
	}
	n = -1
	if count, behind, counted := strings.Cut(rest, ",\""); counted {
		if v, err := strconv.Atoi(strings.TrimSpace(count)); err == nil && v >= 0 && v <= 64<<10 {
			return strings.TrimSpace(msgid), topic, v, behind, true
		}
	}
	rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " "), `"`)
	return strings.TrimSpace(msgid), topic, n, rest, ok
}

// qmtPayload tells the engine how many raw bytes follow the beginning of a line.
func qmtPayload(head string) int {
	if !strings.HasPrefix(head, "+QMTRECV:") {
		return 0
	}
	_, _, n, rest, ok := qmtHead(head)
	if !ok || n <= 0 || rest != "" {
		return 0
	}
	return n
}

func parseQMTRecv(line string) (*holdfast.Message, bool) {
	msgid, topic, n, rest, ok := qmtHead(line)
	switch {
	case !ok || topic == "":
		return nil, false
	case n >= 0 && (len(rest) < n || strings.TrimRight(rest[n:], " ") != `"`):
		return nil, false
	case n >= 0:
		rest = rest[:n]
	default: // firmware without the count: up to the last quotation mark
		rest = strings.TrimSuffix(rest, `"`)
	}
	msg := &holdfast.Message{Topic: topic, Payload: []byte(rest)}
	if msgid != "0" {
		msg.QoS = 1
	}
	return msg, true
}
