package modem

import (
	"errors"
	"fmt"
	"strings"

	"holdfast"
	"holdfast/modem/at"
)

// ecmtURC takes the results of the module's MQTT client that nobody waits for.
// s is nil without a session; one that has ended takes messages only.
func (m *Modem) ecmtURC(s *Session, l at.Line) {
	name := at.Name(l.Text)
	if name == "+ECMTRECV" {
		m.received(s, l)
		return
	}
	if s == nil {
		return
	}
	switch name {
	case "+ECMTPUB":
		s.published(at.Args(l.Text))
	case "+ECMTSTAT":
		// The firmware reconnects by itself now and does not subscribe again.
		s.fail(fmt.Errorf("the connection to the broker was lost (%s)", strings.Join(at.Args(l.Text), ",")))
	case "+ECMTCONN", "+ECMTCON":
		s.fail(fmt.Errorf("%w; its subscriptions may be gone", errSelfConnected))
	case "+ECMTDISC", "+ECMTCLOSE":
		s.fail(errors.New("the module has closed the connection"))
	}
}

func (m *Modem) received(s *Session, l at.Line) {
	topic, payload, ok := parseReceived(l.Text)
	msgid := ""
	if a := at.Args(l.Text); len(a) > 1 {
		msgid = a[1]
	}
	if !ok || l.Cut {
		m.unreadable(l)
		return
	}
	msg := &holdfast.Message{Topic: topic, Payload: []byte(payload)}
	if msgid != "0" {
		msg.QoS = 1 // it has a packet identifier; 1 or 2 cannot be told apart
	}
	m.takeMessage(s, msg)
}

// parseReceived reads `+ECMTRECV: 0,<msgid>,"<topic>",<payload>`. The payload
// is everything after the comma. One pair of quotes around it is taken off,
// since some firmwares add it; so a payload that is a JSON string arrives
// without its quotes, and one that begins or ends with a NUL was cut there by
// the firmware.
func parseReceived(line string) (topic, payload string, ok bool) {
	topic, payload, ok = cutReceived(line)
	if !ok || topic == "" {
		return "", "", false
	}
	if len(payload) >= 2 && payload[0] == '"' && payload[len(payload)-1] == '"' {
		payload = payload[1 : len(payload)-1]
	}
	return topic, payload, true
}

func cutReceived(line string) (topic, rest string, ok bool) {
	_, rest, ok = strings.Cut(line, ":")
	if !ok {
		return "", "", false
	}
	for range 2 { // the connection, the message identifier
		if _, rest, ok = strings.Cut(rest, ","); !ok {
			return "", "", false
		}
	}
	rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " "), `"`)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, `",`)
}

// openPayload tells the engine which URC may go on over line ends, and whether
// its payload is not closed yet by its own grammar (JSON, or quotes).
func openPayload(line string) (may, open bool) {
	if at.Name(line[:min(len(line), 16)]) != "+ECMTRECV" {
		return false, false
	}
	_, payload, ok := cutReceived(line)
	if !ok {
		return false, false
	}
	inner, quoted := strings.CutPrefix(payload, `"`)
	if inner = strings.TrimLeft(inner, " \r\n\t"); inner != "" && (inner[0] == '{' || inner[0] == '[') {
		return true, openJSON(inner)
	}
	return true, quoted && !strings.HasSuffix(inner, `"`)
}

// openJSON reports whether the object or array that s begins with has no end.
func openJSON(s string) bool {
	depth, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return false
			}
		}
	}
	return true
}
