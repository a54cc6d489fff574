package modem

import (
	"context"
	"errors"
	"fmt"

	"holdfast"
	"holdfast/modem/at"
)

// prepare ends whatever an earlier session left, and starts the service anew.
func (c *cmqtt) prepare(ctx context.Context, l Login) error {
	c.leave(ctx)
	code, err := c.result(ctx, nil, "AT+CMQTTSTART", "+CMQTTSTART", nil)
	if err == nil && code == cmqttInUse {
		c.leave(ctx)
		code, err = c.result(ctx, nil, "AT+CMQTTSTART", "+CMQTTSTART", nil)
	}
	switch {
	case at.IsRejection(err): // some firmware says ERROR where it runs already
	case errors.Is(err, at.ErrTimeout) && !errors.Is(err, at.ErrUnsynced):
		return errSilentOpen
	case err != nil:
		return err
	case code != "0" && code != cmqttInUse:
		return fmt.Errorf("the module's MQTT service does not start (%s); check the APN, and that the SIM has data left", cmqttWords(code))
	}
	if _, err := c.m.ask(ctx, c.e, at.Command{Text: fmt.Sprintf(`AT+CMQTTACCQ=0,"%s"`, l.ClientID)}); err != nil {
		if at.IsRejection(err) {
			return fmt.Errorf("%w: the module gives no MQTT client (%w)", errStuck, err)
		}
		return err
	}
	if _, err := c.m.wish(ctx, c.e, at.Command{Text: `AT+CMQTTCFG="version",0,4`}); err != nil {
		return err
	}
	return nil
}

// setWill: the topic, then the message with its QoS and, with newer firmware, RETAIN.
// A will without RETAIN where one with it is wanted would be no use.
func (c *cmqtt) setWill(ctx context.Context, w *holdfast.Message) error {
	retain := ""
	if w.Retain {
		retain = ",1"
	}
	for _, part := range []struct {
		text  string
		bytes []byte
	}{
		{fmt.Sprintf("AT+CMQTTWILLTOPIC=0,%d", len(w.Topic)), []byte(w.Topic)},
		{fmt.Sprintf("AT+CMQTTWILLMSG=0,%d,%d%s", len(w.Payload), w.QoS, retain), w.Payload},
	} {
		if _, err := c.m.ask(ctx, c.e, at.Command{Text: part.text, Payload: part.bytes}); err != nil {
			return err
		}
	}
	return nil
}

func (c *cmqtt) connect(ctx context.Context, s *Session) error {
	l := s.login
	text := fmt.Sprintf(`AT+CMQTTCONNECT=0,"tcp://%s:%d",%d,%d`, l.Host, l.Port, keepAliveSeconds(l), bit(l.CleanSession))
	if l.Username != "" || l.Password != "" {
		text += fmt.Sprintf(`,"%s","%s"`, l.Username, l.Password)
	}
	code, err := c.result(ctx, s, text, "+CMQTTCONNECT", nil)
	switch {
	case at.IsRejection(err):
		return fmt.Errorf("the module did not take the login; check the lengths of client_id, username and password (%w)", err)
	case errors.Is(err, at.ErrTimeout):
		return errSilentOpen
	case err != nil:
		return err
	case code == "0":
		return nil
	}
	if n := cmqttRefusal(code); n > 0 {
		return &RefusedError{Code: n}
	}
	err = errors.New(cmqttWords(code))
	if code == cmqttNoName {
		err = fmt.Errorf("%w (%s)", errNotFound, code)
	}
	return errDial(l.Host, l.Port, err)
}

// leave ends the connection, gives the client back and stops the service. Each
// step is refused where there is nothing to end.
func (c *cmqtt) leave(ctx context.Context) {
	for _, step := range []struct{ text, name string }{
		{"AT+CMQTTDISC=0,60", "+CMQTTDISC"},
		{"AT+CMQTTREL=0", ""},
		{"AT+CMQTTSTOP", "+CMQTTSTOP"},
	} {
		w := c.e.Expect(func(l at.Line) bool { return step.name != "" && at.Name(l.Text) == step.name })
		_, err := c.e.Do(ctx, at.Command{Text: step.text})
		if err == nil && step.name != "" {
			_, err = w.Wait(ctx, c.m.o.Timing.Close/3)
		}
		w.Stop()
		if ctx.Err() != nil {
			return
		}
		if err != nil && !at.IsRejection(err) {
			c.m.log.Debug("disconnecting the module", "error", err)
		}
	}
}
