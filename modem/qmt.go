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

// qmt is the MQTT client of Quectel firmware (LTE Standard MQTT Application
// Note), and of Eigencomm firmware with Quectel's commands. Payloads are counted
// in both directions. Its clients have numbers; 0 is used.
type qmt struct {
	m *Modem
	e *at.Engine

	payload int // the most bytes of a payload; 0 until it was asked for
}

const (
	qmtPayloadMax = 1500 // where the firmware does not say
	qmtTopic      = 256
)

func (*qmt) name() string { return "qmt" }
func (*qmt) window() int  { return window }

func (*qmt) check(l Login) error { return checkLogin(l, 100, 255, 255, 255) }

func (c *qmt) carriable(msg *holdfast.Message) error {
	most := c.payload
	if most == 0 {
		most = qmtPayloadMax
	}
	return checkMessage(msg, qmtTopic, most)
}

// prepare ends whatever an earlier session left, and configures.
func (c *qmt) prepare(ctx context.Context, l Login) error {
	if err := c.askPayload(ctx); err != nil {
		return err
	}
	c.leave(ctx)
	for _, item := range []struct {
		text string
		need bool
	}{
		{`"version",0,4`, false},
		{fmt.Sprintf(`"session",0,%d`, bit(l.CleanSession)), true},
		{fmt.Sprintf(`"keepalive",0,%d`, keepAliveSeconds(l)), false},
		// URCs with the payload and its length: without it, a payload that has a
		// line end cannot be told from the next URC.
		{`"recv/mode",0,0,1`, true},
		{`"dataformat",0,0,0`, false},
		{`"will",0,0`, false}, // that of an earlier configuration
	} {
		_, err := c.m.ask(ctx, c.e, at.Command{Text: "AT+QMTCFG=" + item.text})
		if err != nil && (item.need || !at.IsRejection(err)) {
			return fmt.Errorf("configuring the module's MQTT client: %w", err)
		}
	}
	return nil
}

func (c *qmt) setWill(ctx context.Context, w *holdfast.Message) error {
	_, err := c.m.ask(ctx, c.e, at.Command{Text: fmt.Sprintf(`AT+QMTCFG="will",0,1,%d,%d,"%s","%s"`,
		w.QoS, bit(w.Retain), w.Topic, w.Payload)})
	return err
}

// askPayload reads the bound of a payload off the test form, whose last range it
// is: `+QMTPUBEX: (0-5),(0-65535),(0-2),(0,1),"topic",(1-4096)`.
func (c *qmt) askPayload(ctx context.Context) error {
	if c.payload != 0 {
		return nil
	}
	r, err := c.m.wish(ctx, c.e, at.Command{Text: "AT+QMTPUBEX=?", Prefixes: []string{"+QMTPUBEX"}})
	if err != nil {
		return err
	}
	c.payload = lastRange(r.First())
	return nil
}

// lastRange is the upper end of the last range of a test form; 0 if there is none.
func lastRange(line string) int {
	a := at.Args(line)
	if len(a) == 0 {
		return 0
	}
	_, high, ok := strings.Cut(strings.Trim(a[len(a)-1], "()"), "-")
	n, err := strconv.Atoi(high)
	if !ok || err != nil || n < 64 || n > 60<<10 { // more than the lexer and the line discipline are good for
		return 0
	}
	return n
}

// hand: a message of QoS 0 must have the identifier 0, so that its result does
// not say which it is of: they are settled in their order.
func (c *qmt) hand(s *Session, p *publish) {
	id := int(p.id)
	if p.msg.QoS == 0 {
		id = 0
	}
	command := at.Command{
		Text:    fmt.Sprintf(`AT+QMTPUBEX=0,%d,%d,%d,"%s",%d`, id, p.msg.QoS, bit(p.msg.Retain), p.msg.Topic, len(p.msg.Payload)),
		Payload: append([]byte{}, p.msg.Payload...),
		Timeout: s.m.o.Timing.Radio,
		Failed:  func(err error) { s.fail(unanswered(err)) },
	}
	_, err := c.e.Do(s.cmd, command)
	if at.IsRejection(err) {
		// One code for everything: is it connected?
		if state, stateErr := c.state(s.cmd); stateErr != nil || state != qmtConnected {
			s.fail(fmt.Errorf("the module does not publish any more; its connection is gone (%w)", errors.Join(err, stateErr)))
			return
		}
		if _, err = c.e.Do(s.cmd, command); at.IsRejection(err) {
			s.rejectedTwice(p, err)
			return
		}
	}
	if err != nil {
		s.fail(unanswered(err))
		return
	}
	s.handed(p)
}

const qmtConnected = 3

func (c *qmt) state(ctx context.Context) (int, error) {
	r, err := c.m.wish(ctx, c.e, at.Command{
		Text: "AT+QMTCONN?", Prefixes: []string{"+QMTCONN"},
		Match: func(line string) bool { return len(at.Args(line)) == 2 },
	})
	if a := at.Args(r.First()); err == nil && len(a) == 2 {
		return strconv.Atoi(a[1])
	}
	return 0, err
}

func (c *qmt) subscribe(ctx context.Context, s *Session, id uint16, filter string, qos byte) error {
	w := c.e.Expect(isLine("+QMTSUB", "0", strconv.Itoa(int(id))))
	defer w.Stop()
	_, err := c.e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+QMTSUB=0,%d,"%s",%d`, id, filter, qos)})
	for err == nil {
		var l at.Line
		if l, err = s.wait(ctx, w, s.m.o.Timing.Subscribe); err != nil {
			break
		}
		a := at.Args(l.Text)
		switch {
		case len(a) >= 3 && a[2] == "1": // sent again
			continue
		case len(a) >= 4 && a[3] == "128":
			return fmt.Errorf("subscribing to %s: the broker refused it; check the rights of the user: %w", filter, holdfast.ErrRefused)
		case len(a) >= 3 && a[2] == "0":
			return nil
		}
		return fmt.Errorf("subscribing to %s: the module could not send it (%s)", filter, strings.Join(a, ","))
	}
	if errors.Is(err, at.ErrTimeout) {
		return fmt.Errorf("subscribing to %s: the broker did not answer within %v; check the signal", filter, s.m.o.Timing.Subscribe)
	}
	return fmt.Errorf("subscribing to %s: %w", filter, err)
}

// leave disconnects; a client that is not connected refuses that, and is closed.
func (c *qmt) leave(ctx context.Context) {
	for _, verb := range []string{"QMTDISC", "QMTCLOSE"} {
		w := c.e.Expect(isLine("+"+verb, "0"))
		_, err := c.e.Do(ctx, at.Command{Text: "AT+" + verb + "=0"})
		if err == nil {
			_, err = w.Wait(ctx, c.m.o.Timing.Close/2)
		}
		w.Stop()
		if err == nil || ctx.Err() != nil {
			return
		}
		c.m.log.Debug("disconnecting the module", "error", err)
	}
}
