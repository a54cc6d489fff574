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
	} {
		_, err := c.m.ask(ctx, c.e, at.Command{Text: "AT+QMTCFG=" + item.text})
		if err != nil && (item.need || !at.IsRejection(err)) {
			return fmt.Errorf("configuring the module's MQTT client: %w", err)
		}
	}
	if l.Will == nil {
		return nil
	}
	if why := willProblem(l.Will); why != "" {
		c.m.log.Warn("connecting without a will, which the module cannot carry", "reason", why)
		return nil
	}
	_, err := c.m.wish(ctx, c.e, at.Command{Text: fmt.Sprintf(`AT+QMTCFG="will",0,1,%d,%d,"%s","%s"`,
		l.Will.QoS, bit(l.Will.Retain), l.Will.Topic, l.Will.Payload)})
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

// qmtOpens are the results of QMTOPEN.
var qmtOpens = map[string]string{
	"-1": "it could not be opened (-1)",
	"1":  "the module did not like the address (1)",
	"2":  "the module's client is in use (2)",
	"3":  "there is no data connection (3)",
	"4":  "the name was not found (4)",
	"5":  "the far side did not answer or refused (5)",
}

func (c *qmt) connect(ctx context.Context, s *Session) error {
	for try := 0; ; try++ {
		code, err := c.open(ctx, s)
		switch {
		case err != nil:
			return err
		case code == "0":
			return c.login(ctx, s)
		case code == "2" && try == 0:
			// In use, although prepare has closed it: it takes a moment.
			c.leave(ctx)
			if !sleep(ctx, s.m.o.Timing.SelfRepair/5) {
				return ctx.Err()
			}
			continue
		}
		why, ok := qmtOpens[code]
		if !ok {
			why = "result " + code
		}
		return errDial(s.login.Host, s.login.Port, errors.New(why))
	}
}

func (c *qmt) open(ctx context.Context, s *Session) (code string, err error) {
	w := c.e.Expect(isLine("+QMTOPEN", "0"))
	defer w.Stop()
	_, err = c.e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+QMTOPEN=0,"%s",%d`, s.login.Host, s.login.Port)})
	if at.IsRejection(err) {
		return "", fmt.Errorf("the module does not open a connection to %s:%d; check the APN, and that the SIM has data left (%w)",
			s.login.Host, s.login.Port, err)
	}
	if err != nil {
		return "", err
	}
	l, err := s.wait(ctx, w, s.m.o.Timing.Open)
	if errors.Is(err, at.ErrTimeout) {
		return "", errSilentOpen
	}
	if err != nil {
		return "", err
	}
	if a := at.Args(l.Text); len(a) >= 2 {
		return a[1], nil
	}
	return "missing", nil
}

// login: `+QMTCONN: 0,<result>[,<code>]`, where result 1 is a repetition, after
// which another one comes, and the code is that of the CONNACK.
func (c *qmt) login(ctx context.Context, s *Session) error {
	w := c.e.Expect(isLine("+QMTCONN", "0"))
	defer w.Stop()
	text := fmt.Sprintf(`AT+QMTCONN=0,"%s"`, s.login.ClientID)
	if s.login.Username != "" || s.login.Password != "" {
		text += fmt.Sprintf(`,"%s","%s"`, s.login.Username, s.login.Password)
	}
	if _, err := c.e.Do(ctx, at.Command{Text: text}); err != nil {
		if at.IsRejection(err) {
			err = fmt.Errorf("the module did not take the login; check the lengths of client_id, username and password (%w)", err)
		}
		return err
	}
	d := s.m.o.Timing.Connect
	var failed error
	for {
		l, err := s.wait(ctx, w, d)
		switch {
		case failed != nil && errors.Is(err, at.ErrTimeout):
			return failed
		case errors.Is(err, at.ErrTimeout):
			return noConnack(s.login, d)
		case err != nil:
			return err
		}
		err, final := qmtLogin(at.Args(l.Text))
		if final {
			return err
		}
		if err != nil { // another result may follow, as with ecmt
			failed, d = err, s.m.o.Timing.SecondResult
		}
	}
}

func qmtLogin(a []string) (err error, final bool) {
	if len(a) < 2 {
		return nil, false
	}
	code := 0
	if len(a) >= 3 {
		code, _ = strconv.Atoi(a[2])
	}
	switch {
	case code > 0:
		return &RefusedError{Code: code}, true
	case a[1] == "0":
		return nil, true
	case a[1] == "1": // sent again
		return nil, false
	}
	return fmt.Errorf("%w (result %s): the module could not send the login", errLostOnConnect, a[1]), false
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
		s.fail(fmt.Errorf("the module took a publish without an answer: %w", err))
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
