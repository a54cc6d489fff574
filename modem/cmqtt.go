package modem

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"holdfast"
	"holdfast/modem/at"
)

// cmqtt is the MQTT client of SIMCom firmware (A7670, SIM7600: MQTT Application
// Note). Topics and payloads are counted in both directions. It is strictly
// serial: a publish is three commands and a result that has no identifier.
type cmqtt struct {
	m *Modem
	e *at.Engine

	// busy is taken from a request to its result: the firmware does one at a time. A
	// token of one.
	busy chan struct{}

	// Only accessed from the dispatch goroutine.
	group *cmqttGroup
}

const (
	cmqttTopic   = 1024
	cmqttPayload = 10240
	// cmqttInUse: the service runs already; cmqttAcquired: the client does.
	cmqttInUse  = "23"
	cmqttNoName = "25"
)

func newCMQTT(m *Modem, e *at.Engine) *cmqtt {
	return &cmqtt{m: m, e: e, busy: make(chan struct{}, 1)}
}

// begin waits for the turn of a request, until ctx ends.
func (c *cmqtt) begin(ctx context.Context) error {
	select {
	case c.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *cmqtt) finish() { <-c.busy }

func (*cmqtt) name() string { return "cmqtt" }

func (*cmqtt) window() int { return 1 }

func (*cmqtt) check(l Login) error { return checkLogin(l, 240, 128, 256, 256) }

func (*cmqtt) carriable(msg *holdfast.Message) error {
	if len(msg.Payload) == 0 {
		return fmt.Errorf("its payload is empty, and this module takes 1 byte at least; use mode = \"socket\": %w", holdfast.ErrRefused)
	}
	return checkMessage(msg, cmqttTopic, cmqttPayload)
}

// result runs a command, with its payload if it has one, and waits for its URC:
// the code is the last argument. With a session, a URC that tells of a failure may be
// followed by another one for the same command, which counts then, as with ecmt.
func (c *cmqtt) result(ctx context.Context, s *Session, text, name string, payload []byte) (string, error) {
	w := c.e.Expect(func(l at.Line) bool { return at.Name(l.Text) == name })
	defer w.Stop()
	if _, err := c.e.Do(ctx, at.Command{Text: text, Payload: payload, Timeout: c.m.o.Timing.Command}); err != nil {
		return "", err
	}
	var l at.Line
	var err error
	if s != nil {
		l, err = s.wait(ctx, w, c.m.o.Timing.Open)
	} else {
		l, err = w.Wait(ctx, c.m.o.Timing.Close)
	}
	if err != nil {
		return "", err
	}
	code := lastArg(l.Text)
	if s != nil && code != "0" && cmqttRefusal(code) == 0 {
		if l, err = s.wait(ctx, w, c.m.o.Timing.SecondResult); err == nil {
			code = lastArg(l.Text)
		}
	}
	if code == "" {
		return "", fmt.Errorf("the module's answer to %s cannot be understood", name)
	}
	return code, nil
}

// lastArg is the last argument of a line, "" if it has none.
func lastArg(line string) string {
	a := at.Args(line)
	if len(a) == 0 {
		return ""
	}
	return a[len(a)-1]
}

// cmqttRefusal is the return code of the CONNACK that a result stands for (27 to 31);
// 0 for other results.
func cmqttRefusal(code string) int {
	if n, err := strconv.Atoi(code); err == nil && n >= 27 && n <= 31 {
		return n - 26
	}
	return 0
}

// cmqttWords are the codes that are met (SIMCom: 0 to 34).
func cmqttWords(code string) string {
	what, ok := map[string]string{
		"11": "no connection", "14": "the client is busy", "17": "time-out", "19": "the client is in use",
		"20": "the client was not acquired", "21": "the client was not released", "22": "a length is wrong",
		"23": "it runs already", "26": "the broker has closed the connection",
		"32": "TLS failed", "33": "TLS failed", "34": "TLS failed",
	}[code]
	if !ok {
		return "code " + code
	}
	return what + ", code " + code
}

// hand runs the three commands of a publish and waits for its result, which says
// that the broker has acknowledged it. Nothing else goes on meanwhile.
func (c *cmqtt) hand(s *Session, p *publish) {
	if c.begin(s.cmd) != nil {
		return // the session has failed, and settled p
	}
	defer c.finish()
	topic := []byte(p.msg.Topic)
	for _, part := range []struct {
		text  string
		bytes []byte
	}{
		{fmt.Sprintf("AT+CMQTTTOPIC=0,%d", len(topic)), topic},
		{fmt.Sprintf("AT+CMQTTPAYLOAD=0,%d", len(p.msg.Payload)), p.msg.Payload},
	} {
		_, err := c.e.Do(s.cmd, at.Command{Text: part.text, Payload: part.bytes, Timeout: s.m.o.Timing.Radio})
		if at.IsRejection(err) {
			s.rejectedTwice(p, err)
			return
		}
		if err != nil {
			s.fail(unanswered(err))
			return
		}
	}
	w := c.e.Expect(isLine("+CMQTTPUB", "0"))
	defer w.Stop()
	wait := max(int(s.m.o.Timing.Ack.Seconds()), 60) // the least that the firmware takes
	text := fmt.Sprintf("AT+CMQTTPUB=0,%d,%d", p.msg.QoS, min(wait, 180))
	if p.msg.Retain {
		text += ",1"
	}
	_, err := c.e.Do(s.cmd, at.Command{Text: text})
	if at.IsRejection(err) {
		s.fail(fmt.Errorf("the module does not publish any more; its connection is gone (%w)", err))
		return
	}
	if err != nil {
		s.fail(unanswered(err))
		return
	}
	s.handed(p)
	l, err := s.wait(s.cmd, w, s.m.o.Timing.Ack)
	if err != nil {
		s.ackTimeout(p)
		return
	}
	if a := at.Args(l.Text); len(a) >= 2 && a[1] == "0" {
		s.settle(p, nil)
		return
	}
	s.fail(fmt.Errorf("the module could not publish (%s): %w", cmqttWords(strings.Join(at.Args(l.Text)[1:], ",")), holdfast.ErrUnknown))
}

func (c *cmqtt) subscribe(ctx context.Context, s *Session, _ uint16, filter string, qos byte) error {
	if err := c.begin(ctx); err != nil {
		return fmt.Errorf("subscribing to %s: %w", filter, err)
	}
	defer c.finish()
	code, err := c.result(ctx, s, fmt.Sprintf("AT+CMQTTSUB=0,%d,%d", len(filter), qos), "+CMQTTSUB", []byte(filter))
	switch {
	case errors.Is(err, at.ErrTimeout):
		return fmt.Errorf("subscribing to %s: the broker did not answer; check the signal", filter)
	case err != nil:
		return fmt.Errorf("subscribing to %s: %w", filter, err)
	case code == "0":
		return nil
	}
	return fmt.Errorf("subscribing to %s: %s; check the rights of the user", filter, cmqttWords(code))
}

func (c *cmqtt) urc(s *Session, l at.Line) bool {
	name := at.Name(l.Text)
	if strings.TrimSpace(l.Text) == "+CMQTTNONET" { // it has no arguments, and no colon
		name = "+CMQTTNONET"
	}
	if !strings.HasPrefix(name, "+CMQTT") {
		return false
	}
	switch name {
	case "+CMQTTRXSTART", "+CMQTTRXTOPIC", "+CMQTTRXPAYLOAD", "+CMQTTRXEND":
		c.received(s, name, l)
		return true
	}
	if s == nil {
		return true
	}
	switch name {
	case "+CMQTTCONNLOST":
		s.fail(fmt.Errorf("the connection to the broker was lost (%s)", strings.Join(at.Args(l.Text), ",")))
	case "+CMQTTPING":
		if a := at.Args(l.Text); len(a) >= 2 && a[1] != "0" {
			s.fail(errors.New("the broker did not answer a ping"))
		}
	case "+CMQTTNONET":
		s.fail(errors.New("the module has no network any more"))
	case "+CMQTTDISC", "+CMQTTSTOP":
		s.fail(errors.New("the module has closed the connection"))
	}
	return true
}
