package queues

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"holdfast"
)

// Line is one message of an exported file, which has one JSON object a line.
type Line struct {
	// Seq is the position of the message in its lane when it was exported. It is
	// for people: an import gives positions anew.
	Seq   uint64
	Lane  holdfast.Lane
	Route string
	Msg   *holdfast.Message
}

// MaxLine is the longest line in bytes that is read: the largest message that
// is stored, with each of its bytes written as \u00xx, fits.
const MaxLine = 4 << 20

// maxName is the longest name of a route in bytes.
const maxName = 1000

// jsonLine is the form of a Line, in the order in which a person wants to see it.
type jsonLine struct {
	Seq        uint64          `json:"seq,omitempty"`
	Topic      *string         `json:"topic"`
	Payload    *string         `json:"payload,omitempty"`        // if it is UTF-8
	Base64     *string         `json:"payload_base64,omitempty"` // if it is not
	QoS        *int            `json:"qos"`
	Retain     bool            `json:"retain"`
	Route      string          `json:"route,omitempty"`
	Lane       string          `json:"lane,omitempty"`
	Received   *time.Time      `json:"received,omitempty"`
	Origin     string          `json:"origin,omitempty"`
	Properties *jsonProperties `json:"properties,omitempty"`
}

// jsonProperties are those of MQTT 5.
type jsonProperties struct {
	PayloadUTF8     bool        `json:"payload_utf8,omitempty"`
	PayloadBytes    bool        `json:"payload_bytes,omitempty"` // not with payload_utf8
	Expiry          *uint32     `json:"expiry_seconds,omitempty"`
	ContentType     string      `json:"content_type,omitempty"`
	ResponseTopic   string      `json:"response_topic,omitempty"`
	CorrelationData []byte      `json:"correlation_data_base64,omitempty"`
	User            [][2]string `json:"user,omitempty"`
}

// Append appends the line with its newline to b.
func (l *Line) Append(b []byte) ([]byte, error) {
	m := l.Msg
	qos := int(m.QoS)
	j := jsonLine{
		Seq: l.Seq, Topic: &m.Topic, QoS: &qos, Retain: m.Retain,
		Route: l.Route, Lane: l.Lane.String(), Origin: m.Origin,
	}
	for _, s := range []string{m.Topic, m.Origin, l.Route} {
		if !utf8.ValidString(s) {
			return b, fmt.Errorf("%q is not UTF-8", s)
		}
	}
	if utf8.Valid(m.Payload) {
		text := string(m.Payload)
		j.Payload = &text
	} else {
		text := base64.StdEncoding.EncodeToString(m.Payload)
		j.Base64 = &text
	}
	if !m.Received.IsZero() {
		utc := m.Received.UTC()
		j.Received = &utc
	}
	if p := m.Properties; p != nil {
		j.Properties = &jsonProperties{
			PayloadUTF8: p.PayloadUTF8, PayloadBytes: p.PayloadBytes, ContentType: p.ContentType,
			ResponseTopic: p.ResponseTopic, CorrelationData: p.CorrelationData,
		}
		if p.HasExpiry {
			j.Properties.Expiry = &p.Expiry
		}
		for _, u := range p.User {
			j.Properties.User = append(j.Properties.User, [2]string{u.Name, u.Value})
		}
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(&j); err != nil {
		return b, err
	}
	return append(b, buf.Bytes()...), nil
}

// ParseLine reads one line strictly: what it does not know it refuses, so that
// no part of a message is dropped on the way. A message without a time has a
// zero Received.
func ParseLine(b []byte) (*Line, error) {
	if len(b) > MaxLine {
		return nil, fmt.Errorf("the line has more than %d bytes", MaxLine)
	}
	if !utf8.Valid(b) {
		return nil, errors.New("the line is not UTF-8: write other payloads as payload_base64")
	}
	var j jsonLine
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return nil, explain(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("there is something behind the JSON object")
	}
	if brokenSurrogate(b) {
		return nil, errors.New("it has half of a surrogate pair (\\ud800 to \\udfff): write the payload as payload_base64")
	}
	if j.Topic == nil || j.QoS == nil || (j.Payload == nil) == (j.Base64 == nil) {
		return nil, errors.New("it must have topic, qos, and one of payload and payload_base64")
	}
	l := &Line{Seq: j.Seq, Route: j.Route, Msg: &holdfast.Message{Topic: *j.Topic, Retain: j.Retain, Origin: j.Origin}}
	m := l.Msg
	if err := checkTopic(m.Topic); err != nil {
		return nil, err
	}
	if *j.QoS < 0 || *j.QoS > 2 {
		return nil, fmt.Errorf("qos is %d: it is 0, 1 or 2", *j.QoS)
	}
	if len(j.Route) > maxName || len(j.Origin) > math.MaxUint16 {
		return nil, errors.New("route or origin is too long")
	}
	m.QoS = byte(*j.QoS)
	if j.Payload != nil {
		m.Payload = []byte(*j.Payload)
	} else {
		var err error
		if m.Payload, err = base64.StdEncoding.Strict().DecodeString(*j.Base64); err != nil {
			return nil, fmt.Errorf("payload_base64: %w", err)
		}
	}
	if err := l.setLane(j.Lane); err != nil {
		return nil, err
	}
	if j.Received != nil {
		// The store keeps nanoseconds in 64 bits.
		if y := j.Received.Year(); y < 1970 || y > 2261 {
			return nil, fmt.Errorf("received is in the year %d", y)
		}
		m.Received = *j.Received
	}
	return l, l.setProperties(j.Properties)
}

func (l *Line) setLane(name string) error {
	if name == "" {
		return nil
	}
	for lane := range holdfast.Lane(holdfast.LaneCount) {
		if lane.String() == name {
			l.Lane = lane
			return nil
		}
	}
	return fmt.Errorf("lane is %q: it is high, normal or low", name)
}

func (l *Line) setProperties(j *jsonProperties) error {
	if j == nil {
		return nil
	}
	p := &holdfast.Properties{
		PayloadUTF8: j.PayloadUTF8, PayloadBytes: j.PayloadBytes && !j.PayloadUTF8, ContentType: j.ContentType,
		ResponseTopic: j.ResponseTopic, CorrelationData: j.CorrelationData,
	}
	if len(p.CorrelationData) == 0 {
		p.CorrelationData = nil
	}
	if j.Expiry != nil {
		p.HasExpiry, p.Expiry = true, *j.Expiry
	}
	for _, s := range []string{p.ContentType, p.ResponseTopic} {
		if len(s) > math.MaxUint16 {
			return errors.New("a property has more than 65535 bytes")
		}
	}
	for _, u := range j.User {
		if len(u[0]) > math.MaxUint16 || len(u[1]) > math.MaxUint16 {
			return errors.New("a user property has more than 65535 bytes")
		}
		p.User = append(p.User, holdfast.UserProperty{Name: u[0], Value: u[1]})
	}
	l.Msg.Properties = p
	return nil
}

// checkTopic holds a topic name to MQTT 3.1.1, 4.7.1 and 4.7.3.
func checkTopic(t string) error {
	switch {
	case t == "":
		return errors.New("topic is empty")
	case len(t) > math.MaxUint16:
		return errors.New("topic has more than 65535 bytes")
	case strings.ContainsAny(t, "+#\x00"):
		return fmt.Errorf("topic %.80q has +, # or a zero in it: it is no name of a topic", t)
	}
	return nil
}

// brokenSurrogate reports whether a line has a \u escape for which there is no
// character: the JSON reader silently makes U+FFFD of it, which would be
// another payload.
func brokenSurrogate(b []byte) bool {
	unit := func(i int) (u uint16, ok bool) {
		if i+6 > len(b) || b[i] != '\\' || b[i+1] != 'u' {
			return 0, false
		}
		for _, c := range b[i+2 : i+6] {
			switch {
			case c >= '0' && c <= '9':
				u = u<<4 | uint16(c-'0')
			case c|0x20 >= 'a' && c|0x20 <= 'f':
				u = u<<4 | uint16(c|0x20-'a'+10)
			default:
				return 0, false
			}
		}
		return u, true
	}
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		u, ok := unit(i)
		switch {
		case !ok:
			i++ // \\, \" and the like
		case u >= 0xd800 && u < 0xdc00:
			low, ok := unit(i + 6)
			if !ok || low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 11
		case u >= 0xdc00 && u < 0xe000:
			return true
		default:
			i += 5
		}
	}
	return false
}

// explain puts an error of the JSON reader into the words of the file.
func explain(err error) error {
	var typ *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the JSON object is cut off")
	case errors.As(err, &typ):
		return fmt.Errorf("%s is a %s", typ.Field, typ.Value)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "json: "))
}
